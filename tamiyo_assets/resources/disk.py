"""A disk that is full, whoever meets it: the operating system, Arrow, Delta or a database, each in words of its own."""

import errno
from pathlib import Path
from typing import Final

from schemas.errors import StorageError

_WORDS: Final = ("No space left on device", "disk is full", "Disk quota exceeded", "File too large", "os error 28")
_NUMBERS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(failure: BaseException, place: Path) -> StorageError | None:
    """The error to raise for `failure` if its cause is that nothing more fits on the disk of `place`; None for others."""
    cause: BaseException | None = failure
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _NUMBERS) or any(words in str(cause) for words in _WORDS):
            return StorageError(
                f"{place}: expected room on its disk, found none left; free some space, or name another place, and run again"
            )
        cause = cause.__cause__ or cause.__context__
    return None
