"""Signals: the same counts give the same figures offline and online; degraded inputs; missing and partial sheets."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.coverage import counts
from gnn.coverage.ratios import coverage_figures, key_totals, summed_by_key
from gnn.coverage.sheets import SheetGaps, missing_and_partial, sheet_gaps
from gnn.coverage.signals import CoverageFigures, Signal, coverage_signals, degraded_level, rows_of
from gnn.encode.build import FeatureSet, build_features
from gnn.join.metadata import Metadata
from gnn.join.rows import Labels, Rows
from gnn.join.sheets import Sheets
from gnn.join.tables import feature_tables
from gnn.online.config import ServingConfig
from gnn.online.coverage import GraphCoverage, graph_coverage
from gnn.online.snapshot import Snapshot
from schemas.features import COVERAGE_KEYS, GROUPS
from tests.gnn.graph.worlds import World, world_registries
from tests.gnn.tables import START, packet, small_world, table, tables

MANDATORY = [group.key(feature) for group in GROUPS for feature in group.features if feature.mandatory]
AT_SEEDS = [key for key in COVERAGE_KEYS if key.startswith(("seed.", "edges.seed_", "edges.context_seed."))]
WHOLE = dict.fromkeys(COVERAGE_KEYS, (2, 2))


def build(world: dict[str, pa.Table]) -> FeatureSet:
    return build_features(world, registries=world_registries())


def online(world: dict[str, pa.Table]) -> GraphCoverage:
    return graph_coverage(build(world), Snapshot(Metadata(world), "", 0))


def offline(world: dict[str, pa.Table]) -> CoverageFigures:
    joined = build(world).joined
    figures = coverage_figures(counts.by_key(joined.states, counts.marks_of(joined)))
    assert figures is not None
    return figures


def offline_sheets(world: dict[str, pa.Table]) -> SheetGaps:
    nodes = Rows(feature_tables(build(world).joined)["features.blueprint"])
    ids = nodes.labels("element_id")
    sheets = Sheets(world.get("urabrask.bsds", table("urabrask.bsds", [])), {word: code for code, word in enumerate(ids.words)})
    return sheet_gaps(sheets, ids.take(np.arange(nodes.size)), nodes.times("timestamp_ns"))


def without_seeds(world: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: rows for name, rows in world.items() if name != "kasmina.seed_state"}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 50), st.booleans())
def test_one_graph_has_the_same_figures_and_sheets_offline_and_online(seed: int, place: int, seeds: bool) -> None:
    world = World(seed).tables()
    states = world.get("tolaria.system_state", table("tolaria.system_state", []))
    states = states.filter(pa.array([not row["is_completion"] for row in states.to_pylist()], pa.bool_()))
    if not states.num_rows:
        return
    world["tolaria.system_state"] = states.slice(place % states.num_rows, 1)
    world = world if seeds else without_seeds(world)
    graph, gaps = online(world), offline_sheets(world)
    assert graph.figures == offline(world)
    assert (graph.bsds_missing, graph.bsds_partial) == (len(gaps.missing), len(gaps.partial))
    assert graph.signals(ServingConfig()) == coverage_signals(offline(world), len(gaps.missing), len(gaps.partial))


def test_a_packet_with_nothing_but_a_loss_is_degraded() -> None:
    bare = packet(0, blueprint_id=None, training_metrics=[("loss", 0.5)])
    graph = online(tables(tolaria__system_state=[bare]))
    assert graph.figures.keys["context.rolling_loss"] == 1.0
    without = [key for key in MANDATORY if key not in AT_SEEDS]
    assert graph.figures.mandatory_mean == 1 / len(without)
    assert graph.signals(ServingConfig())[-1] == Signal(
        "degraded_inputs", 1 / len(without), level="CRITICAL", attributes={"threshold": "0.3"}
    )


def test_a_graph_without_seeds_is_not_judged_by_their_keys() -> None:
    none = {key: pair for key, pair in WHOLE.items() if key not in AT_SEEDS}
    assert CoverageFigures.of(none) == CoverageFigures.of(none | dict.fromkeys(AT_SEEDS, (0, 0)))
    assert (CoverageFigures.of(none).mean, CoverageFigures.of(none).mandatory_mean) == (1.0, 1.0)
    # a seed that monitors nothing and may do nothing is there all the same
    idle = CoverageFigures.of(none | {key: (2, 2) for key in AT_SEEDS if key.startswith("seed.")})
    assert idle.mean == 1.0 - sum(key.startswith("edges.") for key in AT_SEEDS) / len(COVERAGE_KEYS)
    unknown = CoverageFigures.of(none | dict.fromkeys(AT_SEEDS, (0, 2)))
    assert unknown.mandatory_mean == pytest.approx(1.0 - len(set(MANDATORY) & set(AT_SEEDS)) / len(MANDATORY))


@pytest.mark.parametrize("key", COVERAGE_KEYS)
@pytest.mark.parametrize("lost", [(0, 2), (0, 0), None])
def test_every_key_counts_once_in_its_means(key: str, lost: tuple[int, int] | None) -> None:
    found = dict(WHOLE)
    del found[key]
    figures = CoverageFigures.of(found | ({key: lost} if lost else {}))
    assert figures.mean == pytest.approx(1.0 - 1.0 / len(COVERAGE_KEYS))
    assert figures.mandatory_mean == pytest.approx(1.0 - (key in MANDATORY) / len(MANDATORY))
    assert (key in figures.keys) == (lost == (0, 2))


def test_means_are_over_keys_and_families_over_counts() -> None:
    figures = CoverageFigures.of({"layer.loss": (1, 4), "layer.layer_type": (6, 6)})
    assert figures.keys == {"layer.layer_type": 1.0, "layer.loss": 0.25}
    assert figures.families == {"node.layer": 0.7}
    assert figures.mandatory_mean == 1.25 / len([key for key in MANDATORY if key not in AT_SEEDS])


def test_no_graphs_have_no_figures() -> None:
    joined = build({}).joined
    assert coverage_figures(counts.by_key(joined.states, counts.marks_of(joined))) is None


class Batched:
    """Coverage by key as a table that is read a few rows at a time."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def batches(self, name: str, *, columns: Sequence[str], runs: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        assert name == "coverage.by_key"
        rows = self.rows if runs is None else self.rows.filter(pc.is_in(self.rows["training_run_id"], pa.array(runs)))
        yield from rows.select(list(columns)).combine_chunks().to_batches(max_chunksize=150)


