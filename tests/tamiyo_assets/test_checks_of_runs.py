"""Checks that need a whole run: refused rows, registries, drift against what serves; and what the event log holds of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gnn.bundle import bundle_path, serving
from gnn.bundle.read import read_bundle
from gnn.registry.refresh import load as load_registries
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DECLARED, DERIVED
from tamiyo.execution import Outcome
from tamiyo_assets.assets import coverage as coverage_assets
from tamiyo_assets.assets.features import FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild
from tamiyo_assets.assets.problems import PROBLEMS
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.checks import graphs
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.instance import open_instance
from tests.exports import part_of
from tests.refused import refused_exports
from tests.tamiyo_assets.pipelines import run, settings

pytestmark = pytest.mark.pipeline

OPEN = {
    "benefit_above": -9.0,
    "gap_closed_above": -9.0,
    "lead_at_least": -9.0,
    "champion_hosts": 50,
    "harm_above_random": 1.0,
    "risk_ece_at_most": 1.0,
    "coverage_from": 0.0,
    "coverage_to": 1.0,
}  # gates that let all pass
LAYERS, STATES = "tolaria.layer_telemetry", "tolaria.system_state"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Settings:
    root = tmp_path_factory.mktemp("checked")
    return settings(root, part_of(sample, root / "exports", batches=1)).model_copy(update={"gates": OPEN})


@pytest.fixture(scope="module")
def outcome(pipeline: Settings) -> Outcome:
    return run(pipeline)


def evaluations(pipeline: Settings, outcome: Outcome) -> list[dg.AssetCheckEvaluation]:
    """What the checks of a run said."""
    with open_instance(pipeline.dagster_home) as instance:
        logs = instance.all_logs(outcome.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [log.get_dagster_event().asset_check_evaluation_data for log in logs]


def failed(pipeline: Settings, outcome: Outcome) -> dict[tuple[str, str], dict[str, Any]]:
    """(asset, check) -> metadata, severity and description of the failed checks of a run."""
    return {
        (one.asset_key.to_user_string(), one.check_name): {name: value.value for name, value in one.metadata.items()}
        | {"severity": one.severity.value, "description": one.description}
        for one in evaluations(pipeline, outcome)
        if not one.passed
    }


def passed(pipeline: Settings, outcome: Outcome) -> set[tuple[str, str]]:
    """(asset, check) of the checks that passed in a run."""
    return {(one.asset_key.to_user_string(), one.check_name) for one in evaluations(pipeline, outcome) if one.passed}


def test_what_serves_says_how_its_training_data_are_distributed(pipeline: Settings, outcome: Outcome) -> None:
    assert outcome.ok and ("graphs/dataset", "drift") not in failed(pipeline, outcome)
    build_id = serving(pipeline.home)
    assert build_id is not None
    distributions = read_bundle(bundle_path(pipeline.home, build_id)).manifest.distributions
    assert {"layer.weight_norm", "layer.layer_type", "seed.quarantine_only"} <= distributions.keys()
    assert not {"seed.seed_id", "blueprint.blueprint_id"} & distributions.keys(), "new names are no shift"
    found = drift(pipeline)
    assert (found.passed, found.description) == (True, "distributed as in training")


def test_features_whose_values_moved_are_named(pipeline: Settings, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TableStore(pipeline.home, DERIVED)
    rows = tables.read(LAYERS)
    place = rows.schema.get_field_index("weight_norm")
    moved = pc.multiply(rows.column("weight_norm"), pa.scalar(50.0, pa.float32()))
    version = tables.version(LAYERS)
    tables.write(LAYERS, rows.set_column(place, rows.schema.field(place), moved), runs=_runs(rows))
    _rebuild(pipeline)
    found = drift(pipeline)
    assert found.metadata is not None
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.metadata[PROBLEMS].value == ["layer.weight_norm"]
    assert found.metadata["system"].value == "tolaria"
    assert drift(pipeline.model_copy(update={"drift": 1e6})).passed
    with monkeypatch.context() as patch:
        patch.setattr("gnn.bundle.read.read_bundle", None)
        assert drift(pipeline) == found, "neither the bundle nor a graph is read again"
    tables.write(LAYERS, tables.read(LAYERS, version=version), runs=_runs(rows))
    _rebuild(pipeline)
    assert drift(pipeline).passed


def drift(pipeline: Settings) -> dg.AssetCheckResult:
    """The result of the check now."""
    found = graphs.drift(settings=pipeline)
    assert isinstance(found, dg.AssetCheckResult)
    return found


def _runs(rows: pa.Table) -> list[str]:
    return list(rows.column("training_run_id").unique().to_pylist())


def _rebuild(pipeline: Settings) -> None:
    tables = TableStore(pipeline.home, DERIVED)
    versions = Versions(pipeline.home, tables)
    list(FeatureBuild(tables, versions).refresh())
    list(GraphBuild(pipeline.home, tables, load_registries(pipeline.home / "registries")).refresh())


def test_refused_rows_fail_their_check_and_their_step_and_stop_no_neighbour(
    pipeline: Settings, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, counted = TableStore(pipeline.home, DERIVED), coverage_assets._counted
    before, history = tables.versions(), tables.read("coverage.history")

    def faulty(*arguments: Any) -> dict[str, pa.Table]:
        found = counted(*arguments)
        rows = found["coverage.by_key"]
        place = rows.schema.get_field_index("ratio")
        return found | {"coverage.by_key": rows.set_column(place, rows.schema.field(place), pa.array([7.0] * rows.num_rows))}

    shutil.rmtree(pipeline.home / "digests" / "coverage.increments")
    with monkeypatch.context() as patch:
        patch.setattr(coverage_assets, "_counted", faulty)
        refused = run(pipeline)
    assert refused.failed_steps.keys() == {"coverage"}
    assert [(check.asset, check.check) for check in refused.errors] == [("coverage/by_key", "schema")]
    check = failed(pipeline, refused)["coverage/by_key", "schema"]
    assert check[PROBLEMS] == ["ratio_in_range"] and "ratio=7.0 (training_run_id=" in check["description"]
    assert tables.version("coverage.by_key") == before["coverage.by_key"]
    with_registry = {("registries/seed", "schema"), ("norms/current", "schema")}
    assert with_registry <= passed(pipeline, refused), "neighbours go on"
    assert tables.read("coverage.history").equals(history), "what was not counted is in no history"


def test_every_table_has_a_check_of_its_schema_and_it_is_evaluated(pipeline: Settings, outcome: Outcome) -> None:
    graph = build_definitions(pipeline).resolve_asset_graph()
    checked = {key.asset_key for key in graph.asset_check_keys if key.name == "schema"}

    assert checked == {key_of(name) for name in (*TABLES, *DECLARED)}
    assert {(key.to_user_string(), "schema") for key in checked} <= passed(pipeline, outcome)


def test_an_export_of_which_rows_were_refused_fails_its_table_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = refused_exports(tmp_path / "exports", monkeypatch)
    found = settings(tmp_path, tmp_path / "exports")
    first = run(found)
    key = ("tolaria/system_state", "schema")
    assert failed(found, first)[key][PROBLEMS] == ["tolaria/system_state/bad.ndjson"]
    assert failed(found, first)[key]["system"] == "tolaria"
    assert first.failed_steps == {} and TableStore(found.home).read(STATES).column("training_run_id").to_pylist() == ["good"]
    (folder / "bad.ndjson").unlink()
    assert key not in failed(found, run(found))


def test_a_registry_in_conflict_and_one_that_is_nearly_full_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "exports" / "simic" / "registry_snapshot"
    folder.mkdir(parents=True)
    (folder / "hazard_class_registry.json").write_text('{"LOW": 2}')
    (folder / "optimizer_family_registry.json").write_text(json.dumps({f"family-{n}": n for n in range(6, 233)}))
    (folder / "schedule_registry.json").write_text(json.dumps({f"schedule-{n}": n for n in range(5, 229)}))
    found = settings(tmp_path, tmp_path / "exports")
    outcome = run(found)
    registries = {key: value for key, value in failed(found, outcome).items() if key[0].startswith("registries/")}
    assert registries.keys() == {
        ("registries/hazard_class", "registry_conflict"),
        ("registries/optimizer_family", "registry_capacity"),  # 232 of 254; schedule has 228
    }
    assert registries["registries/hazard_class", "registry_conflict"][PROBLEMS] == ["hazard_class"]
    assert registries["registries/hazard_class", "registry_conflict"]["system"] == "simic"
    assert registries["registries/optimizer_family", "registry_capacity"][PROBLEMS] == ["optimizer_family"]
    assert [one["severity"] for _, one in sorted(registries.items())] == ["ERROR", "WARN"]
    assert outcome.failed_steps == {}


def test_every_result_names_its_problems_and_none_holds_what_changes_from_run_to_run(
    pipeline: Settings, outcome: Outcome
) -> None:

    runs = TableStore(pipeline.home).read(STATES, columns=["training_run_id"]).column(0).unique().to_pylist()
    found = evaluations(pipeline, outcome)
    assert found
    for evaluation in found:
        problems = evaluation.metadata[PROBLEMS].value
        assert isinstance(problems, list) and bool(problems) is not evaluation.passed, evaluation.check_name
        assert not [name for name in problems for run in runs if run in name or outcome.run_id in name]
