"""`tamiyo backfill`: features, coverage and graphs of all training runs, made by the workers of a cluster."""

import time
from collections.abc import Mapping
from typing import Annotated

import typer

from lake.settings import require_exports, require_home, resolve
from tamiyo.commands.options import AsJson, Exit, ExportsRoot, Home, Result, printing, quiet_dagster, reported
from tamiyo.terminal import Terminal

_EXAMPLES = """
Make features, coverage and graphs of all training runs on the workers of a cluster: exports are read and registries refreshed
by one run, then each run bucket is made by a run of its own. What has not changed is not made again, and the next `tamiyo run`
or rebuild finds all of it done.

Examples:

    set -a; . var/cluster/environment; tamiyo backfill

    tamiyo backfill --no-wait
"""

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end, or leave it to the cluster.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("backfill", help=_EXAMPLES)(reported(backfill))


def backfill(exports: ExportsRoot = None, home: Home = None, wait: Wait = True, as_json: AsJson = False) -> Result:
    """Exit status 0; 1 if a run failed for good or no daemon is there; 2 if there are no exports."""
    settings = resolve(exports=exports, home=home)
    require_exports(settings)
    require_home(settings)
    console = Terminal(quiet=as_json)
    started, told = time.monotonic(), ""

    def said(runs: Mapping[str, int]) -> None:
        nonlocal told
        line = _counted(runs)
        if line != told:
            console.print(line)
            told = line

    with quiet_dagster():
        from tamiyo.backfill import run_backfill

        found = run_backfill(settings, said, wait=wait)
    seconds = time.monotonic() - started
    value = {"backfill_id": found.backfill_id, "status": found.status, "runs": dict(found.runs), "seconds": round(seconds, 1)}
    line = f"backfill {found.backfill_id}: {found.status}; {_counted(found.runs)}; {seconds:.0f} s"
    return Result(value, printing(line), Exit.OK if found.ok or not wait else Exit.REFUSED)


def _counted(runs: Mapping[str, int]) -> str:
    return ", ".join(f"{count} runs {status.lower()}" for status, count in sorted(runs.items())) or "no run yet"
