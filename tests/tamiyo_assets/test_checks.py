"""Each check passes on recorded data and fails, by a name that stays the same, when its condition is broken there."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.retirement import TABLE as RETIRED
from lake.retirement import Retirements
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.features import COVERAGE_KEYS, GROUPS
from tamiyo_assets.assets.coverage import note_history, refresh_coverage
from tamiyo_assets.assets.features import FeatureBuild
from tamiyo_assets.assets.problems import time_of
from tamiyo_assets.checks import CHECKS, contracts, coverage, graphs, sheets
from tests.exports import part_of
from tests.tamiyo_assets.pipelines import settings
from tests.tamiyo_assets.test_by_run import Home

STATES, LAYERS, SEEDS = "tolaria.system_state", "tolaria.layer_telemetry", "kasmina.seed_state"


class Checked(Home):
    """A home whose checks are evaluated without a run."""

    @property
    def settings(self) -> Settings:
        return settings(self.root, self.root / "exports")

    def check(self, check: dg.AssetChecksDefinition, **changed: Any) -> dg.AssetCheckResult:
        """The result of a check; `changed` settings."""
        resources: dict[str, Any] = {"settings": self.settings.model_copy(update=changed), "tables": self.tables}
        resources["ingest"] = Ingest(self.home, Exports(self.root / "exports"), self.tables)
        found = check(**{name: value for name, value in resources.items() if name in check.required_resource_keys})
        assert isinstance(found, dg.AssetCheckResult)
        return found

    def counted(self) -> None:
        """Join and count what changed."""
        versions = Versions(self.home, self.tables)
        list(FeatureBuild(self.tables, versions).refresh())
        list(refresh_coverage(self.tables, versions))

    def without(self, name: str, run: str, column: str) -> None:
        """Remove the values of a column from one run's rows."""
        rows = self.tables.read(name, runs=[run])
        place = rows.schema.get_field_index(column)
        field = rows.schema.field(place)
        self.tables.write(name, rows.set_column(place, field, pa.nulls(rows.num_rows, field.type)), runs=[run])

    @property
    def runs(self) -> list[str]:
        """Training runs, the one whose first packet is oldest first."""
        first = self.tables.read(STATES, columns=["training_run_id", "timestamp_ns"]).group_by("training_run_id")
        rows = first.aggregate([("timestamp_ns", "min")]).sort_by("timestamp_ns_min")
        return list(rows.column("training_run_id").to_pylist())


def told(result: dg.AssetCheckResult) -> list[str]:
    """The problems of a result."""
    problems = (result.metadata or {})["problems"]
    found = problems.value if isinstance(problems, dg.MetadataValue) else problems
    assert isinstance(found, list) and bool(found) is not result.passed
    return found


def said(result: dg.AssetCheckResult, name: str) -> Any:
    value = (result.metadata or {}).get(name)
    return value.value if isinstance(value, dg.MetadataValue) else value


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Checked:
    root = tmp_path_factory.mktemp("checks")
    part_of(sample, root / "exports", batches=1)
    home = Checked(root)
    home.ingest()
    home.rebuild()
    return home


@pytest.fixture
def home(recorded: Checked, tmp_path: Path) -> Checked:
    shutil.copytree(recorded.root, tmp_path / "copy", symlinks=True)
    return Checked(tmp_path / "copy")


WHOLE = [
    coverage.mandatory_coverage,
    coverage.family_coverage,
    coverage.coverage_drop,
    coverage.graphs_have_elements,
    coverage.coverage_conservation,
    sheets.bsds_missing,
    sheets.bsds_failed,
    graphs.masks_agree,
    graphs.drift,
    contracts.files_read,
]


@pytest.mark.parametrize("check", WHOLE, ids=lambda check: next(iter(check.check_keys)).name)
def test_recorded_data_pass(recorded: Checked, check: dg.AssetChecksDefinition) -> None:
    found = recorded.check(check)
    assert found.passed, found.description
    assert told(found) == []


