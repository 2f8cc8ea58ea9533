"""Remember digests of exports, so that a refresh hashes only files that are new or changed.

An export's identity is the digest of its bytes. The cache of digests, `$TAMIYO_HOME/export_digests.json`, may be removed at any
time. A file keeps its digest if its size, modification time, change time and inode are unchanged. A file that changed within
the last two seconds is hashed again, since it may change once more within a tick of its file system's clock. `tamiyo doctor`
hashes all files.
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

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode; if unchanged, the bytes are not hashed again
Noted = dict[str, tuple[Signature, str]]  # file relative to the exports root -> signature and digest


@dataclass
class DigestMemory:
    """The known digests of files below one exports root."""

    _files: Noted = field(default_factory=dict)
    _recalled: bool = False
    _changed: bool = False

    def known(self, file: str, signature: Signature) -> str | None:
        """Return the digest of a file that still has this signature; None if it must be hashed."""
        known = self._files.get(file)
        return known[1] if known is not None and known[0] == signature else None

    def learn(self, file: str, signature: Signature, digest: str) -> None:
        """Remember the digest of a file."""
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
        """Load, once, the digests that earlier processes noted in a home; ignore a file that is damaged or of another root."""
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
        """Write the known digests if they changed. The caller holds the home's ingest lock."""
        if not self._changed:
            return
        sweep(home, DIGESTS)
        files = {file: [*signature, digest] for file, (signature, digest) in sorted(self._files.items())}
        body = json.dumps({"root": str(root.absolute()), "files": files}).encode("ascii")
        publish_file(home / DIGESTS, _digest(body) + b"\n" + body + b"\n")
        self._changed = False


def read_noted(home: Path) -> tuple[Path, Noted]:
    """Return the noted exports root and the digests of its files, empty if nothing is noted. Raises StorageError if damaged."""
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
    """Return the signature of a file, which differs after a change."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")
