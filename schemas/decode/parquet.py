"""Parquet exports: the contract table's own columns, under the same rules of presence and range as every other format."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.contracts import TABLES, Column, Folder, Presence, Reason, Table
from schemas.decode.canonical import canonical_json
from schemas.decode.collector import Collector, Decoded, Origin, RawRecord
from schemas.decode.columns import Findings, null_where, shape_column, truth
from schemas.decode.limits import Limits
from schemas.decode.parquet_limits import Unreadable, check_group
from schemas.decode.rows import emit, shape_table
from schemas.decode.urza_graph import GUARD

_PROVENANCE = frozenset({"non_finite", "export_digest", "position", "arrival"})


def decode_parquet(folder: Folder, path: Path, file: str, digest: str, limits: Limits) -> Iterator[Decoded]:
    """Rows of a Parquet file, a batch of rows at a time. A file that is no table of the folder is one reject."""
    done = 0
    try:
        for batch in _batches(path, limits):
            collector = Collector(folder, file, digest, limits)
            decode_rows(collector, pa.table(batch), done)
            done += batch.num_rows
            yield collector.finish()
    except (WrongColumns, Unreadable) as error:
        collector = Collector(folder, file, digest, limits)
        reason = Reason.WRONG_COLUMNS if isinstance(error, WrongColumns) else error.reason
        collector.reject_record(RawRecord(done, b""), reason, f"{file}: {error}")
        yield collector.finish()


def _batches(path: Path, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Batches of rows; an empty one for a file without rows. Raises Unreadable where the file is damaged or beyond limits."""
    try:
        with pq.ParquetFile(path) as source:
            if not source.metadata.num_rows:
                yield pa.RecordBatch.from_pylist([], schema=source.schema_arrow)
            for index in range(source.num_row_groups):
                check_group(path, source.metadata.row_group(index), index, limits)
                for batch in source.iter_batches(batch_size=limits.chunk_records, row_groups=[index]):
                    batch.validate(full=True)
                    yield batch
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None


class WrongColumns(ValueError):
    """A Parquet file whose columns are no table of its folder."""


def table_of(folder: Folder, columns: Iterable[str]) -> Table:
    """The folder's table whose key is among the columns and that shares the most of them. Raises WrongColumns."""
    names = set(columns)
    fits = [TABLES[name] for name in folder.tables if set(TABLES[name].key) - set(TABLES[name].nullable_key) <= names]
    if not fits:
        raise WrongColumns(f"expected the columns of one of {', '.join(folder.tables)}, found {sorted(names)[:20]}")
    return max(fits, key=lambda table: (len(names & set(table.names)), -len(table.names)))


def decode_rows(collector: Collector, rows: pa.Table, start: int) -> None:
    """Shape and emit rows of the file, of which the first is row `start`. Raises WrongColumns."""
    table = table_of(collector.folder, rows.column_names)
    for name in set(rows.column_names) - set(table.names) - _PROVENANCE:
        collector.count_unknown({f"{table.name}.{name}": rows.num_rows})
    given = Findings(rows.num_rows)
    derived = {
        column.name: shape_column(replace(column, presence=Presence.EXPLICIT, enum=None), _column(rows, column), given)
        for column in table.columns
        if column.presence is Presence.DERIVED and column.name in rows.column_names
    }

    def raw(path: str) -> pa.Array | None:
        name = by_path[path]
        if name not in rows.column_names:
            return None
        return _column(rows, table.column[name])

    by_path = {column.field_path: column.name for column in table.columns}
    columns, found = shape_table(table, raw, rows.num_rows, derived)
    found.faults += given.faults
    found.non_finite += given.non_finite
    columns |= _unsent(table, columns)
    if "non_finite" in rows.column_names:
        _carry_non_finite(rows, columns, found)
    positions = np.arange(start, start + rows.num_rows, dtype=np.int64)
    emit(collector, table.name, columns, found, Origin(positions, _RowBytes(rows)))


def _unsent(table: Table, columns: dict[str, Any]) -> dict[str, pa.Array]:
    """What decoders of messages say of every row, for producers whose files do not have the column."""
    if table.name == "tolaria.system_state":
        return {"is_completion": pc.fill_null(columns["is_completion"], pa.scalar(False))}
    if table.name == "kasmina.seed_state":
        return {"source": pc.fill_null(columns["source"], "export")}
    if "is_placeholder" in table.column:
        guards = pa.array(truth(pc.equal(columns["type"], GUARD)))
        return {"is_placeholder": pc.coalesce(columns["is_placeholder"], guards)}
    return {}


def _carry_non_finite(rows: pa.Table, columns: dict[str, Any], found: Findings) -> None:
    """Take over the names of values that were not finite; these stay missing, also where absent is zero."""
    lists = _cast(_whole(rows, "non_finite"), "non_finite", pa.list_(pa.string()))
    wild: dict[str, list[int]] = {}
    for index, names in enumerate(lists.to_pylist()) if lists.null_count < len(lists) else ():
        if names:
            found.missing(np.full(len(names), index, np.int64), pa.array(names, pa.string()))
            for name in names:
                wild.setdefault(name, []).append(index)
    for name in wild.keys() & columns.keys():
        columns[name] = null_where(columns[name], np.isin(np.arange(len(lists)), wild[name]))


def _column(rows: pa.Table, column: Column) -> pa.Array:
    """A column of the file as one array of the contract's type. Raises WrongColumns where it is of another."""
    array = _whole(rows, column.name)
    if pa.types.is_unsigned_integer(array.type) and pa.types.is_integer(column.type):
        return array
    return _cast(array, column.name, pa.string() if column.enum else column.type)


def _whole(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name).combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array(column)


def _cast(array: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
    try:
        return array if array.type.equals(kind) else array.cast(kind, safe=not pa.types.is_floating(kind))
    except pa.ArrowException as error:
        raise WrongColumns(f"{name}: expected {kind}, found {array.type}: {error}") from None


class _RowBytes(Sequence[bytes]):
    """Rows as canonical JSON, made only for those that are rejected."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]
        return canonical_json({name: _plain(self._rows.column(name)[row]) for name in self._rows.column_names}).text.encode()


def _plain(value: pa.Scalar) -> Any:
    """A value as JSON can hold it; columns that no contract has may be of any type."""
    try:
        found = value.as_py()
        json.dumps(found)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return found
