"""Strict reading of a bundle's directory: fixed names, plain files, bounded sizes, no link followed, all faults at once."""

import os
import stat
from pathlib import Path
from typing import Final

from gnn.bundle.members import ALL, REGISTRY_DIR, size_bound
from schemas.errors import BundleRejected

_NAMED: Final = 100  # faults that are named; the others are counted


def read_members(directory: Path) -> dict[str, bytes]:
    """Return bytes of every member of the bundle in `directory` (itself no link).

    BundleRejected lists every missing, extra, linked, special or oversize member; nothing is opened before its size and
    kind were seen, and no link is followed, whatever stands there.
    """
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise BundleRejected(f"bundle {directory}: expected a directory, found {error.strerror}; name a bundle") from error
    try:
        faults: list[str] = []
        members = _folder(root, "", faults)
        if faults:
            more = [f"and {len(faults) - _NAMED} more"] if len(faults) > _NAMED else []
            raise BundleRejected(f"bundle {directory}: " + "; ".join(faults[:_NAMED] + more) + ". Copy or build it again.")
        return members
    finally:
        os.close(root)


def _folder(descriptor: int, prefix: str, faults: list[str]) -> dict[str, bytes]:
    """Return members of one open directory; its sub-directory is `registries`, at the top and nowhere else."""
    own = {name.removeprefix(prefix) for name in ALL if name.startswith(prefix)}
    files, folders = {name for name in own if "/" not in name}, {REGISTRY_DIR} if not prefix else set()
    found = set(os.listdir(descriptor))
    faults += [f"{prefix}{name}: expected, found no such member" for name in sorted((files | folders) - found)]
    extra = [ascii(name)[1:-1] for name in sorted(found - files - folders)]  # anybody may have named them
    faults += [f"{prefix}{name}: not expected, found this extra member" for name in extra]
    members = {}
    for name in sorted(files & found):
        data = _file(descriptor, name, prefix + name, faults)
        if data is not None:
            members[prefix + name] = data
    for name in sorted(folders & found):
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            faults.append(f"{prefix}{name}: expected a directory, found {error.strerror}")
            continue
        try:
            members |= _folder(inner, f"{prefix}{name}/", faults)
        finally:
            os.close(inner)
    return members


def _file(descriptor: int, name: str, shown: str, faults: list[str]) -> bytes | None:
    """Return bytes of one plain file within its bound, or None with the fault noted."""
    bound = size_bound(shown)
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        faults.append(f"{shown}: expected a plain file, found {error.strerror}")
        return None
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        faults.append(f"{shown}: expected a plain file, found another kind")
        return None
    with os.fdopen(opened, "rb") as file:
        if status.st_size > bound:
            faults.append(f"{shown}: expected at most {bound} bytes, found {status.st_size}")
            return None
        return file.read(bound)
