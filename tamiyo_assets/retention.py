"""Delete old runs and their events, if nothing that is shown now comes from them.

Dagster deletes ticks by itself (`retention:` in dagster.yaml), runs never. `DagsterInstance.delete_run` leaves a run's tags,
its rows of check executions, its captured logs, and on SQLite its database file behind; all of these go here too. Which run
holds the newest event of an asset or check is read from Dagster's own tables, for which there is no public call.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import sqlalchemy as db
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from schemas.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

DAYS: Final = 30
MOST: Final = 300  # finished runs that are kept at most: a run that rebuilds everything takes 2 MB
BUSY_SECONDS: Final = 30
_WORTH_BYTES: Final = 4 << 20
_WORTH_SHARE: Final = 0.25
_EVENTS: Final = SqlEventLogStorageTable.c
_CHECKS: Final = AssetCheckExecutionsTable.c


@dataclass(frozen=True)
class Pruned:
    """What was deleted: runs, events that belonged to no run, and bytes that SQLite files gave back. `kept`: runs left."""

    runs: int
    events: int
    kept: int
    freed_bytes: int


def prune(instance: dg.DagsterInstance, days: int = DAYS, *, most: int = MOST, now: datetime | None = None) -> Pruned:
    """Delete finished runs that ended more than `days` ago, and all but the `most` newest ones.

    A run that holds the newest event of an asset or a check is kept. Safe to interrupt and to repeat: what a killed pruning
    left of a run goes with the next one. Raises StorageError if the storage of the instance is not a SQL database.
    """
    events = sql_events(instance)
    now = now or datetime.now(UTC)
    cutoff = now - timedelta(days=days)
    kept = kept_runs(events)
    old = instance.get_run_records(dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=cutoff))
    surplus = instance.get_run_records(dg.RunsFilter(statuses=FINISHED_STATUSES))[most:]  # newest first
    gone = sorted({record.dagster_run.run_id for record in (*old, *surplus)} - kept)
    for run_id in gone:
        _delete(instance, events, run_id)
    for run_id in _left_behind(instance, events, now - timedelta(days=1)):
        _delete(instance, events, run_id)
    runless = _delete_runless(events, cutoff)
    freed = sum(shrink(path) for path in database_files(events))
    return Pruned(len(gone), runless, instance.get_runs_count(), freed)


def sql_events(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    """Return the event log of an instance. Raises StorageError if it is not kept in SQL."""
    events = instance.event_log_storage
    if not isinstance(events, SqlEventLogStorage):
        raise StorageError(f"event log: expected a SQL storage, found {type(events).__name__}; prune it by its own means")
    return events


def kept_runs(events: SqlEventLogStorage) -> set[str]:
    """Return the runs that must be kept.

    These hold the newest event of some type of an asset (and partition), the newest execution of a check, or the last event of
    all: SQLite would give its id again, and a sensor whose cursor is that id would miss the next event.
    """
    of_assets = db.select(_EVENTS.run_id).where(_EVENTS.id.in_(newest_events()))
    of_checks = db.select(_CHECKS.run_id).where(_CHECKS.id.in_(newest_checks()))
    evaluated = db.select(_CHECKS.run_id).where(_CHECKS.id.in_(newest_checks(evaluated=True)))
    with events.index_connection() as connection:
        return {row[0] for query in (of_assets, of_checks, evaluated) for row in connection.execute(query)}


def newest_events() -> Any:
    """Return a query of the ids of the newest event of each type, asset and partition, and of the last event of all."""
    per_asset = (
        db.select(db.func.max(_EVENTS.id))
        .where(_EVENTS.asset_key.is_not(None))
        .group_by(_EVENTS.asset_key, _EVENTS.dagster_event_type, _EVENTS.partition)
    )
    return per_asset.union(db.select(db.func.max(_EVENTS.id)))


def newest_checks(*, evaluated: bool = False) -> Any:
    """Return a query of the ids of the newest execution of each check; if `evaluated`, of the newest that has a result."""
    query = db.select(db.func.max(_CHECKS.id)).group_by(_CHECKS.asset_key, _CHECKS.check_name, _CHECKS.partition)
    return query.where(_CHECKS.execution_status.in_(("SUCCEEDED", "FAILED"))) if evaluated else query


def database_files(events: SqlEventLogStorage) -> list[Path]:
    """Return SQLite files of an instance that are shared by its runs; [] for another database."""
    if not isinstance(events, SqliteEventLogStorage):
        return []
    index = Path(events.path_for_shard("index"))
    base = index.parent.parent
    return [path for path in (index, base / "runs.db", base.parent / "schedules" / "schedules.db") if path.exists()]


def _left_behind(instance: dg.DagsterInstance, events: SqlEventLogStorage, cutoff: datetime) -> list[str]:
    """Return runs of which only the database file is left, untouched since `cutoff`: a pruning was killed in between."""
    if not isinstance(events, SqliteEventLogStorage):
        return []
    files = {run_id: Path(events.path_for_shard(run_id)) for run_id in events.get_all_run_ids()}
    old = {run_id for run_id, path in files.items() if path.stat().st_mtime < cutoff.timestamp()}
    return sorted(run_id for run_id in old if run_id != RUNLESS_RUN_ID and not instance.has_run(run_id))


def _delete(instance: dg.DagsterInstance, events: SqlEventLogStorage, run_id: str) -> None:
    with events.index_connection() as connection:
        connection.execute(AssetCheckExecutionsTable.delete().where(_CHECKS.run_id == run_id))
    runs = instance.run_storage
    if isinstance(runs, SqlRunStorage):
        with runs.connect() as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    if isinstance(events, SqliteEventLogStorage):
        for suffix in ("-wal", "-shm", ""):
            Path(events.path_for_shard(run_id) + suffix).unlink(missing_ok=True)


def _delete_runless(events: SqlEventLogStorage, cutoff: datetime) -> int:
    """Delete old events that were reported outside of runs and are superseded; return how many."""
    with events.index_connection() as connection:
        count = _delete_superseded(connection, cutoff)
        connection.execute(
            AssetCheckExecutionsTable.delete().where(
                _CHECKS.run_id == RUNLESS_RUN_ID,
                _CHECKS.evaluation_event_timestamp < cutoff.replace(tzinfo=None),
                _CHECKS.id.not_in(newest_checks()),
            )
        )
    if isinstance(events, SqliteEventLogStorage) and Path(events.path_for_shard(RUNLESS_RUN_ID)).exists():
        with events.run_connection(RUNLESS_RUN_ID) as connection:
            _delete_superseded(connection, cutoff)
    return count


def _delete_superseded(connection: "Connection", cutoff: datetime) -> int:
    superseded = (
        db.select(_EVENTS.id)
        .where(_EVENTS.run_id == RUNLESS_RUN_ID, _EVENTS.asset_key.is_not(None))
        .where(_EVENTS.timestamp < cutoff.replace(tzinfo=None), _EVENTS.id.not_in(newest_events()))
    )
    connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(superseded)))
    return connection.execute(SqlEventLogStorageTable.delete().where(_EVENTS.id.in_(superseded))).rowcount


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode that waits for other writers as long as Dagster's own do."""
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def size_of(path: Path) -> int:
    """Return the size of a database and its log in bytes."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def shrink(path: Path, *, at_least: int = _WORTH_BYTES) -> int:
    """Rewrite a database that is empty in large part, and return by how many bytes it shrank.

    It is rewritten if at least `at_least` bytes and a quarter of it are free. Readers go on meanwhile, writers wait; if another
    process holds it for longer than `BUSY_SECONDS`, it is left for the next time.
    """
    before = size_of(path)
    with closing(connect(path)) as connection:
        free, pages, page_bytes = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_count", "page_size")
        )
        if free * page_bytes < at_least or free < pages * _WORTH_SHARE:
            return 0
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as busy:
            if "locked" not in str(busy):
                raise
    return max(0, before - size_of(path))
