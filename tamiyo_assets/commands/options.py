"""Options that several commands share, and how a command ends."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from schemas.errors import TamiyoError
from tamiyo_assets.settings import ExportsMissing

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit status of every command."""

    OK = 0
    REFUSED = 1
    USAGE = 2


Home = Annotated[
    Path | None, typer.Option("--home", help="State directory; default `$TAMIYO_HOME`, else `var/tamiyo`.", show_default=False)
]
ExportsRoot = Annotated[
    Path | None,
    typer.Option(
        "--exports",
        help="Exports root `<system>/<contract>/<file>`; default `$TAMIYO_EXPORTS`, else `var/exports`, else the sample.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """End a command that raises one of our errors with its message and status, instead of a traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ExportsMissing as error:
            fail(str(error), Exit.USAGE)
        except TamiyoError as error:
            fail(str(error), Exit.REFUSED)

    return wrapped


def fail(message: str, status: Exit) -> None:
    """Print a message to stderr and end with a status."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one strict JSON object to stdout."""
    typer.echo(json.dumps(value, allow_nan=False, default=str, indent=2))


@contextmanager
def quiet_dagster() -> Iterator[None]:
    """Keep Dagster's warnings about its own preview features off the terminal."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
