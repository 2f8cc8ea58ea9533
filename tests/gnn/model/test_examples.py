"""Examples: joins, replicates, splits and the reports that give no label."""

import math
from typing import Any

import pytest

from gnn.model.examples import build_examples
from schemas.configuration import TrainingConfig
from schemas.derived.training import EXAMPLES
from schemas.splits import split_of
from tests.gnn.model.reports import command, packet, report, sources

CONFIG = TrainingConfig()


def rows(*reports: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    found = build_examples(sources(list(reports), **more), CONFIG).table
    assert found.schema == EXAMPLES
    listed: list[dict[str, Any]] = found.to_pylist()
    return listed


def test_a_measured_report_becomes_one_example() -> None:
    (row,) = rows(report(metrics={"uplift_test": 0.25, "se": 0.03}))
    assert row["u"] == pytest.approx(math.log(0.9 / 0.8), rel=1e-6)
    assert (row["u_test"], row["horizon"], row["replicates"]) == (0.25, 50, 1)
    assert row["weight"] == pytest.approx(1 / (0.03**2 + 0.06**2), rel=1e-5)
    assert (row["host"], row["data_set"], row["architecture"]) == ("host-1", "digits", "mlp")
    assert (row["risk_class"], row["blending_method"], row["split"]) == ("none", "linear", split_of("host-1"))


def test_replicates_are_averaged_and_the_worst_one_sets_the_risk() -> None:
    second = report("r-2", metrics={"replicate": 1.0}, treated_delta=0.5)
    (row,) = rows(report(), second)
    us = [math.log(0.9 / 0.8), math.log(0.9 / 1.5)]
    assert row["u"] == pytest.approx(sum(us) / 2, rel=1e-6)
    assert (row["replicates"], row["risk_class"]) == (2, "high")
    assert (row["u_test_first"], row["u_test_second"]) == (None, None)
    assert row["se"] == pytest.approx(abs(us[0] - us[1]) / 2, rel=1e-6)
    assert (row["u_first"], row["u_second"]) == pytest.approx(tuple(us), rel=1e-6)


def test_every_blending_method_counts_and_each_is_also_kept_apart() -> None:
    commands = [command(), command("c-2", "cosine"), command("c-3", None)]
    other = report("r-2", command_id="c-2", treated_delta=-0.3)
    again = report("r-4", metrics={"replicate": 1.0})
    found = rows(report(), again, other, report("r-3", blueprint_id="kernel-scale"), commands=commands)
    assert [row["blending_method"] for row in found] == ["linear", "linear"]
    linear, cosine = math.log(0.9 / 0.8), math.log(0.9 / 0.7)
    assert (found[0]["u"], found[0]["replicates"]) == (pytest.approx((2 * linear + cosine) / 3, rel=1e-6), 3)
    assert {m["method"]: round(m["u"], 4) for m in found[0]["by_method"]} == {"linear": 0.1178, "cosine": 0.2513}
    # another method in the same batches is no replicate
    assert (found[0]["u_first"], found[0]["u_second"]) == pytest.approx((linear, linear), rel=1e-6)
    assert (found[1]["u_first"], found[1]["u_second"]) == (pytest.approx(linear, rel=1e-6), None)
    (unnamed,) = rows(report(command_id="c-3"), commands=commands)
    assert (unnamed["blending_method"], unnamed["by_method"]) == (None, None)


def test_each_replicate_keeps_its_uplift_on_test_data() -> None:
    second = report("r-2", metrics={"replicate": 1.0, "uplift_test": 0.5})
    (row,) = rows(report(metrics={"uplift_test": 0.25}), second)
    assert (row["u_test_first"], row["u_test_second"], row["u_test"]) == (0.25, 0.5, 0.375)


def test_horizons_sites_and_kernels_are_examples_of_their_own() -> None:
    found = rows(
        report(),
        report("r-2", metrics={"horizon_steps": 100.0}),
        report("r-3", seed_id="s-2"),
        report("r-4", blueprint_id="kernel-scale"),
    )
    assert len(found) == 4
    assert found == sorted(found, key=lambda r: (r["packet_id"], r["seed_id"], r["kernel"], r["horizon"]))


def test_a_diverged_graft_is_critical_and_has_no_uplift() -> None:
    (row,) = rows(report(treated_delta=None, non_finite=["treated_delta"]))
    assert (row["risk_class"], row["u"]) == ("critical", None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"control_delta": None}, "no control_delta or base_loss"),
        ({"base_loss": None}, "no control_delta or base_loss"),
        ({"treated_delta": None}, "no treated_delta, or a loss that is not positive"),
        ({"treated_delta": -1.0}, "no treated_delta, or a loss that is not positive"),
        ({"packet_id": "p-9"}, "names no packet that was kept"),
        ({"blueprint_id": "blueprint-of-somebody"}, "names no kernel of the policy"),
        ({"metrics": {"horizon_steps": None}}, "no horizon_steps"),
    ],
)
def test_a_report_without_a_label_is_counted_by_reason(change: dict[str, Any], reason: str) -> None:
    found = build_examples(sources([report(**change)]), CONFIG)
    assert found.table.num_rows == 0
    assert found.unusable == {reason: 1}


def test_the_command_fills_what_the_report_leaves_out() -> None:
    commands = [command(target_seed_id="s-7", seed_operation_blueprint_id="kernel-conv")]
    (row,) = rows(report(seed_id=None, blueprint_id=None), commands=commands)
    assert (row["seed_id"], row["kernel"]) == ("s-7", "kernel-conv")


def test_a_completion_marker_is_no_state() -> None:
    assert rows(report(), packets=[packet(is_completion=True)]) == []


def test_a_whole_data_set_is_held_out() -> None:
    config = TrainingConfig(held_out_data_set="digits")
    assert build_examples(sources([report()]), config).table["split"].to_pylist() == ["held_out"]


def test_the_order_of_reports_does_not_matter() -> None:
    reports = [report(f"r-{i}", metrics={"replicate": float(i)}, treated_delta=-0.05 * i) for i in range(4)]
    assert rows(*reports) == rows(*reversed(reports))


def test_no_reports_give_a_typed_empty_table() -> None:
    assert rows() == []
