"""A second training in a process of its own, beside the first: it only moves that training's checkpoint forward.

Whoever needs its result calls `fit` with the same checkpoint afterwards, which goes on from there: with nothing left to do
where the process finished, and with the rest of the epochs where it did not. The weights are the same in every case.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def alongside(work: Callable[..., object], *arguments: Any, wanted: bool) -> Iterator[Callable[[], None]]:
    """Run `work(*arguments, progress)` in a new process while the body runs; yields a call that waits for its end.

    Nothing is started where it is not `wanted` or this process may have no children. The process ends with the body, and
    by itself when this process is gone.
    """
    possible = wanted and not multiprocessing.current_process().daemon
    process = _start(work, arguments) if possible else None
    try:
        yield process.join if process is not None else _nothing
    finally:
        if process is not None:
            process.terminate()
            process.join()


def _start(work: Callable[..., object], arguments: tuple[Any, ...]) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(work, arguments), daemon=True)
    # the child inherits the mask: Ctrl-C reaches every process of the terminal, and only this one ends its child
    resource_tracker.ensure_running()  # its start unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


def _nothing() -> None:
    pass


def _child(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    work(*arguments, _stop_without_parent)


def _stop_without_parent(_what: str, _done: int, _of: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(1)
