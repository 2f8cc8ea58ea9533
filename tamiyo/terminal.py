"""Print for people: control characters of ids escaped, and nothing cut to a width if stdout is not a terminal."""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from io import TextIOWrapper
from typing import IO, Any, Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from schemas.printable import shown

_WIDE: Final = 1 << 30  # columns; rich lays out what it needs of them


class Terminal(Console):
    """A console without markup and emoji codes, that escapes control characters and what its encoding lacks.

    Only tables are laid out for the width of a terminal. In a pipe or a file nothing is, whatever COLUMNS says.
    A reader that leaves early, such as `head`, ends the output and not the command.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
        if isinstance(self.file, TextIOWrapper):
            self.file.reconfigure(errors="backslashreplace")
        self._narrow = self.file.isatty()
        if not self._narrow:
            self.width = _WIDE

    def print(self, *objects: Any, **options: Any) -> None:
        """Print strings with their control characters escaped, and anything else as rich does."""
        wraps = self._narrow and any(isinstance(each, Table) for each in objects)
        super().print(*(shown(each) if isinstance(each, str) else each for each in objects), soft_wrap=not wraps, **options)

    def on_broken_pipe(self) -> None:
        """Drop what is still to be printed."""
        discard(self.file)


def labelled(label: str, style: str, text: str, indent: str = "") -> Text:
    """Return `text` after a coloured `label`."""
    return Text.assemble(indent, (shown(label), style), " ", shown(text))


def table(*headers: str, rows: Iterable[Sequence[str]], title: str | None = None, right: Collection[str] = ()) -> Table:
    """Return a table of `rows`; columns in `right` are right-justified. Cells fold on a narrow terminal and are never cut."""
    columns = [Column(name, justify="right" if name in right else "left", overflow="fold") for name in headers]
    found = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        found.add_row(*map(shown, row))
    return found


def discard(stream: IO[str]) -> None:
    """Discard what is still written to `stream`: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def write_line(text: str) -> None:
    """Write one line to stdout as it is; for text that cannot hold control characters."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
