"""A PostgreSQL of a test, where one can be started."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tamiyo.cluster import await_database, postgres
from tests.components import program, required


def require_postgres(purpose: str) -> None:
    """Skip the test, or fail it in CI, if there is no PostgreSQL or no client for it."""
    if next(Path("/usr/lib/postgresql").glob("*/bin/postgres"), None) is None:
        program("postgres", purpose=purpose)
    required(find_spec("psycopg2"), f"{purpose} needs psycopg2; install the extra `cluster`")


def open_to_others(place: Path) -> None:
    """Let the user that PostgreSQL runs as look through the folders of a test that root runs."""
    for folder in (place, *place.parents):
        if folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(folder.stat().st_mode | 0o011)


@contextmanager
def running_postgres(place: Path) -> Iterator[str]:
    """Run a server with its data under `place`; its URL."""
    open_to_others(place)
    command, url, user = postgres(place)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, **user) as process:
        try:
            await_database(url)
            yield url
        finally:
            process.kill()
