"""Define `tamiyo retire`: take training runs out of everything derived, or back in."""

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from getpass import getuser
from typing import Annotated, Any

import typer

from lake.settings import Settings, resolve
from tamiyo.commands.options import Exit, Home, Result, fail, printing, reported
from tamiyo.terminal import table

_EXAMPLES = """
Take training runs out of features, norms, coverage, training and checks. Their rows stay in the contract tables, and the
registries keep their keys. Without a run: list what is retired.

Examples:

    tamiyo retire

    tamiyo retire run-7 --reason "the exporter sent no losses before its upgrade"

    tamiyo retire run-7 run-8 --undo

    tamiyo retire run-7 --reason "a test of the recorder" --json
"""
_NEAR = 3  # similar ids that are named for an unknown one

Runs = Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Ids of training runs.", show_default=False)]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Why; it is shown wherever the run is missed.", show_default=False)
]
Undo = Annotated[bool, typer.Option("--undo", help="Take the runs back in.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("retire", help=_EXAMPLES)(reported(retire))


def retire(runs: Runs = None, reason: Reason = None, undo: Undo = False, home: Home = None) -> Result:
    """Exit status 0, also if nothing changed; 2 for a run that no table knows, or without a reason."""
    from lake.retirement import Retirements

    settings = resolve(home=home)
    journal = Retirements(settings.home)
    if not runs:
        if reason is not None or undo:
            fail(
                "RUN: expected the id of a training run, found none; `tamiyo coverage` and the warehouse have them", Exit.USAGE
            )
        return _listed(settings)
    given = (reason or "").strip()
    if not given and not undo:
        fail("--reason: expected why the run is retired, found none; pass --reason TEXT", Exit.USAGE)
    _require_known(settings, runs, journal.current())
    act = journal.restore if undo else journal.retire
    changed = act(runs, given, _user(), int(datetime.now(UTC).timestamp() * 1e9))
    done = "taken back in" if undo else "retired"
    same = [run for run in dict.fromkeys(runs) if run not in changed]
    lines = [f"{run}: {done}" for run in changed]
    lines += [f"{run}: not retired, nothing to undo" if undo else f"{run}: retired before for that reason" for run in same]
    after = _next(settings) if changed else "Nothing changed."
    return Result({"changed": changed, "unchanged": same, "undo": undo, "next": after}, printing(*lines, after))


def retired_now(settings: Settings) -> list[dict[str, Any]]:
    """Return the retired runs with their reason; `applied`: whether the newest rebuild left them out."""
    from lake.retirement import Retirements, retired_runs
    from lake.store.table_store import TableStore

    applied = retired_runs(TableStore(settings.home))
    return [asdict(one) | {"applied": run in applied} for run, one in Retirements(settings.home).current().items()]


def _listed(settings: Settings) -> Result:
    found = retired_now(settings)
    headers = ("training run", "reason", "since", "by", "left out")
    shown = table(*headers, rows=map(_cells, found)) if found else "No training run is retired."
    return Result({"retired": found}, printing(shown))


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    since = datetime.fromtimestamp(one["retired_at_ns"] / 1e9, UTC).isoformat(timespec="seconds")
    return one["training_run_id"], one["reason"], since, one["by"], "yes" if one["applied"] else "by the next rebuild"


def _user() -> str:
    """Return who calls: the user's name, or the user's number in a container that knows no names."""
    try:
        return getuser()
    except KeyError:
        return str(os.getuid())


def _require_known(settings: Settings, runs: Sequence[str], retired: Collection[str]) -> None:
    """Fail if a run is neither retired nor in a table; nothing is done then."""
    from lake.retirement import known_runs
    from lake.store.table_store import TableStore

    known = known_runs(TableStore(settings.home)) | {*retired}
    unknown = [run for run in dict.fromkeys(runs) if run not in known]
    if not unknown:
        return
    near = list(dict.fromkeys(one for run in unknown for one in difflib.get_close_matches(run, sorted(known), _NEAR, 0.5)))
    listed = f"; near: {', '.join(near)}" if near else "" if known else "; no export that names a run was read yet"
    fail(
        f"training run {', '.join(map(repr, unknown))}: expected one of the {len(known)} known in {settings.home}, "
        f"found none{listed}. Nothing was changed.",
        Exit.USAGE,
    )


def _next(settings: Settings) -> str:
    if settings.exports_are_sample:
        return "The next `tamiyo run` applies it."
    return "The next rebuild applies it: the sensors of a running `make ui` ask for one within seconds, else call `tamiyo run`."