def test_a_mandatory_key_that_one_run_of_many_lacks_in_part_is_named(home: Checked) -> None:
    run = home.runs[2]
    rows = home.tables.read(LAYERS, runs=[run])
    first = pc.equal(rows.column("timestamp_ns"), pc.max(rows.column("timestamp_ns")))
    place = rows.schema.get_field_index("hook_latency_ms")
    field = rows.schema.field(place)
    lacking = pc.if_else(first, pa.scalar(None, field.type), rows.column("hook_latency_ms"))
    states = home.tables.read(STATES, runs=[run])
    metrics = pa.array(
        [[(k, v) for k, v in metrics if k != "hook_latency_ms"] for metrics in states.column("training_metrics").to_pylist()],
        states.schema.field("training_metrics").type,
    )
    place_of_metrics = states.schema.get_field_index("training_metrics")
    home.tables.write(LAYERS, rows.set_column(place, field, lacking), runs=[run])
    home.tables.write(STATES, states.set_column(place_of_metrics, states.schema.field(place_of_metrics), metrics), runs=[run])
    home.counted()
    found = home.check(coverage.mandatory_coverage)
    assert (told(found), found.severity) == (["layer.hook_latency_ms"], dg.AssetCheckSeverity.ERROR)
    assert (said(found, "system"), said(found, "runs")) == ("tolaria", run)
    newest = pc.max(rows.column("timestamp_ns")).as_py()
    assert said(found, "since") == time_of(newest)
    assert found.description is not None and run in found.description and "ask tolaria, since 20" in found.description
    assert home.check(coverage.mandatory_coverage, mandatory_coverage=0.5).passed


def test_a_family_that_is_low_in_one_run_is_not_diluted_by_the_others(home: Checked) -> None:
    run = home.runs[0]
    for column in TABLES[LAYERS].names:
        if pa.types.is_floating(TABLES[LAYERS].arrow_schema.field(column).type):
            home.without(LAYERS, run, column)
    home.without(STATES, run, "training_metrics")
    home.counted()
    found = home.check(coverage.family_coverage)
    assert "node.layer" in told(found) and found.severity is dg.AssetCheckSeverity.WARN
    runs = said(found, "runs")
    assert (runs if isinstance(runs, str) else runs["node.layer"]) == run and "tolaria" in said(found, "system")
    rows = home.tables.read("coverage.by_family").group_by("family").aggregate([("measured", "sum"), ("elements", "sum")])
    pooled = {row["family"]: row["measured_sum"] / row["elements_sum"] for row in rows.to_pylist() if row["elements_sum"]}
    assert min(pooled[family] for family in told(found)) > 0.70


def test_an_optional_key_that_the_newest_runs_lack_is_a_gap(home: Checked) -> None:
    before = set(told(home.check(coverage.optional_gaps)))
    assert before <= {"context.gpu_utilisation", "layer.update_frequency"}, "no GPU, and fused optimizers, in the sample"
    for run in home.runs[-3:-1]:
        home.without(SEEDS, run, "activity_level")
    home.counted()
    assert set(told(home.check(coverage.optional_gaps))) == before, "the newest run has it"
    home.without(SEEDS, home.runs[-1], "activity_level")
    home.counted()
    found = home.check(coverage.optional_gaps)
    assert set(told(found)) == before | {"seed.activity_level"} and found.severity is dg.AssetCheckSeverity.WARN
    assert "kasmina" in said(found, "system") and "since" in (found.metadata or {})
    assert set(told(home.check(coverage.optional_gaps, optional_gap_runs=4))) == before


def test_an_optional_key_that_applies_to_no_element_is_no_gap(home: Checked) -> None:
    rows = home.tables.read("coverage.by_key", runs=home.runs[-3:])
    momentum = pc.equal(rows.column("key"), "parameter.momentum")
    for name, value in (("measured", 0), ("elements", 0), ("ratio", None)):
        place = rows.schema.get_field_index(name)
        column = pc.if_else(momentum, pa.scalar(value, rows.schema.field(name).type), rows.column(name))
        rows = rows.set_column(place, rows.schema.field(name), column)
    home.tables.write("coverage.by_key", rows, runs=home.runs[-3:])
    assert "parameter.momentum" not in told(home.check(coverage.optional_gaps))


