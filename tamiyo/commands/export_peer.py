"""Define `tamiyo export-peer`: copy registries and norms for the existing system, which writes to what it loads."""

from pathlib import Path
from typing import Annotated

import typer

from lake.settings import resolve
from tamiyo.commands.options import Home, Result, printing, reported

_EXAMPLES = """
Copy registries and norms for the existing system: plain files without links, in a directory of their own.

Weights are not copied: its network has other widths.

Examples:

    tamiyo export-peer var/peer

    tamiyo export-peer /srv/esper/registries --home var/tamiyo
"""

Place = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export-peer", help=_EXAMPLES)(reported(export_peer))


def export_peer(directory: Place, home: Home = None) -> Result:
    """Exit status 0; 1 if the existing system could not take what there is."""
    from gnn.norms.published import NORMS
    from gnn.registry.peer import export_peer as copy

    where = resolve(home=home).home
    files = [path.name for path in copy(where / "registries", where / NORMS, directory)]
    return Result({"directory": str(directory), "files": files}, printing(f"{len(files)} files in {directory}", *files))
