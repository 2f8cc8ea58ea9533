"""A second training in a process of its own, beside the first: it only moves that training's checkpoint forward.

Whoever needs its result calls `fit` with the same checkpoint afterwards, which goes on from there: with nothing left to do
where the process finished, and with the rest of the epochs where it did not. The weights are the same in every case.
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
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def alongside(work: Callable[..., object], *arguments: Any, wanted: bool) -> Iterator[Callable[[], None]]:
    """Run `work(*arguments, progress)` in a new process while the body runs; yields a call that waits for its end.

    Nothing is started where it is not `wanted` or this process may have no children. The process ends with the body, and
    by itself when this process is gone.
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
    """Start a process in the body that never sees SIGINT; raise one that comes meanwhile after it.

    Ctrl-C reaches every process of a terminal, and only this one ends its child. A child inherits the signal mask; one whose
    start is interrupted would complain that its arguments are cut short.
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
