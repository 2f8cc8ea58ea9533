"""Allow one writer at a time: the run tag `tamiyo/writes`, and the lock that a run holds from first to last step.

The tag makes the run queue start one such run at a time. The lock covers what the queue does not see: runs of `tamiyo run` and
of other Dagster instances. It is freed if its holder dies. Each run of a backfill writes to one run bucket: it shares the lock
of the home, and holds the lock of its bucket.
"""

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

from lake.durable.locks import PathLock, is_free
from lake.durable.publish import ensure_dir
from schemas.buckets import BUCKETS

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
# values of the tag: the whole home, or one run bucket
WRITERS: Final = ("true", *(f"bucket-{bucket}" for bucket in range(BUCKETS)))

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STARTTIME = 19  # field of /proc/<pid>/stat, counted from the first one after the name
_POLL_SECONDS = 0.2
_SAY_AGAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Holder:
    """The holder of a home's lock: its process, what it does, and since when (ISO 8601, UTC)."""

    pid: int
    host: str
    what: str
    since: str

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since})"


def run_tags(home: Path, exports: Path) -> dict[str, str]:
    """Return the tags of a run that reads `exports` and writes to `home`."""
    return {**WRITES_TAGS, HOME: str(home), EXPORTS: str(exports)}


def bucket_tags(bucket: int) -> dict[str, str]:
    """Return the tags of a run that writes to one run bucket only."""
    return {WRITES: f"bucket-{bucket}"}


def bucket_in(tags: Mapping[str, str]) -> int | None:
    """Return the run bucket to which a run with these tags writes; None if it writes to the whole home."""
    name, _, number = tags.get(WRITES, "").partition("-")
    return int(number) if name == "bucket" else None


def process_tags(run_id: str) -> dict[str, str]:
    """Return run tags that identify this process uniquely: host, boot, pid and start time.

    Dagster copies a run's tags to its re-execution, which has another process, so `PROCESS_OF` names the run.
    """
    pid = os.getpid()
    return {HOST: socket.gethostname(), BOOT_ID: boot_id(), PID: str(pid), STARTED: started(pid), PROCESS_OF: run_id}


def started(pid: int) -> str:
    """Return the start time of a process, for comparison only: clock ticks since boot on Linux, epoch seconds elsewhere.

    Epoch seconds would move if the machine's clock is set. Raises psutil.NoSuchProcess if there is no such process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return f"{psutil.Process(pid).create_time():.2f}"
    return stat.rpartition(b")")[2].split()[_STARTTIME].decode("ascii")


def boot_id() -> str:
    """Return an id of the current boot of this machine."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


@contextmanager
def hold_writes(home: Path, what: str, waiting: Callable[[str], None], *, bucket: int | None = None) -> Iterator[None]:
    """Hold the right to write to `home`, or only to one run bucket of it, while the body runs.

    Holders of different buckets run in parallel. While another process is in the way, call `waiting`, at once and every minute,
    with a sentence that names it.
    """
    ensure_dir(home)
    whole = PathLock(home / LOCK, shared=bucket is not None)
    locks = [whole] if bucket is None else [whole, PathLock(bucket_lock(home, bucket))]
    try:
        said = -_SAY_AGAIN_SECONDS
        for held in locks:
            while not held.take_if_free():
                if time.monotonic() - said >= _SAY_AGAIN_SECONDS:
                    waiting(f"Waiting for {writer_of(home) or 'another process'}, which writes to {home}.")
                    said = time.monotonic()
                time.sleep(_POLL_SECONDS)
        holder = Holder(os.getpid(), socket.gethostname(), what, datetime.now(UTC).isoformat(timespec="seconds"))
        file = locks[-1].descriptor
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(holder)).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)  # the next process must not see the name of a holder that has left
    finally:
        for held in reversed(locks):
            held.close()


def bucket_lock(home: Path, bucket: int) -> Path:
    """Return the lock file of the writer of one run bucket."""
    return home / f"{LOCK}.{bucket}"


def writer_of(home: Path) -> Holder | None:
    """Return who writes to `home` or one of its buckets; None if nobody does or the holder has not written its name yet."""
    for path in (home / LOCK, *(bucket_lock(home, bucket) for bucket in range(BUCKETS))):
        if path.exists() and not is_free(path):
            return _holder(path)
    return None


def _holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