def test_history_gets_the_touched_runs_of_each_rebuild_once(home: Checked) -> None:
    note_history(home.tables, "rebuild-1")
    whole = home.tables.read("coverage.history")
    assert sorted(whole.column("key").to_pylist()) == sorted(COVERAGE_KEYS)
    by_key = home.tables.read("coverage.by_key")
    assert pc.sum(whole.column("measured")).as_py() == pc.sum(by_key.column("measured")).as_py()
    home.counted()
    note_history(home.tables, "rebuild-2")
    assert home.tables.read("coverage.history").equals(whole), "nothing was touched"
    home.without(SEEDS, home.runs[1], "activity_level")
    home.counted()
    note_history(home.tables, "rebuild-3")
    note_history(home.tables, "rebuild-3")
    rows = [row for row in home.tables.read("coverage.history").to_pylist() if row["rebuild_run_id"] == "rebuild-3"]
    assert len(rows) == len(COVERAGE_KEYS)
    assert {row["ratio"] for row in rows if row["key"] == "seed.activity_level"} == {0.0}
    found = home.check(coverage.coverage_drop)
    assert "seed.activity_level" in told(found) and found.severity is dg.AssetCheckSeverity.WARN
    assert "kasmina" in said(found, "system") and "from 1.000 to 0.000" in (found.description or "")
    assert home.check(coverage.coverage_drop, coverage_drop=1.0).passed
    Retirements(home.home).retire([home.runs[1]], "it lacks a key", "op", 1)
    Versions(home.home, home.tables).write(RETIRED, Retirements(home.home).rows())
    home.counted()
    note_history(home.tables, "rebuild-4")
    assert "seed.activity_level" not in told(home.check(coverage.coverage_drop)), "no run shows the fall any more"


def test_a_count_that_was_killed_before_it_was_noted_is_in_the_next_rebuilds_history(home: Checked) -> None:
    home.counted()  # killed here
    home.counted()
    note_history(home.tables, "next")
    assert set(home.tables.read("coverage.history").column("rebuild_run_id").to_pylist()) == {"next"}


def test_a_home_of_a_version_without_history_is_counted_again(home: Checked) -> None:
    path = home.home / "digests" / "coverage.increments.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps(noted | {"runs": {run: made["inputs"] for run, made in noted["runs"].items()}}))
    note_history(home.tables, "too early")
    assert home.tables.count("coverage.history") == 0
    home.counted()
    note_history(home.tables, "first")
    assert home.tables.count("coverage.history") == len(COVERAGE_KEYS)


def test_a_run_without_parameters_is_an_error_of_its_own(home: Checked) -> None:
    gaps = home.tables.read("coverage.gaps", runs=home.runs[:2])
    row = {"key": "parameter.learning_rate", "system": "urza", "missing": 0, "elements": 0, "since_timestamp_ns": 7}
    more = [row | {"training_run_id": run, "reason": "no elements: this run has no node.parameter"} for run in home.runs[:2]]
    home.tables.write(
        "coverage.gaps", pa.concat_tables([gaps, pa.Table.from_pylist(more, DERIVED["coverage.gaps"])]), runs=home.runs[:2]
    )
    found = home.check(coverage.graphs_have_elements)
    assert told(found) == ["no parameter"] and said(found, "system") == "urza"
    assert said(found, "runs") == ", ".join(sorted(home.runs[:2]))


def test_counts_that_do_not_add_up_are_an_error(home: Checked) -> None:
    rows = home.tables.read("coverage.by_key", runs=home.runs[:1])
    place = rows.schema.get_field_index("elements")
    home.tables.write(
        "coverage.by_key",
        rows.set_column(place, rows.schema.field(place), pc.add(rows.column("elements"), 1)),
        runs=home.runs[:1],
    )
    assert told(home.check(coverage.coverage_conservation)) == ["counts that do not add up"]
    home.tables.write("coverage.by_key", rows.slice(0, 0), runs=home.runs[:1])
    assert "uncounted runs" in told(home.check(coverage.coverage_conservation))
    assert told(home.check(graphs.masks_agree)) == ["masks and coverage differ"]


def test_a_blueprint_without_a_sheet_is_named_with_its_runs(home: Checked) -> None:
    bsds = home.tables.read("urabrask.bsds")
    run = home.runs[0]
    nodes = home.tables.read("features.blueprint", runs=[run], columns=["element_id"]).column(0).unique().to_pylist()
    missing = sorted(nodes)[0]
    home.tables.write("urabrask.bsds", bsds.filter(pc.not_equal(bsds.column("blueprint_id"), missing)))
    found = home.check(sheets.bsds_missing)
    assert told(found) == [missing] and found.severity is dg.AssetCheckSeverity.WARN
    assert run in said(found, "runs") and said(found, "system") == "urabrask"


