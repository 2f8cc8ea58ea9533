"""Rows on disk between decoding and committing, so that an export larger than memory passes through in chunks."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from gnn.publish import ensure_dir

STAGING = "staging"


class Part(Protocol):
    """A part of a table's rows that is merged at once: all copies of a key lie in one part."""

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows of a batch belong to it (boolean)."""


class Staged:
    """The rows of one table in an Arrow stream file; written once, then read as often as needed, memory-mapped."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Open `path` for rows of `schema`."""
        self.schema = schema
        self.rows = 0
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def add(self, rows: pa.Table) -> None:
        """Append rows; ArrowInvalid where their schema is another one."""
        if rows.num_rows:
            self._writer.write_table(rows.cast(self.schema))
            self.rows += rows.num_rows

    def close(self) -> None:
        """Finish writing."""
        self._writer.close()
        self._sink.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in the order in which they were added."""
        with pa.memory_map(str(self._path)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def counts(self, column: str) -> dict[str, int]:
        """Rows by value of a string column."""
        found: dict[str, int] = {}
        for batch in self.batches():
            for entry in pc.value_counts(batch.column(column)):
                value = entry["values"].as_py()
                found[value] = found.get(value, 0) + entry["counts"].as_py()
        return found

    def select(self, part: Part | None = None) -> pa.Table:
        """Rows of one part; all rows without one."""
        found = [batch if part is None else batch.filter(part.holds(batch)) for batch in self.batches()]
        return pa.Table.from_batches(found, schema=self.schema)

    def reader(self) -> pa.RecordBatchReader:
        """All rows as a stream."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())


@dataclass
class Staging:
    """A directory for one batch of exports, gone afterwards; leftovers of a killed process go with the next batch."""

    home: Path
    schemas: Mapping[str, pa.Schema]
    _open: dict[str, Staged] = field(default_factory=dict)
    _folder: Path = field(default=Path())

    def __enter__(self) -> "Staging":
        """Make the directory; the caller holds the ingest lock, so that older ones are leftovers."""
        root = self.home / STAGING
        shutil.rmtree(root, ignore_errors=True)
        ensure_dir(root)
        self._folder = Path(mkdtemp(dir=root))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove the directory with all rows."""
        for staged in self._open.values():
            staged.close()
        shutil.rmtree(self.home / STAGING, ignore_errors=True)

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows of table `name`."""
        if name not in self._open:
            self._open[name] = self.fresh(name)
        self._open[name].add(rows)

    def fresh(self, name: str, schema: pa.Schema | None = None) -> Staged:
        """A new file for rows of table `name`."""
        number = len(list(self._folder.iterdir()))
        return Staged(self._folder / f"{number:04d}.arrow", schema or self.schemas[name])

    def take(self, name: str) -> Staged:
        """The finished rows of table `name`, none where nothing was added."""
        staged = self._open.pop(name, None) or self.fresh(name)
        staged.close()
        return staged
