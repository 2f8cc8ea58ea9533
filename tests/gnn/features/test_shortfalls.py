"""Coverage against its thresholds: which run falls short, whom to ask, what fell between rebuilds, and sums over runs."""

from typing import Any

import pyarrow as pa
import pytest

from gnn.coverage.counts import unbalanced
from gnn.coverage.ratios import coverage_figures, ratios, summed, summed_by_key
from gnn.coverage.sheets import failed_since_sheet, runs_without_sheet
from gnn.coverage.shortfalls import (
    Fall,
    Shortfall,
    explained,
    falls,
    history_rows,
    low_families,
    low_keys,
    newest_runs,
    standing,
    unsent_keys,
)
from schemas.derived.coverage import BY_FAMILY, BY_KEY, GAPS, HISTORY
from schemas.features import GROUPS

FEATURES = {group.key(feature): (group, feature) for group in GROUPS for feature in group.features}
MANDATORY = [key for key, (_, feature) in FEATURES.items() if feature.mandatory]
OPTIONAL = [key for key, (_, feature) in FEATURES.items() if not feature.mandatory]
LOSS, TYPE = "layer.loss", "layer.layer_type"


def by_key(*rows: tuple[str, str, int, int]) -> pa.Table:
    """Rows of `coverage.by_key` from (run, key, measured, elements)."""
    found = [
        {
            "training_run_id": run, "key": key, "family": FEATURES[key][0].family, "system": FEATURES[key][1].system,
            "mandatory": FEATURES[key][1].mandatory, "measured": measured, "elements": elements,
            "ratio": measured / elements if elements else None,
        }
        for run, key, measured, elements in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(found, BY_KEY)


def gap_rows(*rows: tuple[str, str, str, int, int]) -> pa.Table:
    """Rows of `coverage.gaps` from (run, key, system, missing, since)."""
    names = ("training_run_id", "key", "system", "missing", "since_timestamp_ns")
    found = [dict(zip(names, row, strict=True)) | {"elements": 9, "reason": "missing: it"} for row in rows]
    return pa.Table.from_pylist(found, GAPS)


def test_a_mandatory_key_is_low_under_the_threshold_in_any_run() -> None:
    a, b = MANDATORY[:2]
    rows = by_key(
        ("r2", a, 1, 4), ("r1", a, 2, 4), ("r3", a, 3, 4), ("r1", b, 1, 8), ("r4", a, 0, 0), ("r1", OPTIONAL[0], 0, 4)
    )  # fmt: skip
    assert low_keys(rows, 0.75) == [Shortfall(b, 0.125, ("r1",)), Shortfall(a, 0.25, ("r1", "r2"))]
    assert low_keys(rows, 0.5) == [Shortfall(b, 0.125, ("r1",)), Shortfall(a, 0.25, ("r2",))]
    assert low_keys(rows, 0.0) == []


def test_equally_low_families_are_in_order_of_their_names() -> None:
    rows = [("r1", "node.seed", 0.5), ("r1", "node.layer", 0.5), ("r2", "node.layer", 0.7), ("r1", "node.context", None)]
    names = ("training_run_id", "family", "ratio")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], BY_FAMILY)
    assert low_families(table, 0.7) == [Shortfall("node.layer", 0.5, ("r1",)), Shortfall("node.seed", 0.5, ("r1",))]


def test_the_newest_runs_are_those_that_began_last() -> None:
    times = {"old": (1, 99), "a": (5, 6), "b": (5, 7), "new": (8, 8), "odd": (2, 3)}
    rows = [{"training_run_id": run, "timestamp_ns": time} for run, both in times.items() for time in both]
    assert newest_runs(pa.Table.from_pylist(rows), 3) == ["new", "b", "a"]
    assert newest_runs(pa.Table.from_pylist(rows)) == ["new", "b", "a"]
    assert newest_runs(pa.Table.from_pylist(rows), 9) == ["new", "b", "a", "odd", "old"]


def test_an_optional_key_is_unsent_if_no_run_measured_it() -> None:
    gone, once, none = OPTIONAL[:3]
    rows = by_key(
        ("r2", gone, 0, 4), ("r1", gone, 0, 2), ("r3", gone, 0, 0), ("r1", once, 0, 4), ("r2", once, 1, 4), ("r1", none, 0, 0),
        ("r1", MANDATORY[0], 0, 4),
    )  # fmt: skip
    assert unsent_keys(rows) == [Shortfall(gone, 0.0, ("r1", "r2"))]


