"""Run `make serve`: a Redis, the service and recorded traffic in one directory, for trial; all of it ends together.

`python -m tamiyo.live.trial DIR [EXPORTS]`: a home without a bundle is first built from EXPORTS (default: the sample).
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gnn.bundle.promote import CURRENT
from lake.settings import SAMPLE
from schemas.errors import ServingError
from tamiyo.live.processes import TAMIYO, children, finish, start_redis, status_of
from tamiyo.terminal import write_line

_RATE: Final = "10"
PORT: Final = "9310"


def trial(place: Path, exports: Path) -> None:
    """Run until a signal comes or a process ends. Raises ServingError with the process that ended and its status."""
    home = place.absolute()
    with children() as started:
        url, bus = start_redis(started, home / "redis")
        if not (home / CURRENT).is_symlink():
            write_line(f"{home} has no bundle: building one from {exports}; this takes some minutes, once")
            finish(started.start([*TAMIYO, "run", "--home", str(home), "--exports", str(exports)]), "tamiyo run")
        port = os.environ.get("PORT") or PORT
        serve = [*TAMIYO, "serve", "--redis", url, "--home", str(home), "--exports", str(home / "exports"), "--port", port]
        serving = started.start(serve)
        sender = [*TAMIYO, "record", "--oona", url, "--from", str(exports), "--rate", os.environ.get("RATE") or _RATE]
        traffic = started.start(sender)
        write_line(f"Oona is {url}; http://127.0.0.1:{port}/readyz tells when the bundle serves; Ctrl-C ends all of it")
        while bus.poll() is None and serving.poll() is None:
            if traffic.poll() not in (None, 0):
                raise ServingError(f"expected traffic to be sent, found status {traffic.returncode}")
            time.sleep(0.2)
        ended, what = (bus, "redis-server") if bus.poll() is not None else (serving, "tamiyo serve")
        raise ServingError(f"expected {what} to go on, found that it ended with status {ended.returncode}")


def main(arguments: Sequence[str]) -> int:
    """Run the trial; return exit status 130 after Ctrl-C or SIGTERM, 1 if something ended by itself."""
    exports = Path(arguments[1]) if len(arguments) > 1 else SAMPLE
    return status_of(lambda: trial(Path(arguments[0]), exports), "make serve")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
