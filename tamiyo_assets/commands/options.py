"""Options that several commands share, and how a command ends."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from schemas.errors import TamiyoError
from tamiyo_assets.commands.stopping import Stopped, terminable, unstoppable
from tamiyo_assets.commands.terminal import Terminal, write_line
from tamiyo_assets.settings import ExportsMissing

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit status of every command."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


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


class Refused(TamiyoError):
    """A command ends with this message and status."""

    def __init__(self, message: str, status: Exit) -> None:
        super().__init__(message)
        self.status = status


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """End a command that is stopped, raises one of our errors, or can't use a file, with a message and status, no traceback.

    The message goes to stderr; with `--json` it is the one object on stdout too.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with terminable():
                command(*args, **kwargs)
        except (TamiyoError, OSError, KeyboardInterrupt) as error:
            with unstoppable():
                _report(_message(error), as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(_status(error)) from None

    return wrapped


def _report(message: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": message})
    Terminal(stderr=True).print(message, style="red")


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return str(error if isinstance(error, Stopped) else Stopped())
    return _named(error) if isinstance(error, OSError) else str(error)


def _status(error: BaseException) -> Exit:
    if isinstance(error, KeyboardInterrupt):
        return Exit(128 + (error.signum if isinstance(error, Stopped) else signal.SIGINT))
    if isinstance(error, Refused):
        return error.status
    return Exit.USAGE if isinstance(error, ExportsMissing) else Exit.REFUSED


def _named(error: OSError) -> str:
    return f"{error.filename or 'a file'}: expected to read or write it, found: {error.strerror or error}; name another place"


def fail(message: str, status: Exit) -> NoReturn:
    """End the command; see `reported`."""
    raise Refused(message, status)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one strict JSON object to stdout."""
    write_line(json.dumps(value, allow_nan=False, default=str, indent=2))


@contextmanager
def quiet_dagster() -> Iterator[None]:
    """Keep Dagster's warnings about its own preview features off the terminal."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