def test_a_shortfall_names_the_systems_to_ask_and_its_first_packet() -> None:
    rows = gap_rows(
        ("r1", LOSS, "urza", 2, 70), ("r2", LOSS, "tolaria", 5, 90), ("r2", LOSS, "urza", 4, 80), ("r3", LOSS, "simic", 99, 1),
        ("r1", LOSS, "tezzeret", 0, 2), ("r1", TYPE, "kasmina", 1, 60), ("r1", LOSS, "aaa", 4, 75),
    )  # fmt: skip
    low = [Shortfall(LOSS, 0.5, ("r1", "r2")), Shortfall("node.layer", 0.6, ("r1",)), Shortfall("x", 0, ("r1",))]
    assert explained(low, rows) == [
        Shortfall(LOSS, 0.5, ("r1", "r2"), ("urza", "tolaria", "aaa"), 70),
        Shortfall("node.layer", 0.6, ("r1",), ("aaa", "urza", "kasmina"), 60),
        Shortfall("x", 0, ("r1",), (), None),
    ]


def test_gaps_of_a_family_are_found_under_its_own_name() -> None:
    found = explained([Shortfall("node.layer", 0.5, ("r1",))], gap_rows(("r1", "node.layer", "urza", 3, 7)))
    assert found == [Shortfall("node.layer", 0.5, ("r1",), ("urza",), 7)]


def test_history_sums_the_runs_of_one_rebuild() -> None:
    rows = history_rows(by_key(("r1", LOSS, 1, 4), ("r2", LOSS, 2, 4), ("r1", TYPE, 0, 0)), "rebuild-1", 42)
    assert rows.schema.equals(HISTORY)
    same = {"rebuild_run_id": "rebuild-1", "finished_at_ns": 42}
    assert sorted(rows.to_pylist(), key=lambda row: -row["elements"]) == [
        {**same, "key": LOSS, "measured": 3, "elements": 8, "ratio": 0.375},
        {**same, "key": TYPE, "measured": 0, "elements": 0, "ratio": None},
    ]


def test_history_of_keys_without_elements_has_the_declared_types() -> None:
    rows = history_rows(by_key(("r1", TYPE, 0, 0)), "rebuild-1", 42)
    assert rows.schema.equals(HISTORY)
    assert history_rows(by_key(), "rebuild-1", 42).schema.equals(HISTORY)


def history(*rows: tuple[str, int, str, float | None]) -> pa.Table:
    names = ("rebuild_run_id", "finished_at_ns", "key", "ratio")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], HISTORY)


def test_a_fall_is_measured_from_the_median_of_the_rebuilds_before() -> None:
    rows = history(
        ("a", 1, LOSS, 0.5), ("b", 2, LOSS, 1.0), ("c", 3, LOSS, 0.75), ("d", 4, LOSS, None), ("e", 5, LOSS, 0.5),
        ("e", 5, TYPE, 0.0), ("c", 3, TYPE, 1.0),
    )  # fmt: skip
    assert falls(rows, 0.2) == [Fall(TYPE, 1.0, 0.0, 5), Fall(LOSS, 0.75, 0.5, 5)]
    assert falls(rows, 0.25) == [Fall(TYPE, 1.0, 0.0, 5)]
    assert falls(rows, 1.0) == []
    assert falls(rows, 0.2, rebuilds=1) == []
    assert falls(rows, 0.2, rebuilds=2) == [Fall(TYPE, 1.0, 0.0, 5), Fall(LOSS, 0.75, 0.5, 5)]
    assert falls(history(("a", 1, LOSS, 1.0)), 0.1) == []


def test_of_two_rebuilds_at_one_time_the_later_name_is_the_newest() -> None:
    assert falls(history(("a", 1, LOSS, 1.0), ("b", 1, LOSS, 0.5)), 0.1) == [Fall(LOSS, 1.0, 0.5, 1)]
    assert falls(history(("a", 1, LOSS, 0.5), ("b", 1, LOSS, 1.0)), 0.1) == []


def test_a_key_that_was_never_there_before_has_not_fallen() -> None:
    assert falls(history(("a", 1, TYPE, 1.0), ("b", 2, LOSS, 0.0)), 0.1) == []


@pytest.mark.parametrize(("ratio", "stays"), [(0.5, True), (0.75, False), (None, False)])
def test_a_fall_stands_while_some_run_shows_it(ratio: float | None, stays: bool) -> None:
    fall = Fall(LOSS, 1.0, 0.25, 5)
    rows = by_key(("r1", LOSS, 4, 4), ("r2", TYPE, 0, 4))
    if ratio is not None:
        rows = pa.concat_tables([rows, by_key(("r2", LOSS, int(4 * ratio), 4))])
    assert standing([fall], rows, 0.25) == ([fall] if stays else [])


def test_a_fall_whose_runs_are_gone_does_not_stand() -> None:
    assert standing([Fall(LOSS, 1.0, 0.25, 5)], by_key(("r1", TYPE, 0, 4)), 0.25) == []


