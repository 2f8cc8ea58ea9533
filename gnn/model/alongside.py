"""Run a second training in its own process, beside the first: all that it leaves behind is its checkpoint.

To use its result, call `fit` with the same checkpoint afterwards. `fit` goes on from there: it has nothing left to do if the
process finished, and the rest of the epochs if it did not. The weights are the same in every case.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

_PATIENCE_SECONDS = 5.0


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def alongside(work: Callable[..., object], *arguments: Any, wanted: bool) -> Iterator[Callable[[], None]]:
    """Run `work(*arguments, progress)` in a new process while the body runs; yield a function that waits for its end.

    Nothing is started if it is not `wanted`, or if this process may have no children. The process is ended with the body, and
    ends by itself if this process is gone.
    """
    if not wanted or multiprocessing.current_process().daemon:
        yield _nothing
        return
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(work, arguments), daemon=True)
    try:
        with _without_sigint():
            process.start()
        yield process.join
    finally:
        if process.pid is not None:
            process.terminate()
            process.join(_PATIENCE_SECONDS)
            process.kill()  # a process that was started in the background of a shell may ignore SIGTERM, and so does its child
            process.join()


@contextmanager
def _without_sigint() -> Iterator[None]:
    """Block SIGINT while the body starts a process, so that the child never sees it; raise one received meanwhile afterwards.

    Ctrl-C reaches every process of a terminal, but the child must be ended by this process alone. A child inherits the signal
    mask; if its start were interrupted, it would report that its arguments are cut short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    resource_tracker.ensure_running()  # its own start would unblock SIGINT
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)


def _nothing() -> None:
    pass


def _child(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    work(*arguments, _stop_without_parent)


def _stop_without_parent(_what: str, _done: int, _of: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(1)
