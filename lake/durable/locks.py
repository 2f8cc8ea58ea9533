"""Locks on paths: the kernel's `flock`, and on several machines also a lock of that name in PostgreSQL.

With `TAMIYO_LOCKS=postgresql://...` a lock is held on this machine and in the database, in this order. Each lock in the
database has a connection of its own: it ends with the process, and within a minute with its machine, and frees the lock.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from schemas.errors import StorageError

LOCKS: Final = "TAMIYO_LOCKS"
_POLL_SECONDS: Final = 0.05
# the database looks after a silent connection after 20 s and frees its locks after three more tries
_KEEPALIVE: Final = {"keepalives": 1, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
_OPTIONS: Final = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


class PathLock:
    """One lock of this process on `path`, exclusive or shared, free at first. The file must exist and is never removed."""

    def __init__(self, path: Path, *, shared: bool = False, environment: Mapping[str, str] | None = None) -> None:
        """Lock `path` in the database that the environment names, if it names one."""
        self._shared = shared
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._url = (os.environ if environment is None else environment).get(LOCKS)
        self._connection: Any = None
        self._key = key_of(path)

    @property
    def descriptor(self) -> int:
        """The open file."""
        return self._descriptor

    def take_if_free(self) -> bool:
        """Take the lock unless another holder is in the way; return whether it is held now. StorageError: no database."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not self._url or self._taken_in_database(self._url):
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def take(self) -> None:
        """Wait for the lock and take it."""
        if self._url:
            while not self.take_if_free():
                time.sleep(_POLL_SECONDS)
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX)

    def close(self) -> None:
        """Free the lock."""
        if self._connection is not None:
            self._connection.close()
        os.close(self._descriptor)

    def _taken_in_database(self, url: str) -> bool:
        import psycopg2

        try:
            if self._connection is None:
                self._connection = psycopg2.connect(url, options=_OPTIONS, connect_timeout=10, **_KEEPALIVE)
                self._connection.autocommit = True
            function = "pg_try_advisory_lock_shared" if self._shared else "pg_try_advisory_lock"
            with self._connection.cursor() as cursor:
                cursor.execute(f"SELECT {function}(%s)", (self._key,))
                return bool(cursor.fetchone()[0])
        except psycopg2.Error as error:
            said = " ".join(str(error).split())
            raise StorageError(f"{LOCKS}: expected a PostgreSQL that answers, found: {said}; start it or unset it") from None


def is_free(path: Path) -> bool:
    """Whether nobody holds `path` exclusively."""
    with contextlib.closing(PathLock(path, shared=True)) as probe:
        return probe.take_if_free()


def key_of(path: Path) -> int:
    """Number of a path's lock in the database: the first 8 bytes of SHA-256 of its absolute form, signed."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path.absolute())).digest()[:8], "big", signed=True)
