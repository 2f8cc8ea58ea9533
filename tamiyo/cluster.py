"""Run `make cluster`: PostgreSQL, Redis, workers, daemon and webserver as plain processes on one machine, for trial and CI.

`python -m tamiyo.cluster DIR [EXPORTS]` keeps everything in DIR; without EXPORTS the home reads the committed sample. A process
that ends by itself is started again, as a service manager would do; all of them end together.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from lake.durable.publish import publish_file
from schemas.errors import StorageError
from tamiyo.live.processes import Children, children, free_port, status_of
from tamiyo.terminal import write_line

DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
ENVIRONMENT: Final = "environment"  # file of shell assignments, for commands in another shell
PIDS: Final = "pids"
WORKERS: Final = "TAMIYO_WORKERS"  # number of workers, one process each; two if unset
_STARTS: Final = 20  # of one process; one that ends that often is itself at fault
_RUN: Final = (sys.executable, "-W", "ignore", "-m")


@dataclass
class _Service:
    """One process that is kept going: how it is started, as whom, and how often it was."""

    name: str
    command: Sequence[str]
    given: bytes = b""
    user: Mapping[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0


def cluster(place: Path, exports: Path | None) -> None:
    """Run until a signal comes. Raises StorageError if a program is missing or a process does not stay up."""
    place = place.absolute()
    redis = shutil.which("redis-server")
    if redis is None:
        raise StorageError("expected redis-server on PATH, found none; install Redis")
    place.mkdir(parents=True, exist_ok=True)
    (place / "shared").mkdir(exist_ok=True)
    server, url, user = postgres(place)
    broker = {"port": str(free_port()), "password": secrets.token_urlsafe(24)}
    port = os.environ.get("PORT") or str(free_port())
    workers = _workers()
    environment = _environment(place, exports, workers, url, f"redis://:{broker['password']}@127.0.0.1:{broker['port']}/0")
    services = [
        _Service("postgres", server, user=user),
        _Service("redis", (redis, "-"), _redis(place, **broker)),
        *(_Service(f"worker-{number}", _worker(number)) for number in range(1, workers + 1)),
        _Service("daemon", (*_RUN, "dagster._daemon", "run", "--workspace", str(DEPLOY / "workspace.yaml"))),
        _Service(
            "webserver",
            (*_RUN, "dagster_webserver", "--workspace", str(DEPLOY / "workspace.yaml"), "--port", port, "--host", "127.0.0.1"),
        ),
    ]
    with children() as started:
        logs = place / "logs"
        logs.mkdir(exist_ok=True)
        for service in services:
            _start(started, service, logs, environment)
            if service.name == "postgres":
                await_database(url)
            if service.name == "redis":
                _instance(place, environment)
        _note(place, environment, services)
        write_line(f"http://127.0.0.1:{port} is the UI; in another shell: set -a; . {place / ENVIRONMENT}; tamiyo backfill")
        while True:
            time.sleep(0.5)
            for service in services:
                if service.process is not None and service.process.poll() is not None:
                    write_line(f"{service.name} ended with status {service.process.returncode}; it is started again")
                    _start(started, service, logs, environment)
                    _note(place, environment, services)


def _start(started: Children, service: _Service, logs: Path, environment: Mapping[str, str]) -> None:
    if service.starts == _STARTS:
        raise StorageError(f"expected {service.name} to go on, found {_STARTS} ends; see {logs / service.name}.log")
    service.starts += 1
    with TemporaryFile() as given, (logs / f"{service.name}.log").open("ab") as log:
        given.write(service.given)
        given.seek(0)
        process = subprocess.Popen(
            service.command,
            stdin=given,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | dict(environment),
            **service.user,
        )
    service.process = started.add(process)


def _worker(number: int) -> tuple[str, ...]:
    return (
        *(*_RUN, "celery", "--app", "tamiyo_assets.cluster.workers", "worker", "--queues", "rebuild,training"),
        *("--concurrency", "1", "--hostname", f"worker-{number}@%h", "--loglevel", "INFO"),
    )


def _workers() -> int:
    """Return the number of workers. Raises StorageError if it is not a positive number."""
    found = os.environ.get(WORKERS, "2")
    if not found.isdecimal() or int(found) < 1:
        raise StorageError(f"{WORKERS}: expected a number of workers, 1 or more, found {found!r}")
    return int(found)


def _environment(place: Path, exports: Path | None, workers: int, url: str, broker: str) -> dict[str, str]:
    """Return the environment of every process of the cluster."""
    named = {} if exports is None else {"TAMIYO_EXPORTS": str(exports.absolute())}
    return named | {
        "TAMIYO_POSTGRES": url,
        "TAMIYO_BROKER": broker,
        WORKERS: str(workers),
        "TAMIYO_SHARED": str(place / "shared"),
        "TAMIYO_HOME": str(place / "home"),
        "DAGSTER_HOME": str(place / "dagster"),
        "OMP_NUM_THREADS": "1",
    }


def _note(place: Path, environment: Mapping[str, str], services: Sequence[_Service]) -> None:
    """Write down how to reach the cluster, for its owner alone, and the processes by name."""
    publish_file(place / ENVIRONMENT, "".join(f"{name}='{value}'\n" for name, value in environment.items()).encode())
    (place / ENVIRONMENT).chmod(0o600)
    pids = [f"{one.name} {one.process.pid}\n" for one in services if one.process is not None]
    publish_file(place / PIDS, "".join(pids).encode())


def _redis(place: Path, *, port: str, password: str) -> bytes:
    """Return the configuration of a Redis that keeps its tasks over a restart; pass it on standard input, to keep it secret."""
    folder = place / "redis"
    folder.mkdir(exist_ok=True)
    return f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\nsave ""\nappendonly yes\n'.encode()


def postgres(place: Path) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    """Make a database cluster if there is none; return the server's command, its URL, and the arguments with its user."""
    folder, password = place / "postgres", place / "postgres.password"
    user = _unprivileged()
    if not (folder / "PG_VERSION").exists():
        publish_file(password, f"{secrets.token_urlsafe(24)}\n".encode())
        folder.mkdir(exist_ok=True)
        if user:
            os.chown(folder, user["user"], user["group"])
            os.chown(password, user["user"], user["group"])
        password.chmod(0o600)
        made = subprocess.run(
            [_program("initdb"), "--pgdata", folder, "--username", "tamiyo", "--pwfile", password, "--encoding", "UTF8",
             "--no-locale", "--auth", "scram-sha-256"],
            capture_output=True, text=True, check=False, cwd="/", **user,
        )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(folder)
            raise StorageError(f"expected initdb to make {folder}, found: {made.stderr.strip()}")
    port = free_port()
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    command = (_program("postgres"), "-D", str(folder), *(f"--{name}={value}" for name, value in options.items()))
    return command, f"postgresql+psycopg2://tamiyo:{password.read_text().strip()}@127.0.0.1:{port}/postgres", user


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL: on PATH, else the newest in Debian's directories."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        raise StorageError(f"expected {name} on PATH, found none; install PostgreSQL")
    return found


