"""The exports root: which finished export files lie in which contract folder, each known by the SHA-256 of its bytes."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from schemas.contracts import FOLDERS
from schemas.errors import StorageError

SNAPSHOTS = "simic/registry_snapshot"

_BLOCK = 1 << 20
_SETTLED_NS = 2_000_000_000  # a file younger than this may change again within one tick of its file system's clock

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode: an unchanged one saves hashing the bytes again


@dataclass(frozen=True)
class Export:
    """One export file. `file` is its path relative to the root, `digest` the SHA-256 (hex) of its bytes."""

    path: Path
    file: str
    folder: str
    digest: str
    size: int
    signature: Signature

    @property
    def identity(self) -> str:
        """What makes it one export of its folder."""
        return identity(self.folder, self.file, self.digest)

    def unchanged(self) -> bool:
        """Whether the file still is the one that was hashed."""
        try:
            return _signature(self.path.stat()) == self.signature
        except OSError:
            return False


def identity(folder: str, file: str, digest: str) -> str:
    """What makes an export: its bytes, never its name, except that a Simic snapshot's name says which registry it is.

    Two registries may well have the same bytes (`{"unknown": 1}`).
    """
    name = file.rpartition("/")[2]
    return f"{digest}:{name}" if folder == SNAPSHOTS and name.endswith(".json") else digest


@dataclass(frozen=True)
class Unplaced:
    """A file that no contract reads, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What lies under the root now: exports sorted by file name, and files that are ignored and reported."""

    exports: tuple[Export, ...]
    unplaced: tuple[Unplaced, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Exports:
    """An exports root; `is_sample` says that it is the committed sample, read because nothing else was given."""

    root: Path
    is_sample: bool = False
    _hashes: dict[Path, tuple[Signature, str]] = field(default_factory=dict, repr=False, compare=False)

    def scan(self, folders: Iterable[str] | None = None) -> Scan:
        """The exports of `folders` (None: of all). StorageError where the root is no readable directory."""
        if not self.root.is_dir():
            raise StorageError(
                f"exports root {self.root}: expected a directory, found none; give --exports DIR or set TAMIYO_EXPORTS"
            )
        wanted = frozenset(FOLDERS if folders is None else folders)
        unknown = wanted - FOLDERS.keys()
        if unknown:
            raise StorageError(f"folders {sorted(unknown)}: expected some of {', '.join(FOLDERS)}")
        exports: list[Export] = []
        unplaced: list[Unplaced] = []
        for path in _files(self.root):
            file = path.relative_to(self.root).as_posix()
            folder = file.rpartition("/")[0]
            if folder not in FOLDERS:
                unplaced.append(Unplaced(file, "no contract has this folder"))
            elif not path.name.endswith(FOLDERS[folder].extensions):
                unplaced.append(Unplaced(file, f"expected one of {', '.join(FOLDERS[folder].extensions)}"))
            elif folder in wanted:
                found = self._export(path, file, folder)
                if isinstance(found, Export):
                    exports.append(found)
                elif found is not None:
                    unplaced.append(found)
        return Scan(tuple(exports), tuple(unplaced), tuple(sorted(wanted)))

    def _export(self, path: Path, file: str, folder: str) -> Export | Unplaced | None:
        """The export at `path`; None where it vanished or changed while it was looked at: the next scan sees it."""
        try:
            before = path.stat()
            if not stat.S_ISREG(before.st_mode):
                return Unplaced(file, "not a regular file")
            signature = _signature(before)
            known = self._hashes.get(path)
            digest = known[1] if known is not None and known[0] == signature else file_digest(path)
            if _signature(path.stat()) != signature:
                return None
        except FileNotFoundError:
            return Unplaced(file, "a link to nothing") if path.is_symlink() else None
        except OSError as failure:
            return Unplaced(file, f"not readable: {failure.strerror}")
        if max(before.st_mtime_ns, before.st_ctime_ns) + _SETTLED_NS < time.time_ns():
            self._hashes[path] = (signature, digest)
        return Export(path, file, folder, digest, before.st_size, signature)


def _signature(status: os.stat_result) -> Signature:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """Finished files below `root`, sorted; names that start with `.` or end in `.tmp` are still being written."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(".tmp"):
                yield Path(folder, name)
