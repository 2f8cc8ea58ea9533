"""Isolate records that make a decoder raise, so that they cost no neighbour."""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from schemas.decode.shape.collector import Collector

_PANIC: Final = "PanicException"  # raised by Rust libraries; not a subclass of Exception


class Isolated:
    """A context in which an error (not an interruption) ends only the block, and is kept in `error`.

    Errors of the types in `passing` are raised.
    """

    def __init__(self, *passing: type[Exception]) -> None:
        self._passing = passing
        self.error: BaseException | None = None

    def __enter__(self) -> "Isolated":
        """Return this context."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keep the error and suppress it, unless it is an interruption or `passing`."""
        if error is None or isinstance(error, self._passing):
            return False
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            return False
        self.error = error
        return True

    @property
    def text(self) -> str:
        """The error as one line: its type and what it says."""
        text = " ".join(str(self.error).split())[:300]
        return f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__


def decode_each(
    fresh: Callable[[], Collector],
    count: int,
    decode: Callable[[Collector, int, int], None],
    reject: Callable[[Collector, int, str], None],
    *passing: type[Exception],
) -> Collector:
    """Decode rows 0..count at once; if that raises, decode halves of them, down to single rows; reject those that raise.

    `decode(collector, first, last)` decodes a part of the rows, `reject(collector, row, error)` rejects one.
    """
    whole: Collector | None = None
    pending = [(0, count)]
    while pending:
        first, last = pending.pop()
        trial = fresh()
        with Isolated(*passing) as attempt:
            decode(trial, first, last)
        if attempt.error is not None:
            trial = fresh()
            if last - first > 1:
                middle = (first + last) // 2
                pending += [(middle, last), (first, middle)]
                continue
            reject(
                trial, first, f"expected a record that can be decoded, found one at which the decoder failed: {attempt.text}"
            )
        if whole is None:
            whole = trial
        else:
            whole.absorb(trial)
    return fresh() if whole is None else whole
