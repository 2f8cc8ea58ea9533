"""Define `tamiyo graph show`: draw one training state's graph."""

from pathlib import Path
from typing import Annotated

import typer

from lake.settings import resolve
from tamiyo.commands.options import Exit, Home, Result, fail, printing, reported

_EXAMPLES = """
Draw the graph of a packet: nodes by type, edges by relation, pale where little was measured.

Examples:

    tamiyo graph show PACKET_ID

    tamiyo graph show PACKET_ID --run RUN_ID --out graph.png
"""

Packet = Annotated[str, typer.Argument(help="packet_id of the training state; `newest` takes the newest of all.")]
Run = Annotated[str | None, typer.Option("--run", help="Its training run, where several have that packet.", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", help="PNG to write; default `<packet id>.png`.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    group = typer.Typer(name="graph", help="Look at the graphs of training states.", no_args_is_help=True)
    group.command("show", help=_EXAMPLES)(reported(show))
    # without a callback Typer drops the name of a group's only command
    group.callback()(_group)
    app.add_typer(group)


def _group() -> None:
    """Look at the graphs of training states."""


def show(packet: Packet, run: Run = None, out: Out = None, home: Home = None) -> Result:
    """Exit status 0; 1 if there is no dataset yet or no such packet."""
    from gnn.graph.dataset import GraphDataset
    from gnn.graph.picture import picture_of
    from lake.durable.publish import publish_file

    dataset = GraphDataset.open(resolve(home=home).home)
    if not dataset.shards:
        fail("graph dataset: expected one, found none; run `tamiyo run` first", Exit.REFUSED)
    numbers = dataset.find(packet, run)
    if len(numbers) != 1:
        runs = ", ".join(sorted({dataset.keys["training_run_id"][number].as_py() for number in numbers[:10]}))
        found = f"{len(numbers)} of them, choose with --run: {runs}" if numbers else "none"
        fail(f"packet {packet!r}: expected one graph, found {found}", Exit.REFUSED)
    path = out or Path(f"{packet.replace('/', '_')}.png")
    publish_file(path.absolute(), picture_of(dataset, numbers[0]))
    return Result({"path": str(path), **dataset.keys.slice(numbers[0], 1).to_pylist()[0]}, printing(str(path)))
