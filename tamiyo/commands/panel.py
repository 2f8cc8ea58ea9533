"""Define `tamiyo panel`: write one page that says what is wrong, since when and whom to ask."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from lake.settings import resolve
from tamiyo.commands.options import Home, Result, printing, reported

_EXAMPLES = """
Write the state of a home as one HTML page: what is wrong, since when, whom to ask, and what serves.

Without --out the metrics for Prometheus (`metrics.prom`) are written too.

Examples:

    tamiyo panel --open

    tamiyo panel --home var/tamiyo --out panel.html

    tamiyo panel --json
"""

Out = Annotated[Path | None, typer.Option("--out", help="HTML to write; default `panel.html` in the home.", show_default=False)]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("panel", help=_EXAMPLES)(reported(panel))


def panel(home: Home = None, out: Out = None, open_page: Open = False) -> Result:
    """Exit status 0, whatever the page says."""
    import webbrowser

    from lake.durable.publish import publish_file
    from tamiyo_assets.panel.gather import gather
    from tamiyo_assets.panel.publish import panel_path, publish_panel
    from tamiyo_assets.panel.render import render, summary
    from tamiyo_assets.panel.verdict import judge

    settings = resolve(home=home)
    path = (out or panel_path(settings.home)).absolute()
    data = gather(settings)
    if out is None:
        publish_panel(settings.home, data)
    else:
        publish_file(path, render(data).encode("utf-8"))
    if open_page:
        webbrowser.open(path.as_uri())
    verdict = judge(data)
    told = [f"{p.severity} {p.what} Since {_minute(p.since)}; ask {p.ask}." for p in verdict.problems]
    return Result({"path": str(path), **summary(data, verdict)}, printing(*(told or [verdict.headline]), str(path)))


def _minute(at: datetime | None) -> str:
    return "an unknown time" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
