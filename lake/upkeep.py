"""Compact and vacuum tables on a schedule, but never delete a version that a build has pinned."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from lake.builds import pins, take_over_pins
from lake.store.storage_format import FILES, stored_bytes
from lake.store.table_store import TableStore
from schemas.errors import StorageError

RETENTION = timedelta(days=7)
LOG_RETENTION = timedelta(days=30)
SMALL_FILES = 16  # a table with fewer files is not worth a rewrite
SMALLEST_FILE = 128 << 10  # bytes
LONG_LOG = 200  # commits; a shorter log is not worth cleaning
RETRIES = 20


@dataclass(frozen=True)
class Maintained:
    """What was done to one table: files merged by compaction, files deleted by vacuum, versions kept for builds.

    `problem`: why nothing could be done.
    """

    name: str
    merged: int
    deleted: int
    pinned: tuple[int, ...]
    problem: str | None = None


def maintain(tables: TableStore, retention: timedelta = RETENTION) -> list[Maintained]:
    """Compact and vacuum every table; return what was done, without tables that needed nothing.

    Files that a version within `retention` or a pinned version needs are kept. A table that others are writing to is left for
    the next time; one that can't be read is reported and does not stop the others. Raises StorageError for a damaged pin: then
    nothing may be deleted.
    """
    take_over_pins(tables.home, tables)
    pinned_by_build = pins(tables.home).values()
    done = []
    for name in tables.names():
        pinned = {versions[name] for versions in pinned_by_build if name in versions}
        try:
            done.append(_maintain(tables, name, retention, pinned))
        except (StorageError, DeltaError) as damage:
            done.append(Maintained(name, 0, 0, (), str(damage)))
    return [one for one in done if one.merged or one.deleted or one.problem]


def _maintain(tables: TableStore, name: str, retention: timedelta, wanted: set[int]) -> Maintained:
    """Compact and vacuum one table; keep the `wanted` versions."""
    table = tables.open(name)
    if table is None:
        return Maintained(name, 0, 0, ())
    # a version beyond the newest belongs to a table that was removed since
    pinned = tuple(sorted(version for version in wanted if version <= table.version()))
    merged = _compact(table)
    deleted = _vacuum(tables, name, table, retention, pinned)
    _clean_log(tables, name, table, pinned)
    return Maintained(name, merged, deleted, pinned)


def _compact(table: DeltaTable) -> int:
    """Merge small files; return how many were replaced."""
    if len(table.file_uris()) < SMALL_FILES:
        return 0
    try:
        # about as large as a commit makes them, so that replacing a run's rows does not rewrite those of all runs
        size = max(SMALLEST_FILE, stored_bytes(table) // FILES)
        result = table.optimize.compact(target_size=size, commit_properties=CommitProperties(max_commit_retries=RETRIES))
    except CommitFailedError:
        # another writer changed a file that was being merged: its commit stands, and the next time merges again
        table.update_incremental()
        return 0
    table.update_incremental()
    return int(result["numFilesRemoved"])


def _vacuum(store: TableStore, name: str, table: DeltaTable, retention: timedelta, pinned: tuple[int, ...]) -> int:
    """Delete files that no kept version needs; return how many."""
    hours = int(retention / timedelta(hours=1))
    keep = list(pinned) or None
    listed = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, keep_versions=keep)
    # files that an earlier vacuum deleted stay listed as long as the log mentions them
    there = [file for file in listed if (store.path(name) / file).exists()]
    if there:
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, keep_versions=keep)
    return len(there)


def _clean_log(store: TableStore, name: str, table: DeltaTable, pinned: tuple[int, ...]) -> None:
    """Drop commit logs past their retention, unless a build needs one of them to find its files."""
    if len(list((store.path(name) / "_delta_log").glob("*.json"))) < LONG_LOG:
        return
    oldest = (datetime.now(UTC) - LOG_RETENTION).timestamp()
    times = {commit["version"]: commit["timestamp"] / 1000 for commit in table.history()} if pinned else {}
    if all(version in times and times[version] > oldest for version in pinned):
        table.create_checkpoint()
        table.cleanup_metadata()
