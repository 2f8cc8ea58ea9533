"""Render the panel: one HTML page that needs no network. All data are escaped, control characters included."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.printable import shown
from tamiyo_assets.panel.facts import Gap, PanelData
from tamiyo_assets.panel.verdict import Verdict, judge

if TYPE_CHECKING:
    from jinja2 import Environment

PANEL: Final = "panel.html"
_TEMPLATES: Final = Path(__file__).with_name("templates")
_RUNS_DRAWN: Final = 60
_RUNS_LISTED: Final = 20
_NAMES: Final = {
    "model": "this model",
    "no_messages": "the same, no messages",
    "best_grouped": "best by group",
    "best_constant": "best constant kernel",
    "gaussian_process": "Gaussian process",
    "boosting": "gradient boosting",
    "ridge": "ridge",
    "random": "random",
    "no_op": "no-op",
}
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def render(data: PanelData) -> str:
    """Return the page as text."""
    from tamiyo_assets.panel import charts

    verdict = judge(data)
    newest = data.builds[-1] if data.builds else None
    drawn = data.runs[:_RUNS_DRAWN]
    return (
        _environment()
        .get_template(PANEL)
        .render(
            data=data,
            verdict=verdict,
            gaps_by_system=_by_system(data.gaps),
            failed=[check for check in data.checks if not check.passed],
            heat=charts.heat_map(drawn) if drawn else None,
            drawn=len(drawn),
            listed=[run for run in data.runs if run.gaps or run.mandatory_missing][:_RUNS_LISTED],
            with_gaps=sum(bool(run.gaps or run.mandatory_missing) for run in data.runs),
            history=charts.coverage_history(data.history) if data.history else None,
            newest=newest,
            model=charts.model_figures(newest, _shown_models(newest.gap_closed)) if newest and newest.gap_closed else None,
            builds=charts.builds_over_time(data.builds) if len(data.builds) > 1 else None,
            rebuilds=charts.rebuild_times(data.rebuilds[::-1]) if data.rebuilds else None,
        )
    )


def summary(data: PanelData, verdict: Verdict) -> dict[str, Any]:
    """Return the facts that people act on, for `tamiyo panel --json`."""
    serving = data.serving
    return {
        "state": verdict.level,
        "headline": verdict.headline,
        "problems": [{"severity": p.severity, "what": p.what, "since": _iso(p.since), "ask": p.ask} for p in verdict.problems],
        "serving": {
            "build_id": serving.build_id,
            "since": _iso(serving.since),
            "newest": serving.newest,
            "why_newest_does_not": list(serving.reasons),
            "gates": [{"name": g.name, "passed": g.passed, "detail": g.detail} for g in serving.gates],
        },
        "open_alerts": len(data.alerts),
        "feeds": [
            {"system": f.system, "state": f.state, "last_seen": _iso(f.last_seen), "rows": f.rows, "rejected": f.rejected}
            for f in data.feeds
        ],
        "gaps": [
            {
                "system": g.system,
                "key": g.key,
                "mandatory": g.mandatory,
                "runs": len(g.runs),
                "since": _iso(g.since),
                "share": g.share,
            }
            for g in data.gaps
        ],
        "unreadable": dict(data.unreadable),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def _by_system(gaps: Sequence[Gap]) -> list[tuple[str, list[Gap]]]:
    """Return gaps by the system to ask: those with mandatory keys first, else by the largest share that is missing."""
    order = list(dict.fromkeys(gap.system for gap in gaps))
    by_system = sorted(gaps, key=lambda gap: order.index(gap.system))
    return [(system, list(own)) for system, own in groupby(by_system, key=lambda gap: gap.system)]


def _shown_models(figures: Any) -> list[tuple[str, str]]:
    """Return name and label of the model and each baseline, the model first, the others by their figure."""
    ordered = sorted(figures, key=lambda name: (name != "model", -figures[name].mean))
    return [(name, _NAMES.get(name, name)) for name in ordered]


def age(seconds: float) -> str:
    """Return a duration in its largest unit: `3 h`, `12 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def _when(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    return f"{at:%Y-%m-%d %H:%M} UTC ({age(max((now - at).total_seconds(), 0.0))} ago)"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"when": _when, "age": age, "breakable": _breakable, "stylesheet": _stylesheet}
    return found


def _finalized(value: object) -> object:
    """Return a value as the page shows it: control characters of plain text escaped, markup unchanged."""
    return shown(value) if type(value) is str else value


def _breakable(text: str) -> Any:
    """Return the text, escaped, with places where a long name may break."""
    from markupsafe import Markup, escape

    found = str(escape(shown(text)))
    for mark in (".", "_", "/"):  # no entity that `escape` makes has one of them
        found = found.replace(mark, f"{mark}\u200b")
    return Markup(found.replace("\u200b", "<wbr>"))


def _stylesheet(name: str) -> Any:
    from markupsafe import Markup

    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
