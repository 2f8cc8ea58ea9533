"""The closing summary on a terminal. Text comes from exports: the console must not read markup in it."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tamiyo_assets.summary import Build, Summary

_WORST_SHOWN = 20


def render(summary: Summary, console: Console) -> None:
    """Print the summary: what came in, what was kept, how much is measured, how good the model is, where to look."""
    source = "the committed sample" if summary.exports_are_sample else summary.exports
    rows = sum(summary.rows.values())
    console.rule("tamiyo run")
    console.print(
        f"{rows:,} rows in {len(summary.rows)} contract tables, {summary.training_runs} training runs, from {source}."
    )
    _tables(summary, console)
    _rejects(summary, console)
    _drift(summary, console)
    _coverage(summary, console)
    _model(summary, console)
    _checks(summary, console)
    console.print("\nNext", style="bold")
    for line in summary.next:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print(f"Done in {summary.seconds:.0f} s.", highlight=False)


def _tables(summary: Summary, console: Console) -> None:
    table = Table("table", "rows", title="Contract tables", title_justify="left", box=None)
    table.columns[1].justify = "right"
    for name, count in summary.rows.items():
        table.add_row(name, f"{count:,}")
    console.print(table)


def _rejects(summary: Summary, console: Console) -> None:
    if not summary.rejects:
        console.print("Rejects: none.")
        return
    table = Table("rejects", "reason", "records", title="Rejects", title_justify="left", box=None)
    table.columns[2].justify = "right"
    for reject in summary.rejects:
        table.add_row(reject.table, reject.reason, f"{reject.records:,}")
    console.print(table)


def _drift(summary: Summary, console: Console) -> None:
    """What the exports read in this run hold and no contract declares."""
    if not summary.unknown_fields:
        return
    shown = list(summary.unknown_fields.items())[:_WORST_SHOWN]
    more = f", and {len(summary.unknown_fields) - len(shown)} more" if len(summary.unknown_fields) > len(shown) else ""
    listed = ", ".join(f"{name} {count:,}" for name, count in shown)
    console.print(f"Drift: fields and enum values that no contract declares: {listed}{more}.", highlight=False)


def _coverage(summary: Summary, console: Console) -> None:
    if summary.coverage is None:
        console.print("Coverage: no element to measure.")
        return
    console.print(f"Coverage: {summary.coverage:.3f} (mean over keys).")
    table = Table("family", "coverage", "missing elements, by the system to ask", title_justify="left", box=None)
    table.columns[1].justify = "right"
    for family in summary.families:
        gaps = ", ".join(f"{system} {count:,}" for system, count in family.missing_by_system.items())
        table.add_row(family.family, f"{family.ratio:.3f}", gaps)
    console.print(table)
    if summary.mandatory_under:
        worst = list(summary.mandatory_under.items())[:_WORST_SHOWN]
        console.print("Mandatory keys not fully measured: " + ", ".join(f"{key} {ratio:.3f}" for key, ratio in worst))


def _model(summary: Summary, console: Console) -> None:
    console.print(f"Training examples: {summary.examples:,} measured outcomes.")
    for reason, count in summary.unusable_reports.items():
        console.print(f"  {count:,} field reports gave no label: {reason}")
    if summary.build is None:
        why = "" if summary.training_runs else ": Tolaria sent no training state to make a graph of"
        console.print(f"Bundle: none was built{why}.")
        return
    _figures(summary.build, console)
    untrained = {head: why for head, why in summary.build.heads.items() if why != "trained"}
    for head, why in untrained.items():
        console.print(f"  head {head}: {why}")
    state = "promoted, it serves now" if summary.build.promoted else "not promoted"
    console.print(f"Bundle {summary.build.build_id[:16]}: {state}.")
    for reason in summary.build.reasons:
        console.print(f"  {reason}")


def _figures(build: Build, console: Console) -> None:
    gaps = build.metrics.get("gap_closed") or {}
    if gaps:
        table = Table("gap closed on held-out hosts", "mean", "interval", title="Model", title_justify="left", box=None)
        for name, figure in gaps.items():
            table.add_row(name, *_interval(figure, build.metrics_missing.get(f"gap_closed.{name}")))
        console.print(table)
    for name, figure in build.metrics.items():
        if isinstance(figure, int | float):
            console.print(f"  {name} {figure:.3f}")
    for name, why in build.metrics_missing.items():
        console.print(f"  {name}: not computed, {why}")


def _interval(figure: Any, missing: str | None) -> tuple[str, str]:
    if not isinstance(figure, dict) or figure.get("mean") is None:
        return "-", missing or ""
    return f"{figure['mean']:.3f}", f"{figure['low']:.3f} .. {figure['high']:.3f}"


def _checks(summary: Summary, console: Console) -> None:
    for step, error in summary.failed_steps.items():
        console.print(Text.assemble(("failed step", "red"), f" {step}: {error}"), soft_wrap=True)
    if not summary.failed_checks:
        console.print("Checks: all passed.")
        return
    console.print(f"Checks: {len(summary.failed_checks)} failed.")
    for check in sorted(summary.failed_checks, key=lambda c: (c.severity, c.asset)):
        color = "red" if check.severity == "ERROR" else "yellow"
        console.print(Text.assemble("  ", (check.severity, color), f" {check.asset} {check.check}: {check.description}"))
