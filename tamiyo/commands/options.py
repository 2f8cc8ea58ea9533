"""Define options that several commands share, and how a command ends."""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer

from lake.settings import DEFAULT_HOME, ExportsMissing
from lake.store.failures import disk_full
from schemas.errors import StorageError, TamiyoError
from tamiyo.commands.stopping import Stopped, terminable, unstoppable
from tamiyo.terminal import Terminal, write_line

_ECHO: Final = "Exception while writing logger call to event log"


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


@dataclass(frozen=True)
class Result:
    """What a command found: `value` is what `--json` prints, `show` prints it for people; then it ends with `status`."""

    value: Mapping[str, Any]
    show: Callable[[Terminal], None]
    status: Exit = Exit.OK


def printing(*objects: object) -> Callable[[Terminal], None]:
    """Return a `show` that prints each of `objects`: lines and tables."""

    def show(terminal: Terminal) -> None:
        for each in objects:
            terminal.print(each)

    return show


def reported(command: Callable[..., Result]) -> Callable[..., None]:
    """Return the command for Typer, with `--json` as its last option: it prints what `command` returns, as JSON or as text.

    A command that is stopped, raises one of our errors, or can't use a file ends with a message and status, no traceback. The
    message goes to stderr; with `--json` it is the one object on stdout too. A command that prints while it works, such as
    progress, declares `as_json` itself, to stay quiet.
    """
    own = signature(command)

    @wraps(command)
    def wrapped(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
        place = kwargs.get("home")
        if "as_json" in own.parameters:
            kwargs["as_json"] = as_json
        try:
            with terminable(), _DiskFull(place if isinstance(place, Path) else None):
                result = command(*args, **kwargs)
                if as_json:
                    print_json(result.value)
                else:
                    result.show(Terminal())
        except (TamiyoError, OSError, KeyboardInterrupt) as error:
            with unstoppable():
                _report(_message(error), as_json=as_json)
            raise typer.Exit(_status(error)) from None
        raise typer.Exit(result.status)

    option = Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    parameters = [parameter for name, parameter in own.parameters.items() if name != option.name]
    wrapped.__signature__ = own.replace(parameters=[*parameters, option])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**command.__annotations__, option.name: AsJson}
    return wrapped


class _DiskFull:
    """Turn any error in the body that a full disk, or a full stdout, causes into one sentence that names the place."""

    def __init__(self, place: Path | None) -> None:
        self._place = place or Path(os.environ.get("TAMIYO_HOME") or DEFAULT_HOME)

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write out what was printed, and raise StorageError if a full disk is the cause of an error."""
        try:
            sys.stdout.flush()
        except OSError as failure:
            # what is left of it is dropped, or the interpreter reports it again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise StorageError(f"stdout: expected to write to it, found: {failure.strerror}; free some space there") from None
        full = None if error is None else disk_full(error, self._place.absolute())
        if full is not None:
            raise full from None


def _report(message: str, *, as_json: bool) -> None:
    if as_json:
        with suppress(OSError):
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
    refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    advice = "run as the user who owns it, or name another place with --home" if refused else "name another place"
    return f"{error.filename or 'a file'}: expected to read or write it, found: {error.strerror or error}; {advice}"


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

    with warnings.catch_warnings(), redirect_stderr(_WithoutEchoes(sys.stderr)):
        warnings.simplefilter("ignore")
        yield


class _WithoutEchoes:
    """Pass stderr on without Dagster's messages that it can't log a line; the run fails for the same cause, and reports it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write all other text."""
        return len(text) if text.startswith(_ECHO) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
