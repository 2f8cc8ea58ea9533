"""Define `tamiyo run`: everything once, in this process, with progress and a closing summary."""

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lake.settings import Settings, require_exports, require_home, resolve
from lake.writes import writer_of
from tamiyo.commands.options import AsJson, Exit, ExportsRoot, Home, Result, quiet_dagster, reported
from tamiyo.commands.stopping import leaving
from tamiyo.terminal import Terminal

if TYPE_CHECKING:
    from tamiyo.execution import Outcome

_EXAMPLES = """
Materialize everything once and say what was found.

Examples:

    tamiyo run

    tamiyo run --exports var/exports --home var/tamiyo

    TAMIYO_ALERT_WEBHOOK=http://127.0.0.1:9000/ tamiyo run --json

    tamiyo run --no-train --home var/tamiyo      # bring all that depends on exports up to date; the bundle stays
"""

Train = Annotated[bool, typer.Option("--train/--no-train", help="Train, and promote the bundle if its gates pass.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("run", help=_EXAMPLES)(reported(run))


def run(exports: ExportsRoot = None, home: Home = None, train: Train = True, as_json: AsJson = False) -> Result:
    """Exit status 0; 1 if an ERROR check or a step failed; 2 if there are no exports."""
    settings = resolve(exports=exports, home=home)
    require_exports(settings)
    require_home(settings)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small graphs: two threads stall each other
    console = Terminal(quiet=as_json)
    if settings.exports_are_sample:
        console.print("No exports were named and var/exports has none: reading the committed sample recorder/sample.")
    holder = writer_of(settings.home)
    if holder is not None:
        console.print(f"Waiting for {holder}, which writes to {settings.home}.")
    started = time.monotonic()
    with quiet_dagster():
        from tamiyo.summary import summarize
        from tamiyo.summary_view import render

        with leaving("what was committed stays, and the next `tamiyo run` goes on from there"):
            outcome = _with_progress(settings, console, train=train)
        summary = summarize(settings, outcome, time.monotonic() - started)
    return Result(summary.model_dump(mode="json"), partial(render, summary), Exit.OK if outcome.ok else Exit.REFUSED)


def _with_progress(settings: Settings, console: Terminal, *, train: bool) -> "Outcome":
    from tamiyo.execution import run_everything

    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("exports", total=None)

        def step(name: str, done: int, total: int) -> None:
            progress.update(task, description=name.replace("__", "/"), completed=done, total=total)

        return run_everything(settings, step, train=train)
