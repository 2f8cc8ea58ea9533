"""Turn each library's storage errors into one-sentence StorageErrors: a damaged table, or a full disk."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import StorageError

_WORDS: Final = ("No space left on device", "disk is full", "Disk quota exceeded", "File too large", "os error 28")
_DATABASE: Final = ("unable to open database file", "disk I/O error")  # SQLite's messages for a full disk, and for other faults
_LITTLE: Final = 1 << 20  # bytes; to a database, a disk with less room is full
_NUMBERS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(failure: BaseException, place: Path) -> StorageError | None:
    """Return the error to raise for `failure` if the disk of `place` is full; None for other failures."""
    cause: BaseException | None = failure
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _NUMBERS) or any(words in str(cause) for words in _WORDS):
            return _full(place)
        said = next((words for words in _DATABASE if words in str(cause)), None)
        if said is not None:
            return _full(place) if _room(place) < _LITTLE else _unusable(place, said)
        cause = cause.__cause__ or cause.__context__
    return None


def _full(place: Path) -> StorageError:
    return StorageError(
        f"{place}: expected room on its disk, found none left; free some space, or name another place, and run again"
    )


def _unusable(place: Path, said: str) -> StorageError:
    return StorageError(
        f"{place}: expected databases that can be written to, found: {said}; check the disk, or name another place"
    )


def _room(place: Path) -> int:
    """Return the free bytes on the disk of a path that may not exist yet."""
    there = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    return shutil.disk_usage(there).free


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn the storage library's errors into StorageErrors that name the table's path and say what to do."""
    import pyarrow as pa
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        yield
    except TableNotFoundError:
        raise
    except (DeltaError, OSError, pa.ArrowException) as failure:
        full = disk_full(failure, path)
        if full is not None:
            raise full from failure
        raise StorageError(
            f"table {path}: expected a readable Delta table, found: {str(failure).strip().partition(chr(10))[0][:300]}; "
            "contract tables are built again from the exports by the next run, others by `tamiyo doctor --repair`"
        ) from failure
