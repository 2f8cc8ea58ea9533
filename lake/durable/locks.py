"""Lock paths: with the kernel's `flock` and, if several machines share a home, also with a PostgreSQL lock of that name.

With `TAMIYO_POSTGRES=postgresql://...` a lock is taken on this machine, then in the database. Each database lock has its own
connection, which ends with the process, or within a minute after its machine fails, and thereby frees the lock.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from schemas.errors import StorageError

POSTGRES: Final = "TAMIYO_POSTGRES"
_POLL_SECONDS: Final = 0.05
# after 20 silent seconds the database probes the holder; after three more failed probes it frees the holder's locks
_IDLE, _INTERVAL, _COUNT = 20, 10, 3
_KEEPALIVE: Final = {
    "keepalives": 1, "keepalives_idle": _IDLE, "keepalives_interval": _INTERVAL, "keepalives_count": _COUNT,
}  # fmt: skip
_OPTIONS: Final = f"-c tcp_keepalives_idle={_IDLE} -c tcp_keepalives_interval={_INTERVAL} -c tcp_keepalives_count={_COUNT}"


def database(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the URL of the database that holds the locks; None if there is none.

    Accepts `postgresql+psycopg2://` too, the form that Dagster's storage uses.
    """
    url = (os.environ if environment is None else environment).get(POSTGRES)
    return url.replace("+psycopg2", "", 1) if url else None


class DatabaseLock:
    """One lock of this process in the database at `url`, exclusive or shared; not held at first."""

    def __init__(self, url: str, name: str, *, shared: bool = False) -> None:
        """Connect. Raises StorageError if the database does not answer."""
        import psycopg2

        self._function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
        self._key = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big", signed=True)
        with _told():
            self._connection: Any = psycopg2.connect(url, options=_OPTIONS, connect_timeout=10, **_KEEPALIVE)
            self._connection.autocommit = True

    def take_if_free(self) -> bool:
        """Take the lock unless another holder is in the way; return whether it is held now."""
        with _told(), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT {self._function}(%s)", (self._key,))
            return bool(cursor.fetchone()[0])

    def close(self) -> None:
        """Free the lock."""
        self._connection.close()


@contextmanager
def _told() -> Iterator[None]:
    import psycopg2

    try:
        yield
    except psycopg2.Error as error:
        said = " ".join(str(error).split())
        raise StorageError(f"{POSTGRES}: expected a PostgreSQL that answers, found: {said}; start it or unset it") from None


class PathLock:
    """One lock of this process on `path`, exclusive or shared; not held at first. A missing file is made, and never removed."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open the file, and the database if there is one."""
        self._flag = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        url = database()
        try:
            self._database = DatabaseLock(url, str(path.absolute()), shared=shared) if url else None
        except BaseException:
            os.close(self.descriptor)
            raise

    def take_if_free(self) -> bool:
        """Take the lock unless another holder is in the way; return whether it is held now."""
        try:
            fcntl.flock(self.descriptor, self._flag | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._database is None or self._database.take_if_free():
            return True
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return False

    def take(self) -> None:
        """Wait for the lock and take it."""
        if self._database is None:
            fcntl.flock(self.descriptor, self._flag)
            return
        while not self.take_if_free():
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Free the lock."""
        if self._database is not None:
            self._database.close()
        os.close(self.descriptor)


def is_free(path: Path) -> bool:
    """Return whether nobody holds `path` exclusively."""
    with contextlib.closing(PathLock(path, shared=True)) as probe:
        return probe.take_if_free()


@contextmanager
def alive(name: str) -> Iterator[None]:
    """Hold the lock `name` in the database, if there is one, while the body runs, so that `is_alive` is true."""
    url = database()
    held = DatabaseLock(url, name) if url else None
    try:
        if held is not None and not held.take_if_free():
            raise StorageError(f"{name}: expected one process of this name, found another that goes on; end it first")
        yield
    finally:
        if held is not None:
            held.close()


def is_alive(name: str) -> bool | None:
    """Return whether a process on any machine is in the body of `alive(name)`; None if there is no database to tell."""
    url = database()
    if url is None:
        return None
    with contextlib.closing(DatabaseLock(url, name, shared=True)) as probe:
        return not probe.take_if_free()
