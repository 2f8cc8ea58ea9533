"""Rows on disk between decoding and committing, so that an export larger than memory passes through in chunks."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gnn.publish import ensure_dir
from schemas.contracts import TABLES
from tamiyo_assets.resources.tables import SCOPE

STAGING = "staging"


class Part(Protocol):
    """A part of a table's rows that is merged at once: all copies of a key lie in one part.

    `runs`: the training runs whose rows it holds, each wholly; None where it is cut otherwise.
    """

    @property
    def runs(self) -> frozenset[str] | None:
        """The training runs whose rows it holds."""

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows of a batch belong to it (boolean)."""


class Staged:
    """The rows of one table in an Arrow file; written once, then read as often as needed, a batch at a time.

    `hashes`: of the keys of the rows in order (uint64), where `key` names the key columns; equal keys have equal hashes within
    one process.
    """

    def __init__(self, path: Path, schema: pa.Schema, key: Sequence[str] = ()) -> None:
        """Open `path` for rows of `schema`."""
        self.schema = schema
        self.rows = 0
        self._path = path
        self._key = list(key)
        self._hashes: list[pl.Series] = []
        self._runs: list[dict[str, int]] = []
        self._sink = pa.OSFile(str(path), "wb")
        # a quarter of the bytes, and less time than writing all of them takes
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._writer = pa.ipc.new_file(self._sink, schema, options=options)

    def add(self, rows: pa.Table) -> None:
        """Append rows; ArrowInvalid where their schema is another one."""
        for batch in rows.cast(self.schema).to_batches():
            if batch.num_rows == 0:
                continue
            self._writer.write_batch(batch)
            self.rows += batch.num_rows
            self._runs.append(_counts(batch))
            if self._key:
                self._hashes.append(key_hashes(batch, self._key))

    def close(self) -> None:
        """Finish writing."""
        self._writer.close()
        self._sink.close()

    def hashes(self) -> pl.Series:
        """Hashes of the rows' keys, in order."""
        return pl.concat(self._hashes) if self._hashes else pl.Series(dtype=pl.UInt64)

    def batches(self, part: Part | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of one part (None: all) in the order in which they were added.

        Read, not mapped: pages of a mapped file would count as memory of this process.
        """
        with pa.OSFile(str(self._path)) as source:
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False))
            for number in range(reader.num_record_batches):
                runs = None if part is None else part.runs
                if runs is not None and runs.isdisjoint(self._runs[number]):
                    continue
                batch = reader.get_batch(number)
                whole = part is None or (runs is not None and runs.issuperset(self._runs[number]))
                yield batch if whole or part is None else batch.filter(part.holds(batch))

    def runs(self) -> dict[str, int]:
        """Rows by training run."""
        found: dict[str, int] = {}
        for counts in self._runs:
            for run, count in counts.items():
                found[run] = found.get(run, 0) + count
        return found

    def select(self, part: Part) -> pa.Table:
        """Rows of one part."""
        return pa.Table.from_batches(list(self.batches(part)), schema=self.schema)

    def reader(self) -> pa.RecordBatchReader:
        """All rows as a stream."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())


def key_hashes(batch: pa.RecordBatch | pa.Table, key: Sequence[str]) -> pl.Series:
    """Hash of each row's key (uint64), the same for equal keys within one process."""
    frame = pl.from_arrow(batch.select(list(key)))
    return frame.hash_rows() if isinstance(frame, pl.DataFrame) else frame.hash()


def _counts(batch: pa.RecordBatch) -> dict[str, int]:
    """Rows by training run; none where the table has no such column."""
    if SCOPE not in batch.schema.names:
        return {}
    counts = pc.value_counts(batch.column(SCOPE))
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


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

    def fresh(self, name: str) -> Staged:
        """A new file for rows of table `name`."""
        number = len(list(self._folder.iterdir()))
        key = TABLES[name].key if name in TABLES else ()
        return Staged(self._folder / f"{number:04d}.arrow", self.schemas[name], key)

    def take(self, name: str) -> Staged:
        """The finished rows of table `name`, none where nothing was added."""
        staged = self._open.pop(name, None) or self.fresh(name)
        staged.close()
        return staged
