"""What is noted of export files so that they need not be hashed again, against the files themselves."""

from collections.abc import Iterator
from pathlib import Path

from lake.durable.publish import lock
from lake.exports.digests import DIGESTS, file_digest, read_noted, signature_of
from lake.ingest.ingest import INGEST_LOCK
from schemas.errors import StorageError
from tamiyo.doctor.finding import Finding


def examine_digests(home: Path, *, repair: bool) -> Iterator[Finding]:
    """Noted digests that are not those of the files, which seem unchanged; every file is hashed."""
    path = home / DIGESTS
    if not path.exists():
        return
    try:
        root, noted = read_noted(home)
        wrong = [file for file, (signature, digest) in noted.items() if _differs(root / file, signature, digest)]
    except StorageError as error:
        problem: str | None = str(error)
    else:
        listed = ", ".join(wrong)
        problem = f"{path}: expected the digests of the exports as they are, found others of {listed}" if wrong else None
    if problem is None:
        return
    if repair:
        with lock(home / INGEST_LOCK):
            path.unlink(missing_ok=True)
    yield Finding(str(path), problem, "removed; the next run hashes every export" if repair else None)


def _differs(path: Path, signature: tuple[int, int, int, int], digest: str) -> bool:
    """Whether a file with the noted signature has another digest; one that is gone or newer is hashed anyway."""
    try:
        return signature_of(path.stat()) == signature and file_digest(path) != digest
    except OSError:
        return False
