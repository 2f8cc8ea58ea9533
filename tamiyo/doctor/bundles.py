"""Bundles and the link to the serving one."""

from collections.abc import Iterator
from pathlib import Path

from lake.durable.publish import lock, switch_link
from schemas.errors import BundleRejected
from tamiyo.doctor.finding import Finding


def examine_bundles(home: Path, *, repair: bool) -> Iterator[Finding]:
    """Damaged bundles, and a `current` that does not lead to a sound one."""
    if not (home / "bundles").is_dir() and not (home / "current").is_symlink():
        return
    from gnn.bundle.promote import CURRENT, LOCK, promotions
    from gnn.bundle.write import BUNDLES

    sound: set[str] = set()
    folder = home / BUNDLES
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        problem = _damage(path)
        if problem is None:
            sound.add(path.name)
        else:
            yield Finding(str(path), f"{problem}; `tamiyo run` builds it again")
    link = home / CURRENT
    if not link.is_symlink() or link.readlink().name in sound:
        return
    problem = f"{link}: expected a link to a sound bundle, found {link.readlink()}"
    served = [entry["build_id"] for entry in promotions(home) if entry.get("build_id") in sound]
    if repair and served:
        with lock(home / LOCK):
            switch_link(link, f"{BUNDLES}/{served[-1]}")
        yield Finding(str(link), problem, f"{served[-1]} serves again, the last sound one that did")
    else:
        yield Finding(str(link), problem)


def _damage(path: Path) -> str | None:
    from gnn.bundle.read import read_bundle

    try:
        found = read_bundle(path).build_id
    except BundleRejected as error:
        return str(error)
    return None if found == path.name else f"{path}: expected the bundle of that build id, found {found}"
