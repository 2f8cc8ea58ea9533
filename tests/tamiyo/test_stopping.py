"""Ctrl-C and SIGTERM end any command with one line and the status that shells expect; what was committed goes on later."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tamiyo.commands.stopping import Stopped, leaving, terminable
from tests.exports import part_of

COMMITTED = "interrupted: what was committed stays, and the next `tamiyo run` goes on from there"
RECORDED = "interrupted: hosts that were recorded whole are written, and the same command goes on with the next"


COMMAND = ["-m", "tamiyo"]


# what Python prints of an exception that a signal raised in a destructor, where it can't be handed on
_IGNORED = re.compile(r"^Exception ignored in.*?(?=^(?:interrupted|terminated))", re.DOTALL | re.MULTILINE)


def stopped(
    arguments: list[object], ready: Callable[[], object], signum: int = signal.SIGINT, start: list[str] = COMMAND
) -> tuple[int, str, str]:
    """Start a command, send the signal to all of its processes as a terminal does when it is `ready`; status and output."""
    command = [sys.executable, *start, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, _IGNORED.sub("", err)


@pytest.mark.pipeline
def test_a_run_that_is_interrupted_says_so_and_the_next_one_goes_on(sample: Path, tmp_path: Path) -> None:
    exports, home = part_of(sample, tmp_path / "exports", batches=1), tmp_path / "home"
    run: list[object] = ["run", "--exports", exports, "--home", home]
    ingesting = home / "tables" / "tolaria" / "system_state"
    status, out, err = stopped([*run, "--json"], ingesting.exists)
    assert (status, json.loads(out), err) == (130, {"error": COMMITTED}, f"{COMMITTED}\n")
    ended = stopped(run, (home / "registries" / "current").exists, signal.SIGTERM)
    assert ended == (143, "", f"{COMMITTED.replace('interrupted', 'terminated')}\n")
    listed = subprocess.run(
        [sys.executable, "-m", "tamiyo", "doctor", "--home", home, "--exports", exports], capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_a_recording_that_is_interrupted_says_so(workers: int, tmp_path: Path) -> None:
    record: list[object] = ["record", "--exports", tmp_path, "--hosts", 4, "--workers", workers]
    begun = tmp_path / "simic" / "registry_snapshot"

    def recording() -> bool:
        return begun.exists() and time.time() - begun.stat().st_mtime > 3

    status, _, err = stopped(record, recording)
    assert (status, err) == (130, f"{RECORDED}\n")


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2, 0.4])
def test_an_interrupt_while_modules_are_imported_has_no_traceback(seconds: float, tmp_path: Path) -> None:
    up = tmp_path / "up"
    start = f"from tamiyo.__main__ import main; open({str(up)!r}, 'w').close(); main()"

    def importing() -> bool:
        return up.exists() and time.time() - up.stat().st_mtime > seconds

    status, out, err = stopped(["doctor", "--home", tmp_path / "home"], importing, start=["-c", start])
    assert (status, out, err) == (130, "", "interrupted\n") or (status == 0 and seconds > 0)


def test_a_signal_that_somebody_else_took_is_told_all_the_same() -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with pytest.raises(Stopped, match=r"^interrupted: half$") as told, leaving("half"):
            signal.raise_signal(signal.SIGINT)
        assert told.value.signum == signal.SIGINT
        with pytest.raises(Stopped, match="half"), leaving("half"):
            signal.raise_signal(signal.SIGINT)
            raise ValueError
        with pytest.raises(ValueError, match="own"), leaving("half"):
            raise ValueError("own")
        with leaving("half"):
            pass
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_is_told_apart_and_its_handler_goes() -> None:
    # a run that Dagster executed in this process leaves a handler of its own behind
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Stopped, match=r"^terminated: half$"), terminable(), leaving("half"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_other_threads_leave_signals_alone() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with terminable(), leaving("half"):
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
