"""A process beside this one never sees Ctrl-C; an interrupt while it starts is raised after it, and ends it."""

import multiprocessing
import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from gnn.model.alongside import alongside


def note_mask(path: Path, _progress: object) -> None:
    """Write which signals are blocked, then go on for ever."""
    path.with_suffix(".part").write_text(" ".join(str(int(each)) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    path.with_suffix(".part").rename(path)
    time.sleep(600)


def test_the_child_has_sigint_blocked_and_this_process_has_not(tmp_path: Path) -> None:
    with alongside(note_mask, tmp_path / "mask", wanted=True):
        limit = time.monotonic() + 120
        while not (tmp_path / "mask").exists():
            assert time.monotonic() < limit and multiprocessing.active_children()
            time.sleep(0.05)
        assert signal.SIGINT in map(int, (tmp_path / "mask").read_text().split())
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not multiprocessing.active_children()


def test_an_interrupt_while_it_starts_is_raised_after_it_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(BaseException):
        pass

    def stop(_number: int, _: FrameType | None) -> NoReturn:
        raise Interrupted

    popen = multiprocessing.get_context("spawn").Process._Popen
    started: list[int] = []

    def interrupted(process: object) -> object:
        signal.raise_signal(signal.SIGINT)
        found = popen(process)
        started.append(found.pid)
        return found

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "_Popen", staticmethod(interrupted))
    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(Interrupted), alongside(note_mask, tmp_path / "mask", wanted=True):
            raise AssertionError("the body began")
    finally:
        signal.signal(signal.SIGINT, before)
    assert started
    assert not multiprocessing.active_children()
