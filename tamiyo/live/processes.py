"""Start the processes of a trial: a Redis, the service, `tamiyo` commands; they end in order, and none is left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import BinaryIO, Final

from schemas.errors import ServingError, TamiyoError
from tamiyo.terminal import write_line

TAMIYO: Final = (sys.executable, "-m", "tamiyo")
_GRACE_S: Final = 15.0


class Children:
    """Processes in sessions of their own, so that Ctrl-C reaches us alone and they end in order: the last one first."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        command: Sequence[str],
        *,
        quiet: bool = False,
        output: BinaryIO | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> "subprocess.Popen[bytes]":
        """Start one; `quiet` drops what it prints, `output` takes it, `env` is added to our environment."""
        out = subprocess.DEVNULL if quiet else output
        return self.add(subprocess.Popen(command, stdout=out, start_new_session=True, env=os.environ | dict(env)))

    def add(self, found: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
        """Take one that was started in a session of its own."""
        self._running.append(found)
        return found

    def end(self) -> None:
        """Send SIGTERM to each, and SIGKILL to its whole session if it does not end."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextmanager
def children() -> Iterator[Children]:
    """Yield processes that end with the body."""
    found = Children()
    try:
        yield found
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C leaves nobody behind either
        found.end()


def start_redis(started: Children, folder: Path) -> tuple[str, "subprocess.Popen[bytes]"]:
    """Start a Redis of our own on a free port, which keeps nothing; return its URL and process.

    Raises ServingError if there is no Redis to start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ServingError("expected redis-server on PATH, found none; install Redis")
    folder.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    # its data are of this trial alone: packets that an earlier one answered are to be answered again
    options = ("--bind", "127.0.0.1", "--port", port, "--dir", str(folder), "--save", "")
    found = started.start([program, *options], quiet=True)
    _reachable(int(port), found)
    return f"redis://127.0.0.1:{port}", found


def finish(process: "subprocess.Popen[bytes]", what: str, expected: Sequence[int] = (0,)) -> None:
    """Wait for it. Raises ServingError if it ends with another status."""
    if process.wait() not in expected:
        raise ServingError(f"expected `{what}` to succeed, found status {process.returncode}; see above")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _reachable(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise ServingError(f"expected redis-server to start on port {port}, found status {process.returncode}")


def status_of(work: Callable[[], None], name: str) -> int:
    """Do `work`; return exit status 0 after it, 130 after Ctrl-C or SIGTERM, 1 after an error, which is printed behind `name`.

    Both signals raise KeyboardInterrupt, so that what `work` started ends too.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        work()
    except KeyboardInterrupt:
        write_line("stopped: nothing is left running")
        return 130
    except TamiyoError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0


def _stop(signum: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)
