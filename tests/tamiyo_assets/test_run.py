"""One run of everything on a part of the committed sample, and a second one that changes nothing."""

import json
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from typer.testing import CliRunner

from gnn.bundle import read_bundle
from gnn.online.replay import replay
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.validation import declaration, refuse
from schemas.artifacts import REGISTRIES
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.features import GROUPS
from schemas.kernels import KERNEL_INDEX
from tamiyo.cli import app
from tamiyo.execution import Outcome
from tamiyo.summary import summarize
from tamiyo_assets.definitions import build_definitions
from tests.tamiyo_assets.pipelines import data_versions, event_bytes, metadata, metadata_values, run, settings

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, some_hosts: Path) -> Settings:
    return settings(tmp_path_factory.mktemp("run"), some_hosts)


@pytest.fixture(scope="module")
def outcome(pipeline: Settings) -> Outcome:
    return run(pipeline)


def _files(root: Path) -> dict[str, bytes | str]:
    """What was published: bytes of small files, targets of links; tables by their Delta versions elsewhere."""
    names = ("gnn_norms.json", "exports.ndjson", "promotions.ndjson")
    found: dict[str, bytes | str] = {name: (root / name).read_bytes() for name in names if (root / name).exists()}
    found |= {
        f"bundles/{path.name}": (path / "manifest.sha256").read_bytes()
        for path in (root / "bundles").iterdir()
        if path.is_dir()
    }
    found |= {path.name: path.read_bytes() for path in (root / "registries").glob("*_registry.json")}
    found |= {f"{path.parent.name}/{path.name}": str(path.stat().st_ino) for path in (root / "pictures").glob("*/*.png")}
    found["current"] = str((root / "current").readlink()) if (root / "current").is_symlink() else ""
    return found


def test_everything_is_materialized_and_no_error_check_fails(pipeline: Settings, outcome: Outcome) -> None:
    assert outcome.failed_steps == {}
    assert outcome.errors == ()
    assert outcome.ok
    keys = {key.to_user_string() for key in build_definitions(pipeline).resolve_asset_graph().executable_asset_keys}
    assert keys - set(data_versions(pipeline)) <= {"bundle/current"}, "only what serves may be missing, while nothing does"
    assert ("bundle/current" in data_versions(pipeline)) == ("serving" not in {check.check for check in outcome.failed_checks})


def test_every_table_is_declared_and_its_rows_keep_the_declaration(pipeline: Settings, outcome: Outcome) -> None:
    tables = TableStore(pipeline.home)
    names = tables.names()
    assert {name for name in names if not name.startswith("rejects.")} - TABLES.keys() == DERIVED.keys()
    for name in names:
        declared = declaration(name)
        assert declared is not None
        refuse(declared, tables.read(name))


def test_every_table_asset_has_the_key_of_its_table(pipeline: Settings, outcome: Outcome) -> None:
    keys = {key.replace("/", ".") for key in data_versions(pipeline)}
    assert set(TABLES) <= keys
    assert {group.table for group in GROUPS} <= keys
    assert {f"registries.{name}" for name in REGISTRIES} <= keys


def test_mandatory_coverage_is_whole_on_the_sample(pipeline: Settings, outcome: Outcome) -> None:
    summary = summarize(pipeline, outcome, 1.0)
    assert summary.mandatory_under == {}
    assert summary.coverage is not None and summary.coverage > 0.9
    assert summary.build is not None
    assert json.loads(summary.model_dump_json())["rows"]["tolaria.system_state"] > 0


def test_each_training_run_has_a_digest_of_its_own_in_the_table_of_versions(pipeline: Settings, outcome: Outcome) -> None:
    tables = TableStore(pipeline.home)
    runs = set(tables.read("tolaria.system_state", columns=["training_run_id"]).column(0).to_pylist())
    rows = tables.read("operations.versions").to_pylist()
    for name in ("tolaria.system_state", "kasmina.seed_state", "coverage.by_key", "features.context"):
        digests = {row["training_run"]: row["digest"] for row in rows if row["table"] == name and row["training_run"]}
        assert set(digests) == runs
        assert len(set(digests.values())) == len(runs)


def test_no_asset_is_partitioned(pipeline: Settings) -> None:
    graph = build_definitions(pipeline).resolve_asset_graph()
    assert [node.key.to_user_string() for node in graph.asset_nodes if node.is_partitioned] == []


