"""Stage rows between decoding and committing: in memory up to a bound, then on disk, for exports of any size.

A separate thread hashes, counts and packs the rows, which Arrow and polars can do while Python decodes the next chunk.
"""

import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count as numbers
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from types import TracebackType
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lake.durable.publish import ensure_dir
from lake.store.pruning import SCOPE
from lake.store.validation import Validation, declaration
from schemas.contracts import TABLES
from schemas.errors import ContractError, StorageError, TamiyoError

STAGING = "staging"
MEMORY_BYTES = 128 << 20  # of decoded rows that are held in memory; further rows go to disk
_WAITING = 2  # chunks by which decoding may be ahead of staging


class Part(Protocol):
    """A part of a table's rows that is merged at once; all copies of a key are in one part."""

    @property
    def runs(self) -> frozenset[str] | None:
        """The training runs all of whose rows it holds; None if it is not cut by run."""

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which rows of a batch belong to it (bool [rows])."""


@dataclass
class Memory:
    """A budget of bytes to hold in memory. `known`: addresses of the buffers held; batches share many of them."""

    left: int
    known: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def take(self, batch: pa.RecordBatch) -> bool:
        """Return whether the batch fits, and if so count its buffers as held."""
        buffers = {one.address: one.size for column in batch.columns for one in column.buffers() if one is not None}
        with self._lock:
            added = buffers.keys() - self.known
            size = sum(buffers[address] for address in added)
            if size > self.left:
                return False
            self.left -= size
            self.known |= added
            return True


class Staged:
    """The rows of one table, as many in `memory` as fit, the others in an Arrow file; can be read repeatedly, in batches.

    `key`: the key columns, of which `hashes` gives hashes. Not safe for several threads at once.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        memory: Memory,
        key: Sequence[str] = (),
        validation: Validation | None = None,
    ) -> None:
        """Hold rows of `schema`; write to `path` what does not fit into memory. `validation`: the rules that rows must keep."""
        self.schema = schema
        self.rows = 0
        self._path = path
        self._memory = memory
        self._key = list(key)
        self._validation = validation
        self._held: list[pa.RecordBatch] = []
        self._hashes: list[pl.Series] = []
        self._runs: list[dict[str, int]] = []
        self._file: _Spill | None = None

    def add(self, rows: pa.Table) -> None:
        """Append rows. Raises ArrowInvalid for another schema. Rows that break rules are refused here or by `validate`."""
        for batch in rows.cast(self.schema).to_batches():
            if batch.num_rows == 0:
                continue
            if self._file is None and self._memory.take(batch):
                self._held.append(batch)
            else:
                self._file = self._file or _Spill(self._path, self.schema)
                self._file.writer.write_batch(batch)
            if self._validation is not None:
                self._validation.add(batch)
            self.rows += batch.num_rows
            self._runs.append(_counts(batch))
            if self._key:
                self._hashes.append(key_hashes(batch, self._key))

    def validate(self) -> None:
        """Check the rows that were not checked against the table's rules yet."""
        if self._validation is not None:
            self._validation.finish()

    def close(self) -> None:
        """Finish writing."""
        if self._file is not None:
            self._file.close()

    def hashes(self) -> pl.Series:
        """Return the hashes of the rows' keys, in order (uint64 [rows]); equal keys have equal hashes within one process."""
        return pl.concat(self._hashes) if self._hashes else pl.Series(dtype=pl.UInt64)

    def batches(self, part: Part | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one part (None: all) in the order in which they were added."""
        runs = None if part is None else part.runs
        wanted = [runs is None or not runs.isdisjoint(counts) for counts in self._runs]
        for number, batch in self._chosen(wanted):
            whole = part is None or (runs is not None and runs.issuperset(self._runs[number]))
            yield batch if whole or part is None else batch.filter(part.holds(batch))

    def _chosen(self, wanted: Sequence[bool]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the wanted batches and their numbers."""
        held = len(self._held)
        yield from ((number, batch) for number, batch in enumerate(self._held) if wanted[number])
        if self._file is None:
            return
        # the file is read, not mapped: mapped pages would count as memory of this process
        with pa.OSFile(str(self._path)) as source:
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(use_threads=False))
            for number in range(held, len(wanted)):
                if wanted[number]:
                    yield number, reader.get_batch(number - held)

    def runs(self) -> dict[str, int]:
        """Return the number of rows by training run."""
        found: dict[str, int] = {}
        for counts in self._runs:
            for run, count in counts.items():
                found[run] = found.get(run, 0) + count
        return found

    def select(self, part: Part) -> pa.Table:
        """Return the rows of one part."""
        return pa.Table.from_batches(list(self.batches(part)), schema=self.schema)

    def reader(self) -> pa.RecordBatchReader:
        """Return all rows as a stream."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())


class _Spill:
    """An Arrow file that is being written."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Open `path` for rows of `schema`."""
        self._sink = pa.OSFile(str(path), "wb")
        # compression: a quarter of the bytes, and faster than writing all of them
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self.writer = pa.ipc.new_file(self._sink, schema, options=options)

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()
        self._sink.close()


