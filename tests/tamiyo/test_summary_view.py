"""The closing summary shows what exports say letter by letter, whatever a terminal would make of it."""

import pytest

from lake.rejects import Rejected
from tamiyo.summary import Build, FailedCheck, Family, Summary
from tamiyo.summary_view import render
from tamiyo.terminal import Terminal

ODD = "[/red] blocks[0] [bold]x"


def rendered(summary: Summary) -> str:
    console = Terminal()
    with console.capture() as shown:
        render(summary, console)
    return shown.get()


def test_square_brackets_of_exports_are_no_markup() -> None:
    build = Build(
        build_id="b" * 64,
        path="bundles",
        promoted=False,
        reasons=[f"gate {ODD}"],
        heads={"policy": ODD},
        horizon_steps=100,
        unusable_reports={ODD: 1},
        metrics={"gap_closed": {"model": None}, "value_r2": 0.5},
        metrics_missing={"gap_closed.model": ODD, "benefit": ODD},
    )
    summary = Summary(
        exports=f"exports {ODD}",
        exports_are_sample=False,
        home="home",
        training_runs=1,
        rows={"tolaria.system_state": 1},
        rejects=[Rejected(table="rejects.tolaria_system_state", reason=ODD, records=1)],
        unknown_fields={f"SystemStatePacket.{ODD}": 2},
        coverage=0.5,
        families=[Family(family="node.layer", ratio=0.5, missing_by_system={"urza": 1})],
        mandatory_under={"layer.loss": 0.5},
        examples=0,
        unusable_reports={ODD: 1},
        build=build,
        failed_checks=[FailedCheck(asset="a", check="c", severity="ERROR", description=f"run {ODD}")],
        failed_steps={"step": ODD},
        seconds=1.0,
        next=[f"look at {ODD}"],
    )
    text = rendered(summary)
    assert text.count(ODD) == 11
    assert "ERROR a c: run" in text and "failed step step:" in text


def ended(checks: int, *steps: str) -> str:
    """The summary of a run that had so many failed checks and these failed steps."""
    failed = [FailedCheck(asset="a", check=f"c{number}", severity="WARN", description="") for number in range(checks)]
    summary = Summary(
        exports="exports", exports_are_sample=False, home="home", training_runs=0, rows={}, rejects=[], unknown_fields={},
        coverage=None, families=[], mandatory_under={}, examples=0, unusable_reports={}, build=None, failed_checks=failed,
        failed_steps=dict.fromkeys(steps, "broke"), seconds=1.0, next=[],
    )  # fmt: skip
    return rendered(summary)


@pytest.mark.parametrize(
    ("checks", "steps", "line"),
    [
        (0, [], "Checks: all passed."),
        (2, [], "Checks: 2 failed."),
        (0, ["s"], "Checks: none failed of those that ran; checks behind the failed step did not run."),
        (2, ["s", "t"], "Checks: 2 failed of those that ran; checks behind the 2 failed steps did not run."),
    ],
)
def test_checks_behind_a_failed_step_are_not_said_to_have_passed(checks: int, steps: list[str], line: str) -> None:
    lines = ended(checks, *steps).splitlines()
    assert line in lines
    assert [found for found in lines if found.startswith("failed step")] == [f"failed step {step}: broke" for step in steps]
    assert any("all passed" in found for found in lines) is (line == "Checks: all passed.")


def test_figures_stand_beside_the_ceiling_with_hosts_and_horizon() -> None:
    span = {"mean": 0.5, "low": 0.4, "high": 0.6}
    metrics = {
        "gap_closed": {"model": span, "boosting": None}, "gap_closed_minus_best_baseline": span, "benefit": span,
        "harm_rate": {"chosen": 0.02, "random": 0.03}, "value_r2": 0.1, "replicate_ceiling": 0.75, "folds": 5,
        "hosts": {"out_of_fold": 460, "bucket_7": 44, "held_out": 40},
        "held_out_data_set": {"name": "names", "gap_closed": span},
    }  # fmt: skip
    build = Build(
        build_id="b" * 64, path="p", promoted=True, reasons=[], heads={}, horizon_steps=100, unusable_reports={},
        metrics=metrics, metrics_missing={"gap_closed.boosting": "switched off", "risk_brier": "no labels"},
    )  # fmt: skip
    summary = Summary(
        exports="exports", exports_are_sample=False, home="home", training_runs=1, rows={}, rejects=[], unknown_fields={},
        coverage=None, families=[], mandatory_under={}, examples=0, unusable_reports={}, build=build, failed_checks=[],
        failed_steps={}, seconds=1.0, next=[],
    )  # fmt: skip
    text = rendered(summary)
    for part in (
        "Model at horizon 100, 460 hosts, each judged out of fold", "0.400 .. 0.600", "switched off", "0.750",
        "lead over the best baseline 0.500", "harm_rate 0.020 among the chosen, 0.030 among random ones",
        "data set names, never trained on (40 hosts): gap closed 0.500", "risk_brier: not computed, no labels",
    ):  # fmt: skip
        assert part in text, part
    assert "folds" not in text