def test_totals_of_batches_are_those_of_all_rows() -> None:
    joined = build(small_world()).joined
    one = counts.by_key(joined.states, counts.marks_of(joined))
    other = pa.array(["another run"] * one.num_rows)
    both = pa.concat_tables([one, one.set_column(one.schema.get_field_index("training_run_id"), "training_run_id", other)])
    totals = key_totals(Batched(both))
    assert totals.num_rows < both.num_rows
    assert summed_by_key(totals) == summed_by_key(both)
    assert coverage_figures(totals) == coverage_figures(both) == coverage_figures(one)
    assert summed_by_key(key_totals(Batched(both), ["another run"])) == summed_by_key(one)
    assert coverage_figures(key_totals(Batched(both), ["none"])) is None


@pytest.mark.parametrize(
    ("mean", "level"),
    [(0.0, "CRITICAL"), (0.10, "CRITICAL"), (0.1001, "WARNING"), (0.2999, "WARNING"), (0.30, None), (1.0, None)],
)
def test_levels(mean: float, level: str | None) -> None:
    assert degraded_level(mean) == level
    figures = CoverageFigures({}, {}, 0.5, mean)
    rows = rows_of(coverage_signals(figures, 0, 0)).to_pylist()
    assert [(row["level"], row["value"]) for row in rows if row["kind"] == "event"] == ([(level, mean)] if level else [])


FIELDS = {"risk_score": 0.5, "hazard_band": "LOW", "handling_class": "STANDARD", "resource_profile": "CPU"}


def sheets(*rows: dict[str, Any]) -> pa.Table:
    return table("urabrask.bsds", [{"blueprint_id": "host", "issued_at_ns": START, "source": "bsds", **row} for row in rows])


