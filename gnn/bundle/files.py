"""Read a bundle's directory strictly: fixed names, plain files, bounded sizes, no links; report all faults at once."""

import os
import stat
from pathlib import Path
from typing import Final

from gnn.bundle.members import ALL, REGISTRY_DIR, size_bound
from schemas.errors import BundleRejected

_NAMED: Final = 100  # at most this many faults are named; the others are counted


def read_members(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every member of the bundle in `directory`, which must not be a link.

    No link is followed, and nothing is read before its kind and size are checked.
    Raises BundleRejected, which lists every missing, extra, linked, special or oversize member.
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
    """Return the members of one open directory; only the top directory may have a sub-directory, `registries`."""
    own = {name.removeprefix(prefix) for name in ALL if name.startswith(prefix)}
    files, folders = {name for name in own if "/" not in name}, {REGISTRY_DIR} if not prefix else set()
    found = set(os.listdir(descriptor))
    faults += [f"{prefix}{name}: expected, found no such member" for name in sorted((files | folders) - found)]
    extra = [ascii(name)[1:-1] for name in sorted(found - files - folders)]  # escaped: the names are untrusted
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
    """Return the bytes of one plain file within its size bound; else add the fault to `faults` and return None."""
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