def test_what_changed_and_how_many_runs_a_table_holds_is_in_the_metadata(pipeline: Settings, outcome: Outcome) -> None:
    again = metadata(pipeline, "features/seed")
    assert again["training_runs"] > 1 and again["runs_changed"] in (0, again["training_runs"])
    assert isinstance(again["changed"], bool)


def _figures(pipeline: Settings, key: str) -> dict[str, float]:
    """What the UI plots over builds: metadata of a numeric type."""
    numeric = (dg.IntMetadataValue, dg.FloatMetadataValue)
    values = metadata_values(pipeline, key)
    return {name: value.value for name, value in values.items() if isinstance(value, numeric) and value.value is not None}


def test_the_rows_of_every_table_are_a_number_that_plots(pipeline: Settings, outcome: Outcome) -> None:
    tables = TableStore(pipeline.home)
    counts = {
        key: tables.count(key.replace("/", ".")) for key in data_versions(pipeline) if tables.exists(key.replace("/", "."))
    }
    assert len(counts) > 60
    assert {key: _figures(pipeline, key).get("dagster/row_count") for key in counts} == counts


def test_the_figures_of_builds_and_coverage_are_numbers_that_plot(pipeline: Settings, outcome: Outcome) -> None:
    bundle = _figures(pipeline, "bundle/tamiyo_gnn_v1")
    assert {"gap_closed", "gap_closed_lead", "ece", "dagster/row_count"} <= set(bundle)
    assert -10.0 < bundle["gap_closed"] <= 1.0 and 0.0 <= bundle["ece"] <= 1.0
    assert 0.9 < _figures(pipeline, "coverage/by_key")["coverage"] <= 1.0
    families = _figures(pipeline, "coverage/by_family")
    measured = {group.family for group in GROUPS if group.features and group.family in families}
    assert {"node.layer", "node.seed", "node.context"} <= measured
    assert all(0.0 <= families[family] <= 1.0 for family in measured)


def test_the_warehouse_has_the_tables(pipeline: Settings, outcome: Outcome) -> None:
    tables = TableStore(pipeline.home)
    with duckdb.connect(str(pipeline.home / "warehouse.duckdb"), read_only=True) as warehouse:
        for name in ("tolaria.system_state", "features.layer", "coverage.by_key", "training.examples", "registries.seed"):
            ((count,),) = warehouse.sql(f"SELECT count(*) FROM {name}").fetchall()
            assert count == tables.count(name)


def test_a_second_run_changes_nothing(pipeline: Settings, outcome: Outcome) -> None:
    versions, files, commits = data_versions(pipeline), _files(pipeline.home), TableStore(pipeline.home).versions()
    events = event_bytes(pipeline)
    again = run(pipeline)
    assert sum(event_bytes(pipeline)) - sum(events) < 2_000_000, "what one rebuild adds to the event log"
    assert max(events) < 20_000, "a picture is a file, an event holds a thumbnail"
    assert "coverage.by_key/heat_map.png" in files and "graphs.dataset/newest_graph.png" in files
    assert again.ok
    assert again.build_id == outcome.build_id
    assert data_versions(pipeline) == versions
    reported = [key for key in versions if not key.startswith("feeds/")]
    assert {key: metadata(pipeline, key)["changed"] for key in reported} == dict.fromkeys(reported, False)
    assert _files(pipeline.home) == files
    assert TableStore(pipeline.home).versions() == commits


