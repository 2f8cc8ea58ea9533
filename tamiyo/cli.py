"""The `tamiyo` command. Each command is declared in `commands`; heavy imports happen inside it, so that `--help` is instant.

Exit status: 0; 1 if an ERROR check failed or the thing asked for was refused; 2 for bad arguments or no exports root; 130 after
SIGINT, 143 after SIGTERM.
"""

import typer

from tamiyo.commands import (
    alerts,
    backfill,
    bundles,
    coverage,
    doctor,
    evaluate,
    export_peer,
    graph,
    panel,
    record,
    registry,
    rejects,
    retire,
    run,
    serve,
)

app = typer.Typer(
    name="tamiyo",
    help="From exports of training systems to typed graphs, a trained model and its checkpoint bundle.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_COMMANDS = (
    run,
    record,
    coverage,
    rejects,
    retire,
    registry,
    graph,
    bundles,
    evaluate,
    panel,
    alerts,
    doctor,
    serve,
    export_peer,
    backfill,
)
for command in _COMMANDS:
    command.register(app)
