"""Remember digests of exports, so that a refresh hashes only files that are new or changed.

An export's identity is the digest of its bytes; this is a cache of it, `$TAMIYO_HOME/export_digests.json`, that may be removed
at any time. A file whose size, times of modification and of change, and inode are what they were has the digest that it had;
one that changed within the last two seconds is hashed again, for it may change once more within a tick of its file system's
clock. `tamiyo doctor` hashes them all.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lake.durable.publish import publish_file, sweep
from schemas.errors import StorageError

DIGESTS = "export_digests.json"

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode: an unchanged one saves hashing the bytes again
Noted = dict[str, tuple[Signature, str]]  # file relative to the exports root -> signature and digest


@dataclass
class DigestMemory:
    """What is known of the files of one exports root."""

    _files: Noted = field(default_factory=dict)
    _recalled: bool = False
    _changed: bool = False

    def known(self, file: str, signature: Signature) -> str | None:
        """Return the digest of a file that still has this signature; None if it must be hashed."""
        known = self._files.get(file)
        return known[1] if known is not None and known[0] == signature else None

    def learn(self, file: str, signature: Signature, digest: str) -> None:
        """Remember a file."""
        self._files[file] = (signature, digest)
        self._changed = True

    def forget(self, folders: Iterable[str], present: Iterable[str]) -> None:
        """Forget the files of `folders` that are not `present` any more."""
        looked, here = frozenset(folders), frozenset(present)
        gone = [file for file in self._files if file not in here and file.rpartition("/")[0] in looked]
        for file in gone:
            del self._files[file]
        self._changed = self._changed or bool(gone)

    def recall(self, home: Path, root: Path) -> None:
        """Take over what earlier processes noted in a home, once; what is damaged, or of another root, counts as nothing."""
        if self._recalled:
            return
        self._recalled = True
        try:
            noted_root, noted = read_noted(home)
        except StorageError:
            return
        if noted_root == root.absolute():
            self._files = noted | self._files

    def note(self, home: Path, root: Path) -> None:
        """Write what is known where that changed; the caller holds the lock of the home's ingest."""
        if not self._changed:
            return
        sweep(home, DIGESTS)
        files = {file: [*signature, digest] for file, (signature, digest) in sorted(self._files.items())}
        body = json.dumps({"root": str(root.absolute()), "files": files}).encode("ascii")
        publish_file(home / DIGESTS, _digest(body) + b"\n" + body + b"\n")
        self._changed = False


def read_noted(home: Path) -> tuple[Path, Noted]:
    """Return the exports root and the digests noted of its files, nothing if there are none; StorageError if damaged."""
    path = home / DIGESTS
    try:
        digest, body, end = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Path(), {}
    except (OSError, ValueError) as damage:
        raise StorageError(f"{path}: expected digests of exports, found {damage}; remove it, it is made again") from None
    if end or _digest(body) != digest:
        raise StorageError(f"{path}: expected the bytes that were written, found others; remove it, it is made again")
    noted = json.loads(body)
    return Path(noted["root"]), {file: ((a, b, c, d), digest) for file, (a, b, c, d, digest) in noted["files"].items()}


def signature_of(status: os.stat_result) -> Signature:
    """Return what tells that a file was not changed."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")
