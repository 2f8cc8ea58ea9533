"""Read a Parquet file in batches: columns by name, row groups as far as they are sound."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.decode.limits import Limits
from schemas.decode.read.parquet_limits import UNREADABLE, Unreadable, check_group
from schemas.decode.shape.canonical import canonical_json
from schemas.decode.shape.cell_text import cell_json
from schemas.decode.shape.columns import Mask, truth

MOST_ROWS: Final = 2**40  # a footer that claims more is damaged
_SECOND: Final = 1_000_000_000


@dataclass
class Batch:
    """Rows of a file with its declared columns, by name. `start`: number of the first row in the file.

    `wrapped`: rows, by column, whose INT96 times do not fit int64 nanoseconds; Arrow reads them as times of another century.
    `seconds` holds their true times.
    """

    rows: pa.RecordBatch
    start: int
    wrapped: dict[str, Mask] = field(default_factory=dict)
    seconds: pa.RecordBatch | None = None
    others: "_UndeclaredColumns | None" = None

    @cached_property
    def raws(self) -> Sequence[bytes]:
        """The rows with all their columns as JSON; each row is converted only on access."""
        return RowTexts(self.rows, self)


@dataclass
class Source:
    """An open Parquet file. Raises Unreadable if the file is not Parquet."""

    path: Path
    limits: Limits

    def __enter__(self) -> "Source":
        """Open the file."""
        try:
            self._file = pq.ParquetFile(self.path)
            self.metadata = self._file.metadata
            self.names: list[str] = list(self._file.schema_arrow.names)
        except UNREADABLE as error:
            raise Unreadable(str(error)) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def group_rows(self) -> list[int]:
        """Return the number of rows of each row group, by the footer."""
        counts = [self.metadata.row_group(index).num_rows for index in range(self.metadata.num_row_groups)]
        return [min(max(count, 0), MOST_ROWS) for count in counts]

    def rows(self) -> int:
        """Return the number of rows of the file, by the footer."""
        return max(sum(self.group_rows()), min(max(int(self.metadata.num_rows), 0), MOST_ROWS))

    def batches(self, index: int, start: int, declared: Sequence[str]) -> Iterator[Batch]:
        """Yield the `declared` columns of row group `index`, whose first row is row `start` of the file. Raises Unreadable."""
        try:
            sound = check_group(self.path, self.metadata.row_group(index), index, self.limits, declared)
            names = list(declared)
            seconds = self._seconds(index, [name for name in self._int96() if name in names])
            rest = [name for name in self.names if name not in names]
            others = _UndeclaredColumns(self, index, rest, start) if sound and rest else None
            for rows in self._file.iter_batches(
                self.limits.chunk_records, row_groups=[index], columns=names, use_threads=False
            ):
                rows = rows.select([place for place, name in enumerate(rows.schema.names) if name in names])
                coarse = next(seconds, None)
                yield Batch(rows, start, _wrapped(rows, coarse), coarse, others)
                start += rows.num_rows
        except UNREADABLE as error:
            raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None

    def of_group(self, index: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a row group, in batches of the same length as those of `batches`."""
        with pq.ParquetFile(self.path) as source:
            yield from source.iter_batches(self.limits.chunk_records, row_groups=[index], columns=list(columns))

    def _int96(self) -> list[str]:
        """Return the columns of the old INT96 time type."""
        schema = self._file.schema
        columns = [schema.column(place) for place in range(len(schema.names))]
        return [column.path for column in columns if column.physical_type == "INT96"]

    def _seconds(self, index: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield INT96 columns in seconds, which hold every time."""
        if names:
            with pq.ParquetFile(self.path, coerce_int96_timestamp_unit="s") as source:
                yield from source.iter_batches(self.limits.chunk_records, row_groups=[index], columns=names)


def _wrapped(rows: pa.RecordBatch, seconds: Any) -> dict[str, Mask]:
    """Return, by column, the rows whose nanoseconds and seconds are not the same time."""
    found: dict[str, Mask] = {}
    for name in () if seconds is None else seconds.schema.names:
        fine, coarse = rows.column(name).cast(pa.int64()), seconds.column(name).cast(pa.int64())
        floor = np.floor_divide(np.asarray(pc.fill_null(fine, 0), np.int64), _SECOND)
        found[name] = truth(pc.is_valid(fine)) & (floor != np.asarray(pc.fill_null(coarse, 0), np.int64))
    return found


class _UndeclaredColumns:
    """Columns of a row group that the contract lacks, read only for rejected rows; none if they can't be read."""

    def __init__(self, source: Source, index: int, names: Sequence[str], start: int) -> None:
        self._batches = source.of_group(index, names)
        self._next = start
        self._held: pa.RecordBatch | None = None

    def at(self, start: int) -> pa.RecordBatch | None:
        """Return the batch that begins at row `start`; successive calls never go back."""
        while self._next <= start:
            try:
                self._held = next(self._batches, None)
            except UNREADABLE:
                self._held = None
            if self._held is None or not self._held.num_rows:
                return None
            self._next += self._held.num_rows
        return self._held


class RowTexts(Sequence[bytes]):
    """Rows as canonical JSON, one at a time; rows of a `batch` include undeclared columns and their true INT96 times."""

    def __init__(self, rows: pa.RecordBatch | pa.Table, batch: Batch | None = None) -> None:
        self._rows, self._batch = rows, batch

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]
        batch = self._batch
        others = None if batch is None or batch.others is None else batch.others.at(batch.start)
        found: dict[str, Any] = {}
        for part in (self._rows,) if others is None else (others, self._rows):
            for place, name in enumerate(part.schema.names):
                found[name] = cell_json(part.column(place)[row])
        if batch is not None and batch.seconds is not None:
            wrapped = [name for name, mask in batch.wrapped.items() if mask[row]]
            found |= {name: cell_json(batch.seconds.column(name)[row]) for name in wrapped}
        return canonical_json(found).text.encode()
