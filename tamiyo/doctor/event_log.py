"""Shrink an older, bloated event log (`tamiyo doctor --prune-instance`).

Until pictures became files, each event of an asset held its picture as base64, once a training run and partition, in the run's
database and in the index: 400 MB a rebuild. Each step here can be interrupted and repeated: what is read by a later step (the
set of retired partitions) is deleted last.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from schemas.errors import StorageError
from tamiyo_assets.instance import open_instance
from tamiyo_assets.retention import DAYS, connect, database_files, prune, shrink, size_of, sql_events

RETIRED_PARTITIONS: Final = "training_runs"  # the dynamic partitions of training runs, that no asset has any more
_BATCH: Final = 50  # events that are rewritten in one transaction
_PICTURE: Final = re.compile(r"!\[([^\]]*)\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)")
_LARGE: Final = 12_000  # base64 characters of a picture; a larger one is taken out of its event
_MARK: Final = "data:image/png;base64,"
_TEXTS: Final = (
    ("event_logs", "event"),
    ("asset_keys", "last_materialization"),
    ("asset_check_executions", "evaluation_event"),
)


@dataclass(frozen=True)
class PrunedInstance:
    """What was taken out of an instance: old runs, events of retired partitions, pictures in events; its size in bytes."""

    runs: int
    partition_events: int
    pictures: int
    bytes_before: int
    bytes_after: int


def prune_instance(dagster_home: Path, days: int = DAYS) -> PrunedInstance:
    """Delete events of retired partitions and runs older than `days`, take pictures out of events, and free the space.

    The newest event of each asset and check stays, and so does everything recent, except the pictures. Raises StorageError if a
    run is not finished, if there is no instance, or if it is not kept in SQLite.
    """
    if not (dagster_home / "history").is_dir():
        raise StorageError(f"instance {dagster_home}: expected a Dagster instance with runs, found none; name its --home")
    with open_instance(dagster_home) as instance:
        events = sql_events(instance)
        if not isinstance(events, SqliteEventLogStorage):
            raise StorageError(
                f"instance {dagster_home}: expected its event log in SQLite; prune {type(events).__name__} itself"
            )
        _require_finished(instance, dagster_home)
        before = _size(events)
        dropped = _drop_partitions(instance, events)
        runs = prune(instance, days).runs
        pictures = sum(_strip(path) for path in _event_files(events))
        for path in {*_event_files(events), *database_files(events)}:
            shrink(path, at_least=1)
        return PrunedInstance(runs, dropped, pictures, before, _size(events))


def _require_finished(instance: dg.DagsterInstance, dagster_home: Path) -> None:
    unfinished = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished), limit=1):
        raise StorageError(
            f"instance {dagster_home}: expected no unfinished run, found {run.run_id} ({run.status.value}); "
            "wait for its end, or end it in the UI, and prune then"
        )


def _event_files(events: SqliteEventLogStorage) -> list[Path]:
    """Return the index, and the database of each run and of what was reported outside of runs."""
    return sorted(Path(events.path_for_shard("index")).parent.glob("*.db"))


def _size(events: SqliteEventLogStorage) -> int:
    return sum(size_of(path) for path in {*_event_files(events), *database_files(events)})


def _drop_partitions(instance: dg.DagsterInstance, events: SqliteEventLogStorage) -> int:
    """Delete the events of retired partitions, then the set of these partitions; return how many events.

    The newest event of each type and asset in a file is kept.
    """
    retired = list(instance.get_dynamic_partitions(RETIRED_PARTITIONS))
    if not retired:
        return 0
    index = Path(events.path_for_shard("index"))
    others = [path for path in _event_files(events) if path != index]
    for path in others:
        _drop_events(path, retired)
    count = _drop_events(index, retired)
    for key in instance.get_asset_keys():
        events.wipe_asset_cached_status(key)  # it counts the partitions, and is made again when it is asked for
    for partition in retired:
        instance.delete_dynamic_partition(RETIRED_PARTITIONS, partition)
    return count


def _drop_events(path: Path, partitions: Sequence[str]) -> int:
    with _transaction(path) as connection:
        connection.execute("CREATE TEMP TABLE retired (partition TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO retired VALUES (?)", [(name,) for name in partitions])
        gone = connection.execute(
            "DELETE FROM event_logs WHERE partition IN (SELECT partition FROM retired) AND id NOT IN ("
            "SELECT max(id) FROM event_logs WHERE asset_key IS NOT NULL GROUP BY asset_key, dagster_event_type"
            " UNION SELECT max(id) FROM event_logs)"
        ).rowcount
        connection.execute("DELETE FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)")
    return gone


def _strip(path: Path) -> int:
    """Take pictures larger than a thumbnail out of a file's events, some events a transaction; return how many events."""
    count = 0
    for table, column in _TEXTS:
        with closing(connect(path)) as connection:
            query = f"SELECT id FROM {table} WHERE length({column}) > ? AND instr({column}, ?)"
            ids = [row[0] for row in connection.execute(query, (_LARGE, _MARK))]
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            with _transaction(path) as connection:
                connection.create_function("without_pictures", 1, without_pictures, deterministic=True)
                marks = ", ".join("?" * len(batch))
                changed = f"{column} = without_pictures({column})"
                where = f"id IN ({marks}) AND {column} <> without_pictures({column})"
                count += connection.execute(f"UPDATE {table} SET {changed} WHERE {where}", batch).rowcount
    return count


def without_pictures(event: str) -> str:
    """Return an event's JSON with each picture that is larger than a thumbnail replaced by its alternative text."""
    return _PICTURE.sub(lambda found: found[0] if len(found[2]) < _LARGE else f"{found[1]} (picture not kept)", event)


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