def key_hashes(batch: pa.RecordBatch | pa.Table, key: Sequence[str]) -> pl.Series:
    """Return the hash of each row's key (uint64 [rows]); equal keys have equal hashes within one process."""
    frame = pl.from_arrow(batch.select(list(key)))
    return frame.hash_rows() if isinstance(frame, pl.DataFrame) else frame.hash()


def _counts(batch: pa.RecordBatch) -> dict[str, int]:
    """Return the number of rows by training run; {} if the table has no such column."""
    if SCOPE not in batch.schema.names:
        return {}
    counts = pc.value_counts(batch.column(SCOPE))
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


@dataclass
class Staging:
    """A temporary directory for one batch of exports; the next batch removes leftovers of a killed process.

    One thread adds rows; several threads may take different tables.
    """

    home: Path
    schemas: Mapping[str, pa.Schema]
    _open: dict[str, Staged] = field(default_factory=dict)
    _folder: Path = field(default=Path())
    _memory: Memory = field(default_factory=lambda: Memory(MEMORY_BYTES))
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "staging"))
    _waiting: deque[Future[None]] = field(default_factory=deque)
    _taking: Lock = field(default_factory=Lock)
    _files: Iterator[int] = field(default_factory=numbers)

    def __enter__(self) -> "Staging":
        """Make the directory. The caller holds the ingest lock, so any older one is a leftover."""
        root = self.home / STAGING
        shutil.rmtree(root, ignore_errors=True)
        ensure_dir(root)
        self._folder = Path(mkdtemp(dir=root))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove the directory with all rows."""
        self._thread.shutdown(cancel_futures=True)
        for staged in self._open.values():
            staged.close()
        shutil.rmtree(self.home / STAGING, ignore_errors=True)

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows of table `name`. Raises the error of earlier rows, as `take` does."""
        if name not in self._open:
            self._open[name] = self.fresh(name, ContractError)
        self._settle(_WAITING - 1)
        self._waiting.append(self._thread.submit(self._open[name].add, rows))

    def fresh(self, name: str, error: type[TamiyoError] = StorageError) -> Staged:
        """Return an empty `Staged` for rows of table `name`; it raises `error` for rows that break the table's rules."""
        key = TABLES[name].key if name in TABLES else ()
        declared = declaration(name)
        validation = None if declared is None else Validation(declared, error)
        return Staged(self._folder / f"{next(self._files):04d}.arrow", self.schemas[name], self._memory, key, validation)

    def take(self, name: str) -> Staged:
        """Return the finished rows of table `name`; empty if nothing was added."""
        with self._taking:
            self._settle(0)
        staged = self._open.pop(name, None) or self.fresh(name)
        staged.validate()
        staged.close()
        return staged

    def settle(self) -> None:
        """Wait until all rows are staged and checked against their tables' rules; raise the first error."""
        with self._taking:
            self._settle(0)
            for staged in self._open.values():
                staged.validate()

    def _settle(self, most: int) -> None:
        """Wait until at most `most` chunks are not yet staged."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()