def test_a_sheet_that_came_after_the_packets_is_a_missing_one(home: Checked) -> None:
    bsds = home.tables.read("urabrask.bsds")
    place = bsds.schema.get_field_index("issued_at_ns")
    late = pa.array(np.full(bsds.num_rows, 2_000_000_000 * 10**9), pa.int64())
    home.tables.write("urabrask.bsds", bsds.set_column(place, bsds.schema.field(place), late))
    nodes = home.tables.read("features.blueprint", columns=["element_id"]).column(0).unique().to_pylist()
    assert told(home.check(sheets.bsds_missing)) == sorted(nodes)[:100]


def test_a_failure_counts_until_a_newer_sheet_comes(home: Checked) -> None:
    bsds = home.tables.read("urabrask.bsds").to_pylist()
    blueprint = bsds[0]["blueprint_id"]
    failures = home.root / "exports" / "urabrask" / "bsds_failure" / "a.ndjson"
    failures.parent.mkdir(parents=True, exist_ok=True)
    failures.write_text(json.dumps({"blueprint_id": blueprint, "reason": "out of memory"}) + "\n")
    home.ingest()
    found = home.check(sheets.bsds_failed)
    assert told(found) == [blueprint] and found.severity is dg.AssetCheckSeverity.WARN
    assert "out of memory" in (found.description or "") and said(found, "system") == "urabrask"
    newer = home.root / "exports" / "urabrask" / "bsds" / "newer.ndjson"
    newer.write_text(json.dumps({"blueprint_id": blueprint, "risk_score": 0.1, "issued_at": "2026-11-25T00:00:00Z"}) + "\n")
    home.ingest()
    assert home.check(sheets.bsds_failed).passed
    failures.with_name("again.ndjson").write_text(json.dumps({"blueprint_id": "never", "reason": "too large"}) + "\n")
    home.ingest()
    assert told(home.check(sheets.bsds_failed)) == ["never"]


@pytest.mark.parametrize(("mean", "var"), [(np.nan, 1.0), (1.0, np.inf), (1.0, 0.0)])
def test_a_norm_that_is_not_finite_or_has_no_spread_is_an_error(home: Checked, mean: float, var: float) -> None:
    row = {"name": "loss", "mean": 0.5, "var": 0.1, "count": 3, "training_run_id": "r", "timestamp_ns": 1}
    path = home.tables.path("norms.current")
    sound = pa.Table.from_pylist([row], DERIVED["norms.current"])
    write_deltalake(path, sound)
    assert home.check(graphs.norms_sane).passed
    write_deltalake(path, pa.Table.from_pylist([row | {"mean": mean, "var": var}], sound.schema), mode="overwrite")
    found = home.check(graphs.norms_sane)
    assert told(found) == ["loss"] and found.severity is dg.AssetCheckSeverity.ERROR


def test_a_file_that_nothing_reads_is_told(home: Checked) -> None:
    (home.root / "exports" / "urza" / "blueprint" / "notes.txt").write_text("?")
    found = home.check(contracts.files_read)
    assert told(found) == ["urza/blueprint/notes.txt"]


def test_every_check_says_which_table_it_is_on() -> None:
    names = {key.name for check in CHECKS for key in check.check_keys}
    assert names == {
        "files_read", "contract_rules", "conservation", "mandatory_coverage", "family_coverage", "coverage_drop",
        "optional_gaps", "graphs_have_elements", "coverage_conservation", "bsds_missing", "bsds_failed", "norms_sane",
        "masks_agree", "drift", "preflight", "quality_gates",
    }  # fmt: skip


def test_a_system_can_be_asked_for_every_key() -> None:
    assert set(coverage._SYSTEM_OF) == set(COVERAGE_KEYS) == {group.key(f) for group in GROUPS for f in group.features}


def test_tables_are_read_for_the_columns_that_are_needed_alone(recorded: Checked) -> None:
    class Narrow(TableStore):
        def read(self, name: str, **how: Any) -> pa.Table:
            assert how.get("columns") is not None or name == "coverage.history", name
            return super().read(name, **how)

    home = Checked(recorded.root)
    home.tables = Narrow(home.home, DERIVED)
    for check in WHOLE[:-1]:
        assert home.check(check).passed