def _unprivileged() -> dict[str, Any]:
    """Return arguments that start a process as another user, since PostgreSQL refuses root; none if we are not root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise StorageError("expected a user postgres or nobody for PostgreSQL, found none; run it as a user, not root")


def await_database(url: str) -> None:
    """Wait until PostgreSQL answers."""
    from lake.durable.locks import DatabaseLock

    for left in range(60, -1, -1):
        try:
            DatabaseLock(url.replace("+psycopg2", ""), "tamiyo.cluster").close()
            return
        except StorageError:
            if left == 0:
                raise
            time.sleep(0.5)


def _instance(place: Path, environment: Mapping[str, str]) -> None:
    """Make the Dagster instance in one process, before many open it."""
    home = place / "dagster"
    home.mkdir(exist_ok=True)
    publish_file(home / "dagster.yaml", (DEPLOY / "dagster.yaml").read_bytes())
    command = [*_RUN, "tamiyo_assets.instance", str(home)]
    if subprocess.run(command, env=os.environ | dict(environment), check=False).returncode != 0:
        raise StorageError(f"expected the instance in {home} to open, found an error; see above")


def main(arguments: Sequence[str]) -> int:
    """Run the cluster; return exit status 130 after Ctrl-C or SIGTERM, 1 if a process did not stay up."""
    exports = Path(arguments[1]) if len(arguments) > 1 else None
    return status_of(lambda: cluster(Path(arguments[0]), exports), "make cluster")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
