"""Pruning of an older instance: pictures and retired partitions go, what is shown stays, whenever it is interrupted."""

import base64
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

import tamiyo.doctor.event_log as event_log
from schemas.errors import StorageError
from tamiyo.cli import app
from tamiyo.doctor.event_log import RETIRED_PARTITIONS, prune_instance, without_pictures
from tamiyo_assets.instance import open_instance

PARTITIONS = dg.DynamicPartitionsDefinition(name=RETIRED_PARTITIONS)
STATES, MAP, GROWTH = dg.AssetKey(["tolaria", "states"]), dg.AssetKey(["coverage", "map"]), dg.AssetKey(["registries", "seed"])
RUNS = ["run-a", "run-b", "run-c"]


def markdown(bytes_: int) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![a map](data:image/png;base64,{base64.b64encode(os.urandom(bytes_)).decode()})")


@dg.asset(key=STATES, partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
def states() -> None:
    pass


@dg.asset(key=MAP, deps=[STATES], partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
def drawn() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("v"), metadata={"picture": markdown(100_000), "rows": 7})


@dg.asset(key=GROWTH)
def growth() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"picture": markdown(200_000), "thumbnail": markdown(6_000)})


@dg.asset_check(asset=MAP)
def sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose instance was written as it was before: two rebuilds of three partitions, a picture in each event."""
    job = dg.Definitions(assets=[states, drawn, growth], asset_checks=[sound]).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": RUNS[0], "dagster/asset_partition_range_end": RUNS[-1]}
    with open_instance(tmp_path / "dagster") as instance:
        instance.add_dynamic_partitions(RETIRED_PARTITIONS, RUNS)
        for _ in range(2):
            assert job.execute_in_process(instance=instance, tags=tags).success
    return tmp_path


def texts(home: Path) -> str:
    """All that is written in the databases."""
    found = []
    for path in (home / "dagster" / "history" / "runs").glob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            found += [row[0] for row in connection.execute("SELECT event FROM event_logs")]
            found += [row[0] for row in connection.execute("SELECT last_materialization FROM asset_keys")]
    return "".join(text for text in found if text)


def shown(home: Path) -> dict[str, object]:
    """Newest materializations and checks, without pictures."""
    found: dict[str, object] = {}
    check = dg.AssetCheckKey(MAP, "sound")
    with open_instance(home / "dagster") as instance:
        for key in (STATES, MAP, GROWTH):
            event = instance.get_latest_materialization_event(key)
            [record] = instance.get_asset_records([key])
            fetched = instance.fetch_materializations(key, limit=1).records[0]
            assert event is not None
            found[str(key)] = (
                without_pictures(dg.serialize_value(event)),
                fetched.storage_id,
                record.asset_entry.last_materialization_storage_id,
                instance.get_latest_data_version_record(key) is not None,
            )
        found["check"] = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
        found["runs"] = sorted(run.run_id for run in instance.get_runs())
    return found


def test_pictures_and_partitions_go_and_what_is_shown_stays(home: Path) -> None:
    before = shown(home)
    done = prune_instance(home / "dagster")
    assert shown(home) == before
    assert done.bytes_before > 3_000_000 and done.bytes_after < done.bytes_before / 3
    assert (done.runs, done.partition_events) == (0, 2 * (2 * 2 * 3) - 2 * 2)  # of 2 rebuilds: 2 types, 2 assets, 3 partitions
    kept = texts(home)
    assert kept.count("a map (picture not kept)") >= 4
    assert all(len(found[2]) < 12_000 for found in event_log._PICTURE.finditer(kept))
    assert kept.count("data:image/png;base64") >= 2, "thumbnails stay"
    with open_instance(home / "dagster") as instance:
        assert instance.get_dynamic_partitions(RETIRED_PARTITIONS) == []
    again = prune_instance(home / "dagster")
    assert (again.runs, again.partition_events, again.pictures) == (0, 0, 0)


class Killed(BaseException):
    """In place of a signal."""


def test_pruning_that_is_killed_is_finished_by_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, transaction = shown(home), event_log._transaction
    left = 0

    @contextmanager
    def counted(path: Path) -> Iterator[sqlite3.Connection]:
        nonlocal left
        with transaction(path) as connection:
            yield connection
            if left == 0:
                raise Killed
            left -= 1

    monkeypatch.setattr(event_log, "_transaction", counted)
    monkeypatch.setattr(event_log, "_BATCH", 2)
    killed = 0
    for stop in range(100):
        left = stop
        try:
            prune_instance(home / "dagster")
        except Killed:
            killed += 1
            assert shown(home) == before
        else:
            break
    assert killed >= 3 and shown(home) == before
    assert "a map (picture not kept)" in texts(home)
    assert not [found for found in event_log._PICTURE.finditer(texts(home)) if len(found[2]) >= 12_000]


def test_it_refuses_while_a_run_is_unfinished(home: Path) -> None:
    with open_instance(home / "dagster") as instance:
        run = instance.create_run_for_job(dg.Definitions(assets=[growth]).resolve_implicit_global_asset_job_def())
    before = texts(home)
    refused = CliRunner().invoke(app, ["doctor", "--prune-instance", "--json", "--home", str(home)])
    assert refused.exit_code == 1
    assert f"expected no unfinished run, found {run.run_id}" in json.loads(refused.stdout)["error"]
    assert texts(home) == before


def test_the_command_prints_the_sizes(home: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--prune-instance", "--json", "--home", str(home)])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["instance"] == str(home / "dagster") and found["bytes_after"] < found["bytes_before"]
    text = CliRunner().invoke(app, ["doctor", "--prune-instance", "--home", str(home)])
    assert text.exit_code == 0 and "MB before" in text.stdout


def test_no_instance_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="found none"):
        prune_instance(tmp_path / "dagster")
    assert not (tmp_path / "dagster").exists()