def test_sums_over_runs_are_worst_first_and_without_elements_last() -> None:
    rows = by_key(("r1", LOSS, 1, 4), ("r2", LOSS, 2, 4), ("r1", TYPE, 0, 4), ("r1", OPTIONAL[0], 0, 0))
    assert summed(rows, ["key"]) == [
        {"key": TYPE, "measured": 0, "elements": 4, "ratio": 0.0},
        {"key": LOSS, "measured": 3, "elements": 8, "ratio": 0.375},
        {"key": OPTIONAL[0], "measured": 0, "elements": 0, "ratio": None},
    ]
    assert [row["key"] for row in ratios(rows, ["key"])] == [TYPE, LOSS]
    group, feature = FEATURES[LOSS]
    own = {"key": LOSS, "family": group.family, "system": feature.system, "mandatory": feature.mandatory}
    assert own | {"measured": 3, "elements": 8, "ratio": 0.375} in summed_by_key(rows)
    figures = coverage_figures(rows)
    assert figures is not None
    assert figures.keys == {LOSS: 0.375, TYPE: 0.0}
    assert coverage_figures(rows.slice(0, 0)) is None


def test_equal_sums_are_in_order_of_their_names() -> None:
    rows = by_key(("r1", TYPE, 1, 2), ("r1", LOSS, 2, 4))
    assert [row["key"] for row in summed(rows, ["key"])] == sorted([TYPE, LOSS])


def test_counts_that_do_not_add_up_are_named() -> None:
    rows = by_key(("r1", LOSS, 1, 4), ("r1", TYPE, 4, 4), ("r2", LOSS, 2, 4))
    whole = [("r1", LOSS, "urza", 1, 1), ("r1", LOSS, "tolaria", 2, 1), ("r2", LOSS, "urza", 2, 1)]
    assert unbalanced(rows, gap_rows(*whole)) == []
    assert unbalanced(rows, gap_rows(*whole[1:])) == ["r1, layer.loss: 1 measured and 2 missing of 4 elements"]
    assert unbalanced(rows, gap_rows(*whole[:2])) == ["r2, layer.loss: 2 measured and 0 missing of 4 elements"]
    below = pa.Table.from_pylist([{**rows.to_pylist()[0], "measured": -1}], BY_KEY)
    assert len(unbalanced(below, gap_rows(("r1", LOSS, "urza", 5, 1)))) == 1


def test_a_run_lacks_a_sheet_if_its_first_graph_does() -> None:
    nodes = pa.Table.from_pylist([
        {"element_id": name, "training_run_id": run, "timestamp_ns": time}
        for name, run, time in (
            ("host", "r2", 9), ("host", "r2", 5), ("host", "r1", 4), ("host", "r3", 6), ("other", "r1", 1), ("known", "r1", 5)
        )
    ])  # fmt: skip
    sheets = pa.Table.from_pylist([
        {"blueprint_id": name, "issued_at_ns": time} for name, time in (("host", 8), ("host", 6), ("known", 5))
    ])  # fmt: skip
    assert runs_without_sheet(nodes, sheets) == {"host": ["r1", "r2"], "other": ["r1"]}


def test_a_failure_counts_until_a_sheet_arrives_after_it() -> None:
    def failed(*sheets: tuple[str, str], **failures: list[tuple[int | None, str | None]]) -> dict[str, str]:
        rows: list[dict[str, Any]] = [
            {"blueprint_id": name, "arrival": arrival, "reason": reason}
            for name, own in failures.items()
            for arrival, reason in own
        ]
        issued = [{"blueprint_id": name, "export_digest": digest} for name, digest in sheets]
        types = [("blueprint_id", pa.string()), ("arrival", pa.int64()), ("reason", pa.string())]
        shape = pa.schema([("blueprint_id", pa.string()), ("export_digest", pa.string())])
        made = pa.Table.from_pylist(issued, shape)
        return failed_since_sheet(pa.Table.from_pylist(rows, pa.schema(types)), made, {"d3": 3, "d5": 5})

    assert failed(b=[(4, "late"), (2, "early")], a=[(1, None)]) == {"a": "no reason given", "b": "late"}
    assert list(failed(b=[(4, "x")], a=[(1, "x")])) == ["a", "b"]
    assert failed(("a", "d3"), a=[(4, "late"), (2, "early")]) == {"a": "late"}
    assert failed(("a", "d3"), ("a", "d5"), a=[(4, "late")]) == {}
    assert failed(("a", "d5"), ("a", "d3"), a=[(4, "late")]) == {}
    assert failed(("a", "d3"), a=[(3, "same export")]) == {}
    # a sheet or a failure of an export that is gone is older than all others
    assert failed(("a", "gone"), a=[(0, "known")]) == {"a": "known"}
    assert failed(("a", "gone"), a=[(None, "unknown")]) == {}
    assert failed(a=[(None, "unknown"), (0, "known")]) == {"a": "known"}
