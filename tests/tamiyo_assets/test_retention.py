"""Retention on a real SQLite instance: what the UI shows as newest is the same after it as before, and the rest is gone."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from tamiyo_assets.instance import open_instance
from tamiyo_assets.retention import kept_runs, prune, shrink, sql_events
from tamiyo_assets.upkeep import maintenance_job, prune_runs

LATER = datetime.now(UTC) + timedelta(days=40)
UP, DOWN, FEED = dg.AssetKey("up"), dg.AssetKey("down"), dg.AssetKey("feed")
FAT = "x" * (1 << 20)


@dg.asset(name="up", code_version="1")
def up(config: dict[str, str]) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion(config["version"]), metadata={"fat": dg.MetadataValue.md(FAT)})


@dg.asset(name="down", deps=[up], code_version="1")
def down() -> None:
    pass


@dg.asset_check(asset=up, name="sound")
def sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.job
def nothing() -> None:
    @dg.op
    def rest() -> None:
        pass

    rest()


DEFINITIONS = dg.Definitions(assets=[up, down, dg.AssetSpec(FEED)], asset_checks=[sound], jobs=[nothing])


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path) as opened:
        yield opened


def materialize(instance: dg.DagsterInstance, version: str, *keys: dg.AssetKey) -> str:
    job = DEFINITIONS.resolve_implicit_global_asset_job_def().get_subset(asset_selection={*keys})
    config = {"ops": {"up": {"config": {"version": version}}}} if UP in keys else {}
    result = job.execute_in_process(instance=instance, run_config=config)
    assert result.success
    return result.run_id


def idle(instance: dg.DagsterInstance) -> str:
    return nothing.execute_in_process(instance=instance, tags={"who": "nobody"}).run_id


def shown(instance: dg.DagsterInstance) -> dict[str, object]:
    """What the UI shows: the newest events of assets, data versions, stale status, the newest result of the check."""
    graph = DEFINITIONS.resolve_asset_graph()
    found: dict[str, object] = {}
    for key in (UP, DOWN, FEED):
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        [record] = instance.get_asset_records([key]) or [None]
        found[str(key)] = (
            instance.get_latest_materialization_event(key),
            instance.get_latest_data_version_record(key),
            record and (record.asset_entry.last_run_id, record.asset_entry.last_materialization_storage_id),
            None if key == FEED else (resolver.get_status(key), resolver.get_stale_causes(key)),
        )
    check = dg.AssetCheckKey(UP, "sound")
    found["check"] = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)
    return found


def files(instance: dg.DagsterInstance) -> set[str]:
    return {path.stem for path in Path(instance.root_directory).glob("history/runs/*.db")} - {"index", ".db"}


def rows(instance: dg.DagsterInstance, file: str, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(Path(instance.root_directory) / "history" / file)) as connection:
        return connection.execute(query).fetchall()


def test_old_runs_go_and_what_is_shown_stays(instance: dg.DagsterInstance) -> None:
    runs = [materialize(instance, "1", UP, DOWN), materialize(instance, "2", UP, DOWN), materialize(instance, "3", UP)]
    idle(instance)
    last = idle(instance)
    before = shown(instance)
    assert before["check"] is not None
    done = prune(instance, now=LATER)
    assert (done.runs, done.kept) == (2, 3)
    kept = {runs[1], runs[2], last}  # `down` was last made by the second, and the last event of all is of an idle run
    assert {record.dagster_run.run_id for record in instance.get_run_records()} == kept == files(instance)
    assert shown(instance) == before
    assert {run for (run,) in rows(instance, "runs.db", "SELECT DISTINCT run_id FROM run_tags")} <= kept
    assert {run for (run,) in rows(instance, "runs/index.db", "SELECT run_id FROM event_logs")} == kept
    assert {run for (run,) in rows(instance, "runs/index.db", "SELECT run_id FROM asset_check_executions")} == {*runs[1:]}
    assert (
        rows(instance, "runs/index.db", "SELECT * FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)")
        == []
    )
    assert not [path for path in Path(instance.root_directory).glob("storage/*") if path.name in {runs[0]}]
    assert prune(instance, now=LATER).runs == 0


def test_young_and_unfinished_runs_stay(instance: dg.DagsterInstance) -> None:
    old = [materialize(instance, str(number), UP, DOWN) for number in range(2)]
    unfinished = instance.create_run_for_job(nothing, tags={"who": "nobody"})
    instance.report_run_canceling(unfinished)
    idle(instance)
    assert prune(instance).runs == 0
    assert prune(instance, days=50, now=LATER).runs == 0
    assert prune(instance, now=LATER).runs == 1
    assert instance.has_run(unfinished.run_id) and not instance.has_run(old[0])


def test_however_young_they_are_only_so_many_runs_stay(instance: dg.DagsterInstance) -> None:
    runs = [materialize(instance, str(number), UP, DOWN) for number in range(5)]
    before = shown(instance)
    assert prune(instance, most=5).runs == 0
    assert prune(instance, most=2).runs == 3
    assert files(instance) == set(runs[3:])
    assert prune(instance, most=0).runs == 1
    assert shown(instance) == before


def test_events_get_new_numbers_after_retention(instance: dg.DagsterInstance) -> None:
    """A run-status sensor follows the numbers of events: none may be given twice."""
    materialize(instance, "1", UP, DOWN)
    idle(instance)
    [(newest,)] = rows(instance, "runs/index.db", "SELECT max(id) FROM event_logs")
    prune(instance, days=0, now=LATER)
    run = idle(instance)
    [(first,)] = rows(instance, "runs/index.db", f"SELECT min(id) FROM event_logs WHERE run_id = '{run}'")
    assert first == newest + 1  # type: ignore[operator]


def test_what_a_killed_retention_left_goes_with_the_next(instance: dg.DagsterInstance) -> None:
    gone = materialize(instance, "1", UP, DOWN)
    materialize(instance, "2", UP, DOWN)
    instance.run_storage.delete_run(gone)  # killed behind the first step of `delete_run`
    assert gone in files(instance)
    prune(instance, now=LATER)
    assert gone not in files(instance)
    assert rows(instance, "runs/index.db", f"SELECT 1 FROM event_logs WHERE run_id = '{gone}'") == []


def test_superseded_events_outside_of_runs_go(instance: dg.DagsterInstance) -> None:
    for number in range(3):
        instance.report_runless_asset_event(dg.AssetMaterialization(FEED, metadata={"number": number}))
    instance.report_runless_asset_event(dg.AssetCheckEvaluation(asset_key=UP, check_name="sound", passed=True, metadata={}))
    before = shown(instance)
    assert prune(instance).events == 0
    assert prune(instance, now=LATER).events == 2
    assert shown(instance) == before
    assert rows(instance, "runs/.db", "SELECT count(*) FROM event_logs WHERE asset_key IS NOT NULL") == [(1,)]


def test_a_check_that_is_only_planned_does_not_hide_its_last_result(instance: dg.DagsterInstance) -> None:
    first = materialize(instance, "1", UP, DOWN)
    second = materialize(instance, "2", UP, DOWN)
    with closing(sqlite3.connect(Path(instance.root_directory) / "history" / "runs" / "index.db")) as connection:
        connection.execute("UPDATE asset_check_executions SET execution_status = 'PLANNED' WHERE run_id = ?", (second,))
        connection.commit()
    assert AssetCheckExecutionRecordStatus.PLANNED.value == "PLANNED"
    assert kept_runs(sql_events(instance)) == {first, second}


def test_the_index_gives_its_space_back(instance: dg.DagsterInstance) -> None:
    index = Path(instance.root_directory) / "history" / "runs" / "index.db"
    for number in range(9):
        materialize(instance, str(number), UP)
    before = index.stat().st_size
    done = prune(instance, now=LATER)
    assert done.runs == 8
    assert index.stat().st_size < before / 3 and done.freed_bytes >= before / 2


def test_shrinking_waits_for_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamiyo_assets.retention.BUSY_SECONDS", 0.05)
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("INSERT INTO t VALUES (zeroblob(8000000))")
        holder.execute("DELETE FROM t")
        holder.execute("BEGIN IMMEDIATE")
        assert shrink(path) == 0
        holder.execute("COMMIT")
        assert shrink(path) >= 7_000_000


def test_the_maintenance_job_prunes_the_instance_that_it_runs_in(instance: dg.DagsterInstance) -> None:
    assert prune_runs.name in {node.name for node in maintenance_job.graph.nodes}
    materialize(instance, "1", UP)

    @dg.job
    def alone() -> None:
        prune_runs()

    result = alone.execute_in_process(instance=instance)
    [output] = [event for event in result.all_events if event.is_successful_output]
    assert {name: value.value for name, value in output.step_output_data.metadata.items()} == {
        "runs": 0, "events": 0, "kept": 2, "freed_bytes": 0,
    }  # fmt: skip


WRITER = """
import sys, dagster as dg
from pathlib import Path
from tamiyo_assets.instance import open_instance
with open_instance(Path(sys.argv[1])) as instance:
    for number in range(80):
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("feed"), metadata={"number": number}))
"""


def test_events_that_are_written_meanwhile_are_all_there(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamiyo_assets.retention._WORTH_SHARE", 0.0)
    index = Path(instance.root_directory) / "history" / "runs" / "index.db"
    for number in range(3):
        materialize(instance, str(number), UP)
    freed = 0
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WRITER, instance.root_directory], stderr=subprocess.PIPE
    ) as writer:
        while writer.poll() is None:
            prune(instance, most=1)
            with closing(sqlite3.connect(index, isolation_level=None)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS filler (x)")
                connection.execute("INSERT INTO filler VALUES (zeroblob(100000))")
                connection.execute("DELETE FROM filler")
            freed += shrink(index, at_least=1)
        assert writer.stderr is not None
        assert (writer.returncode, writer.stderr.read()) == (0, b"")
    assert freed > 100_000
    assert rows(instance, "runs/index.db", "SELECT count(*) FROM event_logs WHERE asset_key LIKE '%feed%'") == [(80,)]
    assert rows(instance, "runs/index.db", "PRAGMA integrity_check") == [("ok",)]
