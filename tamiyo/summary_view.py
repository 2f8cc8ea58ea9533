"""Print the closing summary on a terminal."""

from typing import Any

from tamiyo.summary import Build, Family, Summary
from tamiyo.terminal import Terminal, labelled, table

_WORST_SHOWN = 20


def render(summary: Summary, console: Terminal) -> None:
    """Print the summary: what came in, what was kept, how much is measured, how good the model is, where to look."""
    source = "the committed sample" if summary.exports_are_sample else summary.exports
    rows = sum(summary.rows.values())
    console.print("tamiyo run", style="bold")
    console.print(
        f"{rows:,} rows in {len(summary.rows)} contract tables, {summary.training_runs} training runs, from {source}."
    )
    _retired(summary, console)
    _tables(summary, console)
    _rejects(summary, console)
    _drift(summary, console)
    _unread(summary, console)
    _coverage(summary, console)
    _model(summary, console)
    _checks(summary, console)
    console.print()
    console.print("Next", style="bold")
    for line in summary.next:
        console.print(f"  {line}")
    console.print(f"Done in {summary.seconds:.0f} s.")


def _retired(summary: Summary, console: Terminal) -> None:
    """Print training runs that are left out of all but the contract tables."""
    for run, reason in list(summary.retired.items())[:_WORST_SHOWN]:
        console.print(f"Retired: {run}: {reason}")
    if len(summary.retired) > _WORST_SHOWN:
        console.print(f"  and {len(summary.retired) - _WORST_SHOWN} more, all listed by `tamiyo retire`")


def _tables(summary: Summary, console: Terminal) -> None:
    rows = [(name, f"{count:,}") for name, count in summary.rows.items()]
    console.print(table("table", "rows", rows=rows, title="Contract tables", right=["rows"]))


def _rejects(summary: Summary, console: Terminal) -> None:
    if not summary.rejects:
        console.print("Rejects: none.")
        return
    rows = [(reject.table, reject.reason, f"{reject.records:,}") for reject in summary.rejects]
    console.print(table("rejects", "reason", "records", rows=rows, title="Rejects", right=["records"]))


def _drift(summary: Summary, console: Terminal) -> None:
    """Print what the exports read in this run hold and no contract declares."""
    if not summary.unknown_fields:
        return
    shown = list(summary.unknown_fields.items())[:_WORST_SHOWN]
    more = f", and {len(summary.unknown_fields) - len(shown)} more" if len(summary.unknown_fields) > len(shown) else ""
    listed = ", ".join(f"{name} {count:,}" for name, count in shown)
    console.print(f"Drift: fields and enum values that no contract declares: {listed}{more}.")


def _unread(summary: Summary, console: Terminal) -> None:
    """Print damaged tables that were built again, and files under the exports root that no contract reads."""
    for problem in summary.rebuilt.values():
        console.print(f"Rebuilt: {problem}")
    if not summary.unread:
        return
    console.print(f"Not read: {len(summary.unread)} files under the exports root.")
    for file, reason in list(summary.unread.items())[:_WORST_SHOWN]:
        console.print(f"  {file}: {reason}")
    if len(summary.unread) > _WORST_SHOWN:
        console.print(f"  and {len(summary.unread) - _WORST_SHOWN} more, all listed by `tamiyo run --json`")


def _coverage(summary: Summary, console: Terminal) -> None:
    if summary.coverage is None:
        console.print("Coverage: no element to measure.")
        return
    console.print(f"Coverage: {summary.coverage:.3f} (mean over keys).")
    headers = ("family", "coverage", "missing elements, by the system to ask")
    console.print(table(*headers, rows=map(_gaps, summary.families), right=["coverage"]))
    if summary.mandatory_under:
        worst = list(summary.mandatory_under.items())[:_WORST_SHOWN]
        console.print("Mandatory keys not fully measured: " + ", ".join(f"{key} {ratio:.3f}" for key, ratio in worst))


def _gaps(family: Family) -> tuple[str, str, str]:
    gaps = ", ".join(f"{system} {count:,}" for system, count in family.missing_by_system.items())
    return family.family, f"{family.ratio:.3f}", gaps


def _model(summary: Summary, console: Terminal) -> None:
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


def _figures(build: Build, console: Terminal) -> None:
    """Print the gap closed of every model beside the ceiling, then the other figures, each with its hosts and horizon."""
    metrics, missing = build.metrics, build.metrics_missing
    counts = metrics.get("hosts") or {}
    gaps = metrics.get("gap_closed") or {}
    if gaps:
        rows = [(name, *_interval(figure, missing.get(f"gap_closed.{name}"))) for name, figure in gaps.items()]
        ceiling = metrics.get("replicate_ceiling")
        rows.append(("replicate ceiling", "-" if ceiling is None else f"{ceiling:.3f}", missing.get("replicate_ceiling", "")))
        title = f"Model at horizon {build.horizon_steps}, {counts.get('out_of_fold', 0)} hosts, each judged out of fold"
        console.print(table("gap closed", "mean", "95 % interval", rows=rows, title=title))
    spans = {"lead over the best baseline": "gap_closed_minus_best_baseline", "benefit [nats a state]": "benefit"}
    for name, key in spans.items():
        if metrics.get(key) is not None:
            console.print("  {} {} ({})".format(name, *_interval(metrics[key], None)))
    harm = metrics.get("harm_rate") or {}
    if None not in harm.values() and harm:
        console.print(f"  harm_rate {harm['chosen']:.3f} among the chosen, {harm['random']:.3f} among random ones")
    for name, figure in metrics.items():
        if isinstance(figure, float) and name != "replicate_ceiling":
            console.print(f"  {name} {figure:.3f}")
    kept_out = metrics.get("held_out_data_set")
    if kept_out is not None:
        mean, interval = _interval(kept_out["gap_closed"], None)
        hosts = counts.get("held_out", 0)
        console.print(f"  data set {kept_out['name']}, never trained on ({hosts} hosts): gap closed {mean} ({interval})")
    for name, why in missing.items():
        if not name.startswith("gap_closed.") and name != "replicate_ceiling":
            console.print(f"  {name}: not computed, {why}")


def _interval(figure: Any, missing: str | None) -> tuple[str, str]:
    if not isinstance(figure, dict) or figure.get("mean") is None:
        return "-", missing or ""
    return f"{figure['mean']:.3f}", f"{figure['low']:.3f} .. {figure['high']:.3f}"


def _checks(summary: Summary, console: Terminal) -> None:
    for step, error in summary.failed_steps.items():
        console.print(labelled("failed step", "red", f"{step}: {error}"))
    failed, steps = len(summary.failed_checks), len(summary.failed_steps)
    if steps:
        behind = "the failed step" if steps == 1 else f"the {steps} failed steps"
        console.print(f"Checks: {failed or 'none'} failed of those that ran; checks behind {behind} did not run.")
    else:
        console.print(f"Checks: {failed} failed." if failed else "Checks: all passed.")
    for check in sorted(summary.failed_checks, key=lambda c: (c.severity, c.asset)):
        color = "red" if check.severity == "ERROR" else "yellow"
        console.print(labelled(check.severity, color, f"{check.asset} {check.check}: {check.description}", indent="  "))
