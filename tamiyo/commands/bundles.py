"""Define `tamiyo preflight`, `promote` and `rollback`: check a bundle, serve it, serve an older one again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lake.settings import resolve
from tamiyo.commands.options import Exit, Home, Result, printing, reported
from tamiyo.terminal import Terminal

if TYPE_CHECKING:
    from gnn.bundle import PromotionReport

_PREFLIGHT = """
Check a bundle against the running code and, where one serves, against the serving bundle; list every mismatch.

Examples:

    tamiyo preflight var/tamiyo/current

    tamiyo preflight BUILD_ID --against var/tamiyo/current --json
"""
_PROMOTE = """
Make a bundle the serving one, after preflight and the quality gates.

Examples:

    tamiyo promote BUILD_ID

    tamiyo promote BUILD_ID --waive choice --reason "first model, reviewed by hand"
"""
_ROLLBACK = """
Serve an older bundle again: the one before, or the one that is named.

Examples:

    tamiyo rollback

    tamiyo rollback BUILD_ID
"""

BuildId = Annotated[str, typer.Argument(help="The bundle's build id, or its beginning.")]
OlderBuild = Annotated[str | None, typer.Argument(help="The bundle to serve again; the one before where none is named.")]
Bundle = Annotated[Path, typer.Argument(help="The bundle's directory, or its build id in the home, or its beginning.")]
Against = Annotated[Path | None, typer.Option("--against", help="A serving bundle to compare with.", show_default=False)]
Waive = Annotated[list[str] | None, typer.Option("--waive", help="A gate to waive; may be repeated.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Why the gates are waived; recorded.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("preflight", help=_PREFLIGHT)(reported(preflight))
    app.command("promote", help=_PROMOTE)(reported(promote))
    app.command("rollback", help=_ROLLBACK)(reported(rollback))


def preflight(bundle: Bundle, against: Against = None, home: Home = None) -> Result:
    """Exit status 0 if the bundle is clean; 1 if it is not."""
    from gnn.bundle import bundle_path, read_bundle
    from gnn.bundle import preflight as check
    from lake.builds import whole_build_id

    where = resolve(home=home).home
    if not bundle.exists() and bundle.name == str(bundle):
        bundle = bundle_path(where, whole_build_id(where, bundle.name))
    report = check(bundle, read_bundle(against) if against else None)
    if report.clean:
        return Result(report.to_object(), printing(f"{bundle}: clean"))

    def show(terminal: Terminal) -> None:
        for mismatch in report.mismatches:
            terminal.print(str(mismatch), style="red")

    return Result(report.to_object(), show, Exit.REFUSED)


def promote(build_id: BuildId, home: Home = None, waive: Waive = None, reason: Reason = "") -> Result:
    """Exit status 0 if the bundle serves now; 1 if it was refused."""
    from gnn.bundle import GateConfig
    from gnn.bundle import promote as move
    from lake.builds import whole_build_id
    from lake.store.table_store import TableStore
    from tamiyo_assets.champion import challenge_serving

    settings = resolve(home=home)
    whole = whole_build_id(settings.home, build_id)
    challenge_serving(settings.home, TableStore(settings.home), whole)
    config = GateConfig.model_validate(settings.gates)
    return _moved(move(settings.home, whole, dict.fromkeys(waive or [], reason), config))


def rollback(build_id: OlderBuild = None, home: Home = None) -> Result:
    """Exit status 0 if the older bundle serves now; 1 if it was refused."""
    from gnn.bundle import rollback as move
    from lake.builds import whole_build_id

    where = resolve(home=home).home
    return _moved(move(where, whole_build_id(where, build_id) if build_id else None))


def _moved(report: "PromotionReport") -> Result:
    state = "serves now" if report.changed else "was serving already"
    line = f"{report.build_id} {state}; before: {report.previous or 'none'}"
    return Result(report.to_object(), printing(line, *(f"  gate {gate} waived: {why}" for gate, why in report.waived.items())))
