"""A retired run leaves everything that is derived and no contract table, and comes back as it was."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from gnn.graph.dataset import GraphDataset, current_shards
from lake.accounting import accounting
from lake.builds import last_trained
from lake.retirement import RETIREMENTS, TABLE, Retirements, applied_digest
from lake.rules import judge
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.buckets import bucket_of
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets.coverage import COVERAGE_TABLES
from tamiyo_assets.assets.features import FEATURE_TABLES
from tamiyo_assets.sensors import exports_sensor
from tests.exports import part_of
from tests.tamiyo_assets.daemon import EXPORT_SENSORS, Daemon, daemon
from tests.tamiyo_assets.pipelines import data_versions, metadata, settings
from tests.tamiyo_assets.test_by_run import Home, put

DERIVED_FROM_RUNS = (*FEATURE_TABLES, *COVERAGE_TABLES, "norms.ewma", "training.examples")


def applied(home: Home) -> None:
    """What the asset `operations/retired` does."""
    Versions(home.home, home.tables).write(TABLE, Retirements(home.home).rows())


def test_only_the_bucket_of_a_retired_run_is_written_again_and_undo_gives_the_same_bytes(tmp_path: Path) -> None:
    put(tmp_path, "first", range(6))
    home = Home(tmp_path)
    home.ingest()
    assert home.rebuild()["joined"] == 6
    before, graphs = home.digests(), current_shards(home.home)
    run = GraphDataset.open(home.home).shards[0].run_ids[0]
    Retirements(home.home).retire([run], "a test", "op", 1)
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}  # the journal alone changes nothing
    assert home.digests() == before
    applied(home)
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}
    for name in (*FEATURE_TABLES, *COVERAGE_TABLES):
        assert run not in home.tables.read(name, columns=["training_run_id"]).column(0).to_pylist(), name
    assert run not in GraphDataset.open(home.home).keys.column("training_run_id").to_pylist()
    now = current_shards(home.home)
    assert {bucket for bucket in graphs if graphs[bucket] != now.get(bucket)} == {str(bucket_of(run))}
    assert run in home.tables.read("tolaria.system_state", columns=["training_run_id"]).column(0).to_pylist()
    Retirements(home.home).restore([run], "", "op", 2)
    applied(home)
    assert home.rebuild() == {"joined": 1, "counted": 1, "encoded": 1}
    assert home.digests() == before


def test_rules_that_only_a_retired_run_breaks_are_not_broken(tmp_path: Path) -> None:
    put(tmp_path, "first", range(3))
    home = Home(tmp_path)
    home.ingest()
    table = TABLES["tolaria.system_state"]
    ids = home.tables.read(table.name, columns=["training_run_id", "blueprint_id"]).to_pylist()
    bad = ids[0]
    known = {(rule.refers): {row["blueprint_id"] for row in ids} - {bad["blueprint_id"]} for rule in table.rules if rule.refers}

    def found(*retired: str) -> list[str]:
        return [rule.rule for rule in judge(home.tables, table, known, retired) if bad["blueprint_id"] in rule.examples]

    assert found() == ["tolaria.system_state blueprint_known"]
    assert found(bad["training_run_id"]) == []
    assert found() == ["tolaria.system_state blueprint_known"]


@pytest.mark.pipeline
def test_the_sensors_rebuild_once_and_everything_leaves_the_run_out(sample: Path, tmp_path: Path) -> None:
    found = settings(tmp_path, part_of(sample, tmp_path / "exports"))
    with daemon(found) as one:
        assert one.tick() == ["everything"]
        before, built, run = data_versions(found), last_trained(found.home), busiest(found)
        contracts = {name: TableStore(found.home).count(name) for name in TABLES}
        Retirements(found.home).retire([run], "a test", "op", 1)
        assert one.tick(*EXPORT_SENSORS) == ["rebuild"]
        assert one.tick(*EXPORT_SENSORS) == []
        assert_left_out(found, run)
        assert {name: TableStore(found.home).count(name) for name in TABLES} == contracts
        assert metadata(found, "operations/retired")["dagster/row_count"] == 1
        one.settings = found.model_copy(update={"retrain_after": found.retrain_after * 0})
        assert one.tick() == ["train"]
        assert last_trained(found.home) != built
        assert one.not_up_to_date().keys() <= {"bundle/current"}
        survives_a_migration(one, run)
        Retirements(found.home).restore([run], "", "op", 2)
        assert one.tick() == ["rebuild", "train"]
        assert last_trained(found.home) == built  # published before: nothing was trained
        assert one.not_up_to_date().keys() <= {"bundle/current"}
    after = data_versions(found)
    changed = {name for name, version in before.items() if after[name] != version}
    later = {"operations/versions", "operations/warehouse", "operations/panel", "coverage/history"}  # they tell of rebuilds
    assert changed <= later | {"bundle/current"}


def busiest(found: Settings) -> str:
    """The training run with the most examples."""
    runs = TableStore(found.home).read("training.examples", columns=["training_run_id"]).column(0).to_pylist()
    return str(max(sorted(set(runs)), key=runs.count))


def assert_left_out(found: Settings, run: str) -> None:
    """No derived table and no graph holds the run; its contract rows add up and its keys keep their indices."""
    tables = TableStore(found.home, DERIVED)
    for name in DERIVED_FROM_RUNS:
        assert run not in tables.read(name, columns=["training_run_id"]).column(0).to_pylist(), name
    assert run not in GraphDataset.open(found.home).keys.column("training_run_id").to_pylist()
    assert all(accounting(tables, name).balanced for name in TABLES)
    assert applied_digest(tables) == Retirements(found.home).digest()


def survives_a_migration(one: Daemon, run: str) -> None:
    """A home of an earlier layout is built again, without the run."""
    home = one.settings.home
    (home / "layout.json").unlink()
    shutil.rmtree(home / "tables" / "operations")
    journal = (home / RETIREMENTS).read_bytes()
    assert one.execute(dg.RunRequest(job_name="rebuild"), exports_sensor).success
    assert (home / RETIREMENTS).read_bytes() == journal
    assert_left_out(one.settings, run)
