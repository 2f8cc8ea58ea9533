"""The closing summary shows what exports say letter by letter, whatever a terminal would make of it."""

from rich.console import Console

from tamiyo_assets.rejects import Rejected
from tamiyo_assets.summary import Build, FailedCheck, Family, Summary
from tamiyo_assets.summary_view import render

ODD = "[/red] blocks[0] [bold]x"


def test_square_brackets_of_exports_are_no_markup() -> None:
    build = Build(
        build_id="b" * 64,
        path="bundles",
        promoted=False,
        reasons=[f"gate {ODD}"],
        heads={"policy": ODD},
        unusable_reports={ODD: 1},
        metrics={"gap_closed": {"model": None}, "value_r2": 0.5},
        metrics_missing={"gap_closed.model": ODD},
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
    console = Console(width=200, markup=False)
    with console.capture() as shown:
        render(summary, console)
    text = shown.get()
    assert text.count(ODD) == 11
    assert "ERROR a c: run" in text and "failed step step:" in text
