"""Define `tamiyo evaluate`: judge a bundle on measured outcomes that it was not trained on."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lake.settings import Settings, require_exports, resolve
from tamiyo.commands.options import Exit, ExportsRoot, Home, Result, fail, reported
from tamiyo.terminal import Terminal, table

if TYPE_CHECKING:
    from gnn.bundle.read import Bundle
    from gnn.model.bootstrap import Estimate
    from gnn.online.replay import Judged

_EXAMPLES = """
Judge a bundle on measured outcomes of hosts that it was not trained on, beside simple rules and the ceiling of the labels.

The exports are joined as the pipeline does, in a place of their own; nothing in the home changes.

Examples:

    tamiyo evaluate --exports var/exports

    tamiyo evaluate BUILD_ID --exports NEW_EXPORTS --json
"""

Judgeable = Annotated[
    Path | None, typer.Argument(help="The bundle's directory, or its build id in the home, or its beginning; else what serves.")
]
_RULES = ("model", "best_constant", "random", "no_op")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("evaluate", help=_EXAMPLES)(reported(evaluate))


def evaluate(bundle: Judgeable = None, exports: ExportsRoot = None, home: Home = None) -> Result:
    """Exit status 0; 1 if there is no such bundle or it is not clean; 2 if there are no exports."""
    settings = resolve(exports=exports, home=home)
    require_exports(settings)
    judged_bundle = _clean(settings, bundle)
    judged = _judge(settings, judged_bundle)
    value = _value(judged)

    def show(terminal: Terminal) -> None:
        _show(judged_bundle, judged, value, terminal)

    return Result(value, show)


def _clean(settings: Settings, bundle: Path | None) -> "Bundle":
    """Return the bundle that is meant, after preflight."""
    from gnn.bundle import bundle_path, preflight, serving
    from lake.builds import whole_build_id

    if bundle is None and serving(settings.home) is None:
        fail(f"home {settings.home}: expected a bundle that serves, found none; name a bundle, or promote one", Exit.REFUSED)
    path = bundle or settings.home / "current"
    if bundle is not None and not bundle.exists() and bundle.name == str(bundle):
        path = bundle_path(settings.home, whole_build_id(settings.home, bundle.name))
    report = preflight(path)
    if report.bundle is None or not report.clean:
        fail(f"bundle {path}: " + "; ".join(map(str, report.mismatches)), Exit.REFUSED)
    if "host_digests" not in report.bundle.manifest.training:
        fail(
            f"bundle {path}: expected digests of the hosts it was trained on, found none; train it again",
            Exit.REFUSED,
        )
    return report.bundle


def _judge(settings: Settings, bundle: "Bundle") -> "Judged":
    """Ingest the exports into a home of their own, and judge the bundle on their outcomes."""
    from gnn.model.examples import build_examples
    from gnn.online.replay import judge
    from lake.exports.folders import Exports
    from lake.ingest.ingest import Ingest
    from lake.store.table_store import TableStore
    from schemas.contracts import TABLES

    with TemporaryDirectory(prefix="tamiyo-evaluate-") as folder:
        place = Path(folder)
        tables = TableStore(place)
        Ingest(place, Exports(settings.exports), tables, settings.limits).refresh()
        contracts = tables.read_each(dict.fromkeys(TABLES))
        found = build_examples(contracts, bundle.manifest.training_config)
        return judge(bundle, contracts, found.table)


def _value(judged: "Judged") -> dict[str, Any]:
    """Return the object of `--json`; a figure that can't be computed is null."""
    model, drawn = judged.figures["model"], judged.figures["random"]
    return {
        "hosts": judged.hosts,
        "states": judged.states,
        "pairs": judged.pairs,
        "gap_closed": {name: _span(judged.figures[name]["gap_closed"]) for name in _RULES},
        "gap_closed_by_state": _number(model, "gap_closed_by_state"),
        "within_state_spearman": _number(model, "within_state_spearman"),
        "benefit": _span(model["benefit"]),
        "harm_rate": {"chosen": _number(model, "harm_rate"), "random": _number(drawn, "harm_rate")},
        "risk_ece": _number(model, "risk_ece_after"),
        "value_interval_coverage": _number(model, "value_interval_coverage"),
        "replicate_ceiling": judged.ceiling if math.isfinite(judged.ceiling) else None,
        "excluded_hosts": judged.excluded,
    }


def _number(figures: Mapping[str, "Estimate"], name: str) -> float | None:
    found = figures[name].mean if name in figures else math.nan
    return found if math.isfinite(found) else None


def _span(figure: "Estimate") -> dict[str, float] | None:
    found = vars(figure.interval)
    return found if all(map(math.isfinite, found.values())) else None


def _show(bundle: "Bundle", judged: "Judged", value: Mapping[str, Any], terminal: Terminal) -> None:
    horizon = bundle.manifest.policy.horizon_steps
    terminal.print(
        f"Bundle {bundle.build_id[:16]} on {judged.pairs:,} measured outcomes at horizon {horizon} of {judged.hosts:,} hosts, "
        f"{judged.states:,} states with a choice; {judged.excluded:,} hosts that it was trained on are left out."
    )
    if not judged.pairs:
        terminal.print("No measured outcome of a host that it was not trained on: nothing to judge.")
        return
    rows = [(name, *_cells(value["gap_closed"][name])) for name in _RULES]
    rows.append(("replicate ceiling", "-" if value["replicate_ceiling"] is None else f"{value['replicate_ceiling']:.3f}", ""))
    terminal.print(table("gap closed", "mean", "95 % interval", rows=rows))
    for line in _lines(value):
        terminal.print(line)


def _cells(span: Mapping[str, float] | None) -> tuple[str, str]:
    return ("-", "") if span is None else (f"{span['mean']:.3f}", f"{span['low']:.3f} .. {span['high']:.3f}")


def _lines(value: Mapping[str, Any]) -> Iterator[str]:
    for name in ("gap_closed_by_state", "within_state_spearman", "risk_ece", "value_interval_coverage"):
        yield f"  {name} " + ("not computed" if value[name] is None else f"{value[name]:.3f}")
    mean, interval = _cells(value["benefit"])
    yield f"  benefit {mean} nats a state ({interval})"
    shown = {name: "not computed" if rate is None else f"{rate:.3f}" for name, rate in value["harm_rate"].items()}
    yield f"  harm_rate chosen {shown['chosen']}, random {shown['random']}"
