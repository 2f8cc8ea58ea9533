"""The lock of a home: one process at a time, whose name is known, and which the kernel frees when that process dies."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from lake import writes
from lake.writes import (
    BOOT_ID,
    HOST,
    LOCK,
    PID,
    PROCESS_OF,
    STARTED,
    WRITERS,
    WRITES,
    WRITES_TAGS,
    bucket_in,
    bucket_tags,
    hold_writes,
    process_tags,
    started,
    writer_of,
)

HOLD = """
import sys
from pathlib import Path
from lake.writes import hold_writes
with hold_writes(Path(sys.argv[1]), sys.argv[2], lambda line: print(line, flush=True)):
    print("holds", flush=True)
    sys.stdin.read()
print("left", flush=True)
"""


@contextmanager
def other_process(home: Path, what: str = "run abc of rebuild") -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lock and keeps it until its input ends."""
    command = [sys.executable, "-c", HOLD, str(home), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def test_the_holder_is_named_while_it_holds_the_lock_and_not_before_or_after(tmp_path: Path) -> None:
    assert writer_of(tmp_path / "absent") is None
    with other_process(tmp_path / "home") as child:
        assert line(child) == "holds"
        holder = writer_of(tmp_path / "home")
        assert holder is not None
        assert (holder.pid, holder.host, holder.what) == (child.pid, socket.gethostname(), "run abc of rebuild")
        age = datetime.now(UTC) - datetime.fromisoformat(holder.since)
        assert -1.0 <= age.total_seconds() < 60.0
        assert str(child.pid) in str(holder) and holder.since in str(holder)
        child.communicate("")
    assert writer_of(tmp_path / "home") is None
    assert (tmp_path / "home" / LOCK).read_bytes() == b"", "the next to wait must not be told of one that left"


def test_a_second_process_waits_is_told_at_once_for_whom_and_goes_on_when_the_first_ends(tmp_path: Path) -> None:
    told: list[str] = []
    with other_process(tmp_path) as child:
        assert line(child) == "holds"
        begun, held = time.monotonic(), threading.Event()

        def second() -> None:
            with hold_writes(tmp_path, "second", lambda text: told.append(f"{time.monotonic() - begun < 5.0} {text}")):
                held.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not held.wait(1.0), "two hold the lock of one home"
        assert told == [f"True Waiting for {writer_of(tmp_path)}, which writes to {tmp_path}."]
        child.communicate("")
        assert held.wait(10.0)
        thread.join()


def test_the_wait_is_told_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "_SAY_AGAIN_SECONDS", 0.3)
    told: list[str] = []
    with other_process(tmp_path) as child:
        assert line(child) == "holds"
        threading.Timer(1.5, child.kill).start()
        with hold_writes(tmp_path, "second", told.append):
            pass
    assert len(told) >= 3 and len(set(told)) == 1


def test_the_lock_is_free_at_once_when_its_holder_is_killed(tmp_path: Path) -> None:
    with other_process(tmp_path) as child:
        assert line(child) == "holds"
        child.kill()
        child.wait()
        assert writer_of(tmp_path) is None
        with hold_writes(tmp_path, "next", lambda text: pytest.fail(text)):
            held = writer_of(tmp_path)
            assert held is not None and (held.pid, held.what) == (os.getpid(), "next")


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="own"), hold_writes(tmp_path, "one", pytest.fail):
        raise ValueError("own")
    assert writer_of(tmp_path) is None


def test_homes_do_not_wait_for_one_another(tmp_path: Path) -> None:
    with hold_writes(tmp_path / "a", "a", pytest.fail), hold_writes(tmp_path / "b", "b", pytest.fail):
        found = writer_of(tmp_path / "b")
        assert found is not None and found.what == "b"


def test_a_holder_whose_name_is_torn_is_waited_for_all_the_same(tmp_path: Path) -> None:
    told: list[str] = []
    with other_process(tmp_path) as child:
        assert line(child) == "holds"
        (tmp_path / LOCK).write_bytes(b'{"pid": 1, "ho')
        assert writer_of(tmp_path) is None
        threading.Timer(0.5, child.kill).start()
        with hold_writes(tmp_path, "second", told.append):
            pass
    assert told == [f"Waiting for another process, which writes to {tmp_path}."]


def test_tags_name_this_process_of_that_run() -> None:
    tags = process_tags("run-1")
    assert tags[HOST] == socket.gethostname()
    assert (tags[PID], tags[PROCESS_OF]) == (str(os.getpid()), "run-1")
    assert tags[STARTED] == started(os.getpid())
    assert tags == process_tags("run-1"), "read twice, the same"


def test_a_start_time_tells_two_processes_apart_and_a_gone_one_has_none(tmp_path: Path) -> None:
    with other_process(tmp_path) as child:
        line(child)
        assert started(child.pid) == started(child.pid) != started(os.getpid())
        pid = child.pid
    with pytest.raises(psutil.NoSuchProcess):
        started(pid)


def test_the_boot_id_is_stable_and_has_a_substitute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writes.boot_id() == writes.boot_id() == process_tags("r")[BOOT_ID] != ""
    monkeypatch.setattr(writes, "_BOOT_ID", tmp_path / "absent")
    assert writes.boot_id() == str(int(psutil.boot_time()))


def test_buckets_are_written_beside_each_other_and_never_beside_the_whole_home(tmp_path: Path) -> None:
    told: list[str] = []
    with (
        hold_writes(tmp_path, "third bucket", pytest.fail, bucket=3),
        hold_writes(tmp_path, "fifth bucket", pytest.fail, bucket=5),
    ):
        for bucket, named in ((3, "third"), (None, "third")):
            with pytest.raises(Waited), hold_writes(tmp_path, "late", _give_up(told), bucket=bucket):
                pytest.fail("two writers at once")
            assert told[-1].startswith(f"Waiting for {named} bucket (process {os.getpid()} ")
    assert writer_of(tmp_path) is None
    with hold_writes(tmp_path, "whole", pytest.fail):
        with pytest.raises(Waited), hold_writes(tmp_path, "late", _give_up(told), bucket=5):
            pytest.fail("a bucket beside the whole home")
        assert told[-1].startswith("Waiting for whole ")
    with hold_writes(tmp_path, "fifth bucket", pytest.fail, bucket=5):
        holder = writer_of(tmp_path)
        assert holder is not None and holder.what == "fifth bucket"


class Waited(Exception):
    """Raised in place of waiting."""


def _give_up(told: list[str]) -> Callable[[str], None]:
    def waiting(text: str) -> None:
        told.append(text)
        raise Waited

    return waiting


def test_tags_of_a_bucket_tell_which_one() -> None:
    assert [bucket_in(tags) for tags in (bucket_tags(0), bucket_tags(15), WRITES_TAGS, {})] == [0, 15, None, None]
    assert {bucket_tags(bucket)[WRITES] for bucket in range(16)} | {WRITES_TAGS[WRITES]} == {*WRITERS}
