"""`make serve`: a Redis, the service and recorded traffic in one directory, for trial; all of it ends together.

`python -m tamiyo.live.trial DIR [EXPORTS]`: a home without a bundle is first built from EXPORTS (default: the sample).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from gnn.bundle.promote import CURRENT
from lake.settings import SAMPLE
from schemas.errors import ServingError, TamiyoError
from tamiyo.terminal import write_line

_TAMIYO: Final = (sys.executable, "-m", "tamiyo")
_GRACE_S: Final = 15.0
_RATE: Final = "10"
PORT: Final = "9310"


class Children:
    """Processes in sessions of their own, so that Ctrl-C reaches us alone and they end in order: the last one first."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], *, quiet: bool = False, **env: str) -> "subprocess.Popen[bytes]":
        """Start a command with variables of its own; `quiet`: without what it prints."""
        return self.add(subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None, **self.apart(env)))

    @staticmethod
    def apart(env: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments of a process that is to be ended with the others."""
        return {"start_new_session": True, "env": os.environ | env}

    def add(self, found: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
        """Take a process that was started `apart`."""
        self._running.append(found)
        return found

    def end(self) -> None:
        """SIGTERM to each, SIGKILL to its whole session if it does not end."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextmanager
def child_processes() -> Iterator[Children]:
    """Yield what starts processes, and end them all."""
    found = Children()
    try:
        yield found
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C leaves nobody behind either
        found.end()


def trial(place: Path, exports: Path) -> None:
    """Run until a signal comes or one of the processes ends; ServingError says which one ended, with what status."""
    program = shutil.which("redis-server")
    if program is None:
        raise ServingError("make serve: expected redis-server on PATH, found none; install Redis")
    home, redis = place.absolute(), place.absolute() / "redis"
    redis.mkdir(parents=True, exist_ok=True)
    url = f"redis://127.0.0.1:{free_port()}"
    with child_processes() as children:
        if not (home / CURRENT).is_symlink():
            write_line(f"{home} has no bundle: building one from {exports}; this takes some minutes, once")
            _finish(children.start([*_TAMIYO, "run", "--home", str(home), "--exports", str(exports)]), "tamiyo run")
        # its data are of this trial alone: packets that an earlier one answered are to be answered again
        options = ("--bind", "127.0.0.1", "--port", url.rpartition(":")[2], "--dir", str(redis), "--save", "")
        bus = children.start([program, *options], quiet=True)
        _reachable(url, bus)
        port = os.environ.get("PORT") or PORT
        serve = [*_TAMIYO, "serve", "--redis", url, "--home", str(home), "--exports", str(home / "exports"), "--port", port]
        serving = children.start(serve)
        sender = [*_TAMIYO, "record", "--oona", url, "--from", str(exports), "--rate", os.environ.get("RATE") or _RATE]
        traffic = children.start(sender)
        write_line(f"Oona is {url}; http://127.0.0.1:{port}/readyz tells when the bundle serves; Ctrl-C ends all of it")
        while bus.poll() is None and serving.poll() is None:
            if traffic.poll() not in (None, 0):
                raise ServingError(f"make serve: expected traffic to be sent, found status {traffic.returncode}")
            time.sleep(0.2)
        ended, what = (bus, "redis-server") if bus.poll() is not None else (serving, "tamiyo serve")
        raise ServingError(f"make serve: expected {what} to go on, found that it ended with status {ended.returncode}")


def _finish(process: "subprocess.Popen[bytes]", what: str) -> None:
    if process.wait() != 0:
        raise ServingError(f"make serve: expected `{what}` to succeed, found status {process.returncode}; see above")


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _reachable(url: str, process: "subprocess.Popen[bytes]") -> None:
    port = int(url.rpartition(":")[2])
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise ServingError(f"make serve: expected redis-server to start on port {port}, found status {process.returncode}")


def stop(signum: int, _: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as a handler of signals."""
    raise KeyboardInterrupt(signum)


def main(arguments: Sequence[str]) -> int:
    """Exit status 130 after Ctrl-C or SIGTERM, 1 if something ended by itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        trial(Path(arguments[0]), Path(arguments[1]) if len(arguments) > 1 else SAMPLE)
    except KeyboardInterrupt:
        write_line("stopped: nothing is left running")
        return 130
    except TamiyoError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
