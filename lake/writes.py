"""Allow one writer at a time: the run tag `tamiyo/writes`, and the lock that a run holds from first to last step.

The tag makes the run queue start one such run at a time; the lock covers what the queue does not see, runs of `tamiyo run` and
of another Dagster instance. The kernel frees the lock when its holder dies.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from lake.durable.publish import ensure_dir

LOCK: Final = ".writes.lock"
WRITES: Final = "tamiyo/writes"
HOME: Final = "tamiyo/home"
EXPORTS: Final = "tamiyo/exports"
HOST: Final = "tamiyo/host"
BOOT_ID: Final = "tamiyo/boot_id"
PID: Final = "tamiyo/pid"
STARTED: Final = "tamiyo/process_started"
PROCESS_OF: Final = "tamiyo/process_of"

WRITES_TAGS: Final[Mapping[str, str]] = {WRITES: "true"}

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STARTTIME = 19  # field of /proc/<pid>/stat, counted from the first one after the name
_POLL_SECONDS = 0.2
_SAY_AGAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of a home: a process, what it does, since when (ISO 8601, UTC)."""

    pid: int
    host: str
    what: str
    since: str

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since})"


def run_tags(home: Path, exports: Path) -> dict[str, str]:
    """Return the tags of a run that reads `exports` and writes to `home`."""
    return {**WRITES_TAGS, HOME: str(home), EXPORTS: str(exports)}


def process_tags(run_id: str) -> dict[str, str]:
    """Return run tags that name this process for ever: host, boot, pid and when the process started.

    Dagster copies the tags of a run to its re-execution, whose process is another one: `PROCESS_OF` names the run.
    """
    pid = os.getpid()
    return {HOST: socket.gethostname(), BOOT_ID: boot_id(), PID: str(pid), STARTED: started(pid), PROCESS_OF: run_id}


def started(pid: int) -> str:
    """Return when a process started, to be compared: clock ticks since boot, elsewhere than on Linux epoch seconds.

    Raises psutil.NoSuchProcess if there is no such process. Epoch seconds would move with the clock of the machine.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return f"{psutil.Process(pid).create_time():.2f}"
    return stat.rpartition(b")")[2].split()[_STARTTIME].decode("ascii")


def boot_id() -> str:
    """Return what differs between two boots of this machine."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


@contextmanager
def hold_writes(home: Path, what: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `home` while the body runs.

    While another process holds it, `waiting` is called with a sentence that names the holder, at once and every minute.
    """
    path = home / LOCK
    ensure_dir(home)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        said = -_SAY_AGAIN_SECONDS
        while not _taken(descriptor):
            if time.monotonic() - said >= _SAY_AGAIN_SECONDS:
                waiting(f"Waiting for {_holder(path) or 'another process'}, which writes to {home}.")
                said = time.monotonic()
            time.sleep(_POLL_SECONDS)
        holder = Holder(os.getpid(), socket.gethostname(), what, datetime.now(UTC).isoformat(timespec="seconds"))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # who comes next must not be told the name of one who has left
    finally:
        os.close(descriptor)


def writer_of(home: Path) -> Holder | None:
    """Return who holds the lock of `home`; None if nobody does or the holder has not said its name yet."""
    path = home / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _taken(descriptor, fcntl.LOCK_SH) else _holder(path)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
