"""Publish files atomically: a reader sees the old file or the new one, even after a kill or power loss.

A file is written beside its destination, fsynced, and renamed over it; then the directory is fsynced. Every file-system change
calls a function of `os`, so that a fault injector can stop each of them. Unfinished leftovers have names that start with `.`
and end in `.tmp`; `sweep` removes them.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lake.durable.locks import PathLock
from schemas.errors import StorageError

TEMPORARY = ".tmp"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent, never deleted); it is freed when the process dies."""
    ensure_dir(path.parent)
    found = PathLock(path)
    try:
        found.take()
        yield
    finally:
        found.close()


def fsync_dir(path: Path) -> None:
    """Make the names in directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_dir(path: Path) -> None:
    """Make directory `path` and its parents, each durable in its own parent."""
    if path.is_dir():
        return
    ensure_dir(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise StorageError(f"{path}: expected a directory, found a file; move it away") from None
        return
    fsync_dir(path.parent)


def beside(path: Path) -> Path:
    """Return a fresh temporary name in the directory of `path`."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}"


def write_durable(path: Path, data: bytes) -> None:
    """Create the new file `path` with `data` and fsync it (not its directory)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_file(path: Path, data: bytes, *, workplace: Path | None = None) -> None:
    """Replace the content of `path` by `data`, whole or not at all.

    The temporary file lies beside it, or in directory `workplace` on the same file system, which then alone needs sweeping.
    """
    ensure_dir(path.parent)
    temporary = beside(path if workplace is None else workplace / path.name)
    write_durable(temporary, data)
    temporary.replace(path)
    fsync_dir(path.parent)


def publish_built(temporary: Path, path: Path) -> None:
    """Replace `path` by the finished file `temporary` in the same directory, which other code wrote."""
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    fsync_dir(path.parent)


def fsync_tree(path: Path) -> None:
    """Fsync every regular file below directory `path`, then the directories, deepest first."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            file = Path(folder, name)
            if file.is_symlink() or not file.is_file():
                continue
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_dir(Path(folder))


def publish_dir(temporary: Path, destination: Path) -> None:
    """Rename the finished directory `temporary` to the new name `destination`, durable with everything in it.

    Raises StorageError if `destination` exists: a published directory never changes.
    """
    if destination.exists():
        raise StorageError(f"{destination}: expected no such directory yet, found one; published directories never change")
    ensure_dir(destination.parent)
    fsync_tree(temporary)
    temporary.rename(destination)
    fsync_dir(destination.parent)


def switch_link(link: Path, target: str | Path) -> None:
    """Point the symbolic link `link` at `target` (relative to the link's directory), in one step."""
    ensure_dir(link.parent)
    temporary = beside(link)
    temporary.symlink_to(target)
    temporary.replace(link)
    fsync_dir(link.parent)


def sweep(directory: Path, name: str = "") -> list[Path]:
    """Remove leftovers of interrupted publications from `directory`: all, or only those of `name`; return their paths.

    The caller holds the lock of the publisher that left them.
    """
    gone = []
    for path in sorted(directory.glob(f".{name}*{TEMPORARY}")) if directory.is_dir() else []:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        gone.append(path)
    return gone