@pytest.mark.parametrize(
    ("rows", "gaps"),
    [
        ([], (["host", "kernel-linear"], [])),
        ([FIELDS], (["kernel-linear"], [])),
        *[([{**FIELDS, name: None}], (["kernel-linear"], ["host"])) for name in FIELDS],
        ([{**FIELDS, "hazard_band": ""}], (["kernel-linear"], ["host"])),
        ([{**FIELDS, "provenance": None}], (["kernel-linear"], [])),
        # issued after the packet
        ([{**FIELDS, "issued_at_ns": START + 1}], (["host", "kernel-linear"], [])),
        # the newest in time counts, Urza's extras where there is no other
        ([FIELDS, {"issued_at_ns": START + 1}], (["kernel-linear"], [])),
        ([FIELDS, {"source": "urza"}], (["kernel-linear"], [])),
        ([{"source": "urza"}], (["kernel-linear"], ["host"])),
    ],
)
def test_sheets_are_missing_or_partial_by_one_definition(rows: list[dict[str, Any]], gaps: tuple[list[str], list[str]]) -> None:
    world = {**small_world(1), "urabrask.bsds": sheets(*rows)}
    found = offline_sheets(world)
    assert (list(found.missing), list(found.partial)) == gaps
    snapshot, names = Snapshot(Metadata(world), "", 0), ["host", "kernel-linear"]
    shown = {name: snapshot.sheet(name, START) for name in names}
    assert ([n for n in names if not shown[n].known], [n for n in names if shown[n].partial]) == gaps
    graph = online(world)
    assert (graph.bsds_missing, graph.bsds_partial) == (len(gaps[0]), len(gaps[1]))


def test_a_blueprint_is_missing_if_one_of_its_graphs_has_no_sheet() -> None:
    world = {**small_world(3), "urabrask.bsds": sheets({**FIELDS, "issued_at_ns": START + 10**9})}
    assert offline_sheets(world) == SheetGaps(("host", "kernel-linear"), ())
    partial = sheets(FIELDS, {"issued_at_ns": START + 10**9}, {**FIELDS, "issued_at_ns": START + 2 * 10**9})
    assert offline_sheets({**world, "urabrask.bsds": partial}).partial == ("host",)


def test_unknown_blueprints_and_no_sheets_are_missing() -> None:
    rows = Rows(sheets(FIELDS), "urabrask.bsds")
    missing, partial = missing_and_partial(rows, np.array([0, -1]))
    assert (missing.tolist(), partial.tolist()) == ([False, True], [False, False])
    index = Sheets(sheets(FIELDS), {"host": 0})
    labels = Labels(np.array([0, 1, -1]), ("host", "other"))
    assert sheet_gaps(index, labels, np.array([START] * 3)) == SheetGaps(("other",), ())


def test_signals_have_their_names_units_and_order() -> None:
    figures = CoverageFigures({}, {"node.seed": 0.5, "node.layer": 0.25}, 0.75, 0.2)
    assert coverage_signals(figures, 3, 4) == [
        Signal("tamiyo.gnn.feature_coverage", 0.75),
        Signal("tamiyo.gnn.feature_coverage.node.layer", 0.25),
        Signal("tamiyo.gnn.feature_coverage.node.seed", 0.5),
        Signal("tamiyo.gnn.bsds_missing", 3.0, "blueprints"),
        Signal("tamiyo.gnn.bsds_partial", 4.0, "blueprints"),
        Signal("degraded_inputs", 0.2, "ratio", "WARNING", {"threshold": "0.3"}),
    ]
    assert coverage_signals(figures, 0, 0, warning_under=0.2)[-1].name == "tamiyo.gnn.bsds_partial"
    assert coverage_signals(figures, 0, 0, critical_at=0.2)[-1].level == "CRITICAL"
    rows = rows_of(coverage_signals(figures, 3, 4)).to_pylist()
    assert [(row["kind"], row["unit"]) for row in rows][2:] == [
        ("metric", "ratio"), ("metric", "blueprints"), ("metric", "blueprints"), ("event", "ratio")
    ]  # fmt: skip
    assert rows[-1]["attributes"] == [("threshold", "0.3")]