@pytest.mark.parametrize(
    "seeds", [[], [{"seed_id": "s", "training_run_id": "r", "timestamp_ns": "5"}]], ids=["no run", "seeds only"]
)
def test_exports_without_a_training_state_give_tables_and_registries_but_no_graph(tmp_path: Path, seeds: list[object]) -> None:
    folder = tmp_path / "exports" / "kasmina" / "seed_state"
    folder.mkdir(parents=True)
    (folder / "a.ndjson").write_text(
        "".join(f"{json.dumps(record)}\n" for record in [*seeds, {"seed_id": "without a run", "colour": 3}])
    )
    found = settings(tmp_path, tmp_path / "exports")
    outcome = run(found)
    assert outcome.ok and outcome.build_id is None
    summary = summarize(found, outcome, seconds=0.0)
    assert (summary.build, summary.unknown_fields) == (None, {"kasmina/seed_state SeedState.colour": 1})
    with duckdb.connect(str(found.home / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute("select reason from rejects.kasmina_seed_state").fetchall() == [("missing_training_run_id",)]
        for name, rows in {
            "kasmina.seed_state": len(seeds),
            "features.seed": 0,
            "coverage.by_key": 0,
            "training.predictions": 0,
        }.items():
            assert warehouse.execute(f"select count(*) from {name}").fetchone() == (rows,)
    assert not (found.home / "bundles").exists()


def test_a_conflict_with_simic_keeps_that_registry_and_stops_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "exports" / "simic" / "registry_snapshot"
    folder.mkdir(parents=True)
    (folder / "hazard_class_registry.json").write_text('{"LOW": 2}')
    (folder / "optimizer_family_registry.json").write_text('{"lion": 9}')
    found = settings(tmp_path, tmp_path / "exports")
    outcome = run(found)
    assert [(check.asset, check.check) for check in outcome.errors] == [("registries/hazard_class", "registry_conflict")]
    assert outcome.failed_steps == {} and "graphs/dataset" in data_versions(found)
    with duckdb.connect(str(found.home / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute("select count(*) from simic.registry_snapshot").fetchone() == (2,)
        assert warehouse.execute("select index from registries.hazard_class where key = 'LOW'").fetchone() == (1,)
        assert warehouse.execute("select index from registries.optimizer_family where key = 'lion'").fetchone() == (9,)


def test_a_run_that_fails_before_its_first_step_says_why(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    outcome = run(settings(tmp_path, tmp_path / "exports"))
    assert not outcome.ok
    assert "expected a directory with files" in outcome.failed_steps["operations__exports"]
    (tmp_path / "other" / "home" / ".writes.lock").mkdir(parents=True)
    outcome = run(settings(tmp_path / "other", tmp_path / "exports"))
    assert not outcome.ok and "Is a directory" in outcome.failed_steps["run"]


EVALUATED = {
    "hosts", "states", "pairs", "gap_closed", "gap_closed_by_state", "within_state_spearman", "benefit", "harm_rate",
    "risk_ece", "value_interval_coverage", "replicate_ceiling", "excluded_hosts",
}  # fmt: skip


def test_a_bundle_is_evaluated_on_the_hosts_that_it_never_saw(pipeline: Settings, outcome: Outcome) -> None:
    named = [str(outcome.build_id), "--exports", str(pipeline.exports), "--home", str(pipeline.home)]
    done = CliRunner().invoke(app, ["evaluate", *named, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == EVALUATED
    assert set(found["gap_closed"]) == {"model", "best_constant", "random", "no_op"}
    manifest = json.loads((pipeline.home / "bundles" / str(outcome.build_id) / "manifest.json").read_text())
    assert found["excluded_hosts"] == len(manifest["training"]["host_digests"]) > 0
    counted = manifest["metrics"]["hosts"]
    assert found["hosts"] == counted["bucket_7"] + counted["held_out"] > 0
    assert found["pairs"] == sum(manifest["metrics"]["examples"][name] for name in ("bucket_7", "held_out"))
    said = CliRunner().invoke(app, ["evaluate", *named])
    assert f"{found['excluded_hosts']:,} hosts that it was trained on are left out" in said.output
    assert "horizon 100" in said.output


def test_replayed_packets_are_answered_as_they_were_in_training(pipeline: Settings, outcome: Outcome) -> None:
    tables = TableStore(pipeline.home)
    bundle = read_bundle(pipeline.home / "bundles" / str(outcome.build_id))
    rows = tables.read("training.predictions").to_pylist()
    told = [row for row in rows if row["model"] == "model" and row["split"] in ("bucket_7", "held_out")][:40]
    runs = sorted({row["training_run_id"] for row in told})
    replayed = replay(bundle, {name: tables.read(name) for name in TABLES}, runs)
    for row in told:
        number = replayed.index_of(row["training_run_id"], row["packet_id"])
        seed = replayed.element_ids("seed", number).index(row["seed_id"])
        value = float(replayed.outputs[number]["value"][seed, KERNEL_INDEX[row["kernel"]]])
        assert value == pytest.approx(row["value"], abs=1e-5)
