"""SQLite files of a Dagster instance: what rows that were deleted leave behind is given back to the disk."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

BUSY_SECONDS: Final = 30
_WORTH_BYTES: Final = 4 << 20
_WORTH_SHARE: Final = 0.25


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that waits for other writers as long as Dagster's own do."""
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def size_of(path: Path) -> int:
    """Bytes of a database with its log."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def shrink(path: Path, *, at_least: int = _WORTH_BYTES) -> int:
    """Rewrite a database that is empty in large part, and return the bytes that it is smaller by.

    It is rewritten if at least `at_least` bytes and a quarter of it are free. Readers go on meanwhile, writers wait; if
    somebody holds it for longer than `BUSY_SECONDS`, it is left for the next time.
    """
    before = size_of(path)
    with closing(connect(path)) as connection:
        free, pages, page_bytes = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_count", "page_size")
        )
        if free * page_bytes < at_least or free < pages * _WORTH_SHARE:
            return 0
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as busy:
            if "locked" not in str(busy):
                raise
    return max(0, before - size_of(path))
