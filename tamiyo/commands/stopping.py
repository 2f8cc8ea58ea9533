"""Handle Ctrl-C and SIGTERM: a stopped command says so, and ends with the status that shells expect."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(KeyboardInterrupt):
    """A signal stopped the command; `str` says what state it leaves."""

    def __init__(self, signum: int = signal.SIGINT, state: str = "") -> None:
        super().__init__(f"{_WORDS[signal.Signals(signum)]}{': ' if state else ''}{state}")
        self.signum = signum


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Stopped` for SIGTERM in the body, so that what is complete is written; SIGINT raises by itself."""
    with _handled(signal.SIGTERM, _stop, only_default=True):
        yield


@contextmanager
def unstoppable() -> Iterator[None]:
    """Ignore SIGINT in the body: a second Ctrl-C does not cost the message about the first."""
    with _handled(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _handled(signum: int, handler: Any, *, only_default: bool = False) -> Iterator[None]:
    """Handle a signal with `handler` in the body; only the main thread can do that."""
    before = signal.getsignal(signum)
    if threading.current_thread() is not threading.main_thread() or (only_default and before != signal.SIG_DFL):
        yield
        return
    signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


def _stop(signum: int, _: FrameType | None) -> NoReturn:
    raise Stopped(signum)


@contextmanager
def leaving(state: str) -> Iterator[None]:
    """Raise `Stopped`, which says `state`, if SIGINT or SIGTERM came in the body.

    This works even if other code took the signal: Dagster replaces the handlers, and ends its run as failed without an
    exception.
    """
    with _received() as received:
        try:
            yield
        except BaseException as error:
            signals = received() or [signal.SIGINT] * isinstance(error, KeyboardInterrupt)
            if signals:
                raise Stopped(signals[0], state) from None
            raise
        signals = received()
        if signals:
            raise Stopped(signals[0], state)


@contextmanager
def _received() -> Iterator[Callable[[], list[int]]]:
    """Yield a call that returns the signals of `_WORDS` that came since the last one, whatever their handlers are."""
    if threading.current_thread() is not threading.main_thread():
        yield list
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def received() -> list[int]:
        try:
            return [number for number in os.read(reader, 4096) if number in _WORDS]
        except BlockingIOError:
            return []

    try:
        yield received
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
