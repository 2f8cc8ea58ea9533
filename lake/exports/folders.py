"""Scan the exports root for finished files by contract folder, each identified by the SHA-256 of its bytes."""

import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lake.durable.file_digest import file_digest
from lake.exports.digests import DigestMemory, Signature, signature_of
from schemas.contracts import FOLDERS
from schemas.errors import StorageError

SNAPSHOTS = "simic/registry_snapshot"

_SETTLED_NS = 2_000_000_000  # a file younger than this may change again within one tick of its file system's clock


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
        """The identity of this export in its folder (see `identity`)."""
        return identity(self.folder, self.file, self.digest)

    def unchanged(self) -> bool:
        """Return whether the file is still the one that was hashed."""
        try:
            return signature_of(self.path.stat()) == self.signature
        except OSError:
            return False


def identity(folder: str, file: str, digest: str) -> str:
    """Return the identity of an export in its folder: its digest and, for a Simic snapshot, the registry in its name.

    Two registries may have the same bytes (`{"unknown": 1}`). Other names do not matter.
    """
    name = file.rpartition("/")[2]
    return f"{digest}:{name}" if folder == SNAPSHOTS and name.lower().endswith(".json") else digest


@dataclass(frozen=True)
class Unplaced:
    """A file that no contract reads, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """The current content of the root: exports sorted by file name, and ignored files, which are reported."""

    exports: tuple[Export, ...]
    unplaced: tuple[Unplaced, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Exports:
    """An exports root; `is_sample` says that it is the committed sample, read because nothing else was given."""

    root: Path
    is_sample: bool = False
    _digests: DigestMemory = field(default_factory=DigestMemory, repr=False, compare=False)

    def scan(self, folders: Iterable[str] | None = None) -> Scan:
        """Return the exports of `folders` (None: of all). Raises StorageError if the root is not a readable directory."""
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
        for folder, names in _files(self.root, unplaced):
            for name in names:
                found = self._look(folder, name, wanted)
                if isinstance(found, Export):
                    exports.append(found)
                elif found is not None:
                    unplaced.append(found)
        return Scan(tuple(exports), tuple(unplaced), tuple(sorted(wanted)))

    def unread(self) -> tuple[Unplaced, ...]:
        """Return the files under the root that no contract reads, and why, sorted by name, without opening any."""
        found: list[Unplaced] = []
        for folder, names in _files(self.root, found) if self.root.is_dir() else ():
            for name in names:
                file = f"{folder}/{name}" if folder else name
                place = _place(folder, name) or _status(self.root / file, file)
                found += [place] if isinstance(place, Unplaced) else []
        return tuple(sorted(found, key=lambda one: one.file))

    def recall(self, home: Path) -> None:
        """Load the digests that an earlier process noted in a home."""
        self._digests.recall(home, self.root)

    def note(self, home: Path, scan: Scan) -> None:
        """Note in a home the digests of the scanned files, for later processes."""
        self._digests.forget(scan.folders, (export.file for export in scan.exports))
        self._digests.note(home, self.root)

    def _look(self, folder: str, name: str, wanted: frozenset[str]) -> Export | Unplaced | None:
        """Return file `name` of `folder` as an export or unplaced file; None for an export of a folder that is not wanted."""
        file = f"{folder}/{name}" if folder else name
        place = _place(folder, name)
        if place is not None:
            return place
        return self._export(self.root / file, file, folder) if folder in wanted else None

    def _export(self, path: Path, file: str, folder: str) -> Export | Unplaced | None:
        """Return the export at `path`; None if it vanished or changed meanwhile, and the next scan will see it."""
        now = time.time_ns()
        before = _status(path, file)
        if before is None or isinstance(before, Unplaced):
            return before
        try:
            signature = signature_of(before)
            digest = self._digests.known(file, signature)
            if digest is None:
                digest = file_digest(path)
                if signature_of(path.stat()) != signature:
                    return None
                if max(before.st_mtime_ns, before.st_ctime_ns) + _SETTLED_NS < now:
                    self._digests.learn(file, signature, digest)
        except FileNotFoundError:
            return None
        except OSError as failure:
            return Unplaced(file, f"not readable: {failure.strerror}")
        return Export(path, file, folder, digest, before.st_size, signature)


def _place(folder: str, name: str) -> Unplaced | None:
    """Return the unplaced file, with the reason, if no contract reads a file of this name; else None."""
    file = f"{folder}/{name}" if folder else name
    if folder not in FOLDERS:
        nested = next((path for path in FOLDERS if folder.startswith(f"{path}/")), None)
        where = f"nested too deep, expected it right in {nested}" if nested else "no contract has this folder"
        return Unplaced(file, where)
    if FOLDERS[folder].extension(name) is None:
        return Unplaced(file, f"expected one of {', '.join(FOLDERS[folder].extensions)}")
    return None


def _status(path: Path, file: str) -> os.stat_result | Unplaced | None:
    """Return the status of a regular file; None if it vanished, Unplaced if it is not a readable regular file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return Unplaced(file, "a link to nothing") if path.is_symlink() else None
    except OSError as failure:
        return Unplaced(file, f"not readable: {failure.strerror}")
    return found if stat.S_ISREG(found.st_mode) else Unplaced(file, "not a regular file")


def _files(root: Path, unplaced: list[Unplaced]) -> Iterator[tuple[str, list[str]]]:
    """Yield folders below `root` (relative, with `/`) and their finished files, sorted; add unreadable folders to `unplaced`.

    Names that start with `.` or end in `.tmp` are still being written. Links to folders are not followed.
    """

    def unreadable(failure: OSError) -> None:
        unplaced.append(Unplaced(Path(failure.filename).relative_to(root).as_posix(), f"not readable: {failure.strerror}"))

    for folder, names, files in os.walk(root, onerror=unreadable):
        relative = Path(folder).relative_to(root).as_posix().removeprefix(".")
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in names:
            if os.path.islink(os.path.join(folder, name)):  # noqa: PTH114, PTH118 - a tenth of the time
                unplaced.append(Unplaced(f"{relative}/{name}" if relative else name, "a link to a folder"))
        yield relative, sorted(f for f in files if not f.startswith(".") and not f.endswith(".tmp"))
