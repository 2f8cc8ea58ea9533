"""Ingest each export exactly once per table, however often it is called and wherever it was interrupted.

Each commit of a table records, as app transactions, the exports that it holds, how far the ledger has been followed, and
cumulative counts. Rejects are committed first. A refresh with nothing new writes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from lake.accounting import Accounting, accounting
from lake.durable.publish import lock
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger
from lake.exports.pending import Pending, plans_of
from lake.ingest.rebuilding import begin_layout, migrate, remove_broken
from lake.ingest.report import IngestReport
from lake.store.failures import disk_full
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS
from schemas.decode import Limits
from schemas.errors import StorageError

Progress = Callable[[str, int, int], None]  # (export file, exports done, exports in all)

INGEST_LOCK = ".ingest.lock"
BATCH_BYTES = 512 << 20  # exports decoded before their tables are committed


@dataclass(frozen=True)
class Ingest:
    """Brings the contract tables of one home up to date with an exports root; `limits` bound what is read."""

    home: Path
    exports: Exports
    tables: TableStore
    limits: Limits = field(default_factory=Limits)

    def refresh(self, folders: Iterable[str] | None = None, progress: Progress | None = None) -> IngestReport:
        """Read what is new in `folders` (None: in all). Holds the ingest lock; safe to repeat and to kill."""
        report = IngestReport()
        with lock(self.home / INGEST_LOCK), _kept_memory():
            begin_layout(self.home, self.tables)
            if folders is None:
                broken = remove_broken(self.home, self.tables, derived=True)
                report.rebuilt = migrate(self.home, self.tables) | broken
            try:
                self._refresh(folders, progress, report)
            except StorageError:
                broken = remove_broken(self.home, self.tables, derived=False)
                report.rebuilt |= broken
                if not broken:
                    raise
                self._refresh(folders, progress, report)
            except OSError as error:
                raise disk_full(error, self.home) or error from None
        return report

    def _refresh(self, folders: Iterable[str] | None, progress: Progress | None, report: IngestReport) -> None:
        """Read what is new; the caller holds the lock. An unreadable table stops only its folders; its error comes last."""
        from lake.ingest.replay_plan import finish

        finish(self.home, self.tables)
        tables = self.tables.held()
        self.exports.recall(self.home)
        scan = self.exports.scan(folders)
        report.unplaced = scan.unplaced
        errors: list[StorageError] = []
        plans = plans_of(tables, scan, Ledger(self.home).record(scan), errors)
        done, count = 0, sum(len(plan) for plan in plans.values())
        for name, plan in plans.items():
            try:
                for batch in _batches(plan):
                    from lake.ingest.intake import take_in

                    take_in(tables, FOLDERS[name], batch, self.limits, report)
                    pa.default_memory_pool().release_unused()
                    done += len(batch)
                    if progress is not None:
                        progress(batch[-1].export.file, done, count)
            except StorageError as error:
                errors.append(error)
        if report.wrote:
            self.exports.note(self.home, scan)
        if errors:
            raise errors[0]

    def accounting(self, name: str) -> Accounting:
        """Return the counts of contract table `name` (read, kept, duplicates, rejects) for the check that no record is lost."""
        return accounting(self.tables, name)

    def run_ids(self) -> list[str]:
        """Return all training runs that have states or seeds, sorted."""
        tables = self.tables.held()
        files = [tables.runs_by_file(name) for name in ("tolaria.system_state", "kasmina.seed_state")]
        return sorted({run for runs_by_file in files for runs in runs_by_file.values() for run in runs if run is not None})


@contextmanager
def _kept_memory() -> Iterator[None]:
    """Make Arrow use the system's allocator, in the whole process, while the block runs.

    Arrow's own allocator returns the memory of every chunk to the kernel, which must clear it for the next chunk: a sixth of
    the time of a large ingest. The system's keeps it until `release_unused`.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _batches(plan: Sequence[Pending]) -> Iterable[list[Pending]]:
    """Cut a plan into batches of at most `BATCH_BYTES`, but at least one export each."""
    batch: list[Pending] = []
    size = 0
    for pending in plan:
        if batch and size + pending.export.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(pending)
        size += pending.export.size
    if batch:
        yield batch
