"""Maintenance: small files are merged, old ones go, and a pinned version stays readable."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from lake import warehouse
from lake.builds import record
from lake.store.table_store import TableStore
from lake.upkeep import SMALL_FILES, maintain
from lake.writes import WRITES
from tamiyo_assets.resources.run import run_resources
from tamiyo_assets.schedules import registry_refresh_schedule
from tamiyo_assets.upkeep import maintenance_job
from tests.tamiyo_assets.pipelines import settings

NAME = "features.numbers"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path)
    for number in range(SMALL_FILES + 2):
        store.write(
            NAME, pa.table({"value": [number]}), append=True, transactions={"seen": number}, metadata={"mark": str(number)}
        )
    return store


def test_compaction_keeps_rows_transactions_and_metadata(store: TableStore) -> None:
    rows = sorted(store.read(NAME).column("value").to_pylist())
    (done,) = maintain(store)
    assert (done.name, done.merged, done.deleted) == (NAME, SMALL_FILES + 2, 0)
    assert len(store.files(NAME)) == 1
    assert sorted(store.read(NAME).column("value").to_pylist()) == rows
    assert store.transaction(NAME, "seen") == SMALL_FILES + 1
    assert store.metadata(NAME) == {"mark": str(SMALL_FILES + 1)}
    assert maintain(store) == []


def test_vacuum_deletes_what_no_version_of_the_last_days_and_no_pin_needs(store: TableStore) -> None:
    record(store.home, store, "a" * 64, {NAME: 3, "urza.layer": 0})
    (done,) = maintain(store, retention=timedelta(0))
    assert done.deleted == SMALL_FILES + 2 - 4
    assert done.pinned == (3,)
    assert store.read(NAME, version=3).num_rows == 4
    assert store.read(NAME).num_rows == SMALL_FILES + 2
    assert maintain(store, retention=timedelta(0)) == []


def test_a_table_with_few_files_is_left_alone(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    store.write(NAME, pa.table({"value": [1]}))
    assert maintain(store) == []
    assert store.version(NAME) == 0


def test_a_table_that_can_t_be_read_is_told_of_and_costs_its_neighbours_nothing(store: TableStore) -> None:
    store.write("features.aside", pa.table({"value": [1]}))
    log = store.path("features.aside") / "_delta_log/00000000000000000000.json"
    log.write_text("{not json\n")
    found = {one.name: one for one in maintain(store)}
    assert (found[NAME].merged, found[NAME].problem) == (SMALL_FILES + 2, None)
    assert found["features.aside"].problem is not None
    result = maintenance_job.execute_in_process(resources={"tables": store}, raise_on_error=False)
    assert {event.step_key for event in result.get_step_failure_events()} == {"compact_and_vacuum"}
    assert {event.step_key for event in result.get_step_success_events()} == {"prune_runs"}


def test_the_schedule_of_registries_asks_for_a_rebuild_also_with_nothing_pending(tmp_path: Path) -> None:
    found = settings(tmp_path, tmp_path / "exports")
    (found.exports / "kasmina/seed_state").mkdir(parents=True)
    with dg.build_schedule_context(resources=run_resources(found)) as context:
        assert "found none" in str(registry_refresh_schedule.evaluate_tick(context).skip_message)
        (found.exports / "kasmina/seed_state/a.ndjson").write_text("{}\n")
        for _ in range(2):
            (request,) = registry_refresh_schedule.evaluate_tick(context).run_requests or []
            assert (registry_refresh_schedule.job_name, request.run_key) == ("rebuild", None)
            assert request.tags[WRITES] == "true"


def test_the_nightly_job_maintains_and_shows_the_views_what_is_left(store: TableStore) -> None:
    path = warehouse.publish(store.home, store)
    result = maintenance_job.execute_in_process(resources={"tables": store})
    assert result.success
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute(f"SELECT count(*) FROM {NAME}").fetchall() == [(SMALL_FILES + 2,)]
    assert len(store.files(NAME)) == 1
