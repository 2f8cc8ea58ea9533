"""Check what outside readers open: registries, norms, bundles and the warehouse."""

from collections.abc import Iterator
from pathlib import Path

import duckdb

from gnn.norms import published as norms
from gnn.registry.repair import examine as examine_registry_files
from lake import warehouse
from lake.durable.publish import lock, publish_file, switch_link
from lake.store.table_store import TableStore
from schemas.errors import BundleRejected, NormsError
from tamiyo.doctor.finding import Finding


def examine_registries(home: Path, *, repair: bool) -> list[Finding]:
    """Return damage of registry files, their versions and links."""
    found = examine_registry_files(home / "registries", repair=repair)
    return [Finding(str(damage.path), damage.problem, damage.repaired) for damage in found]


def examine_norms(home: Path, *, repair: bool) -> Iterator[Finding]:
    """Yield damage of the norms file and its kept versions."""
    path = home / norms.NORMS
    kept = sorted(((home / norms.VERSIONS).glob("*.json")), key=lambda p: int(p.stem) if p.stem.isdigit() else -1)
    if (not path.exists() and not kept) or norms.is_older(home):
        return
    with lock(home / norms.LOCK):
        try:
            current = norms.from_json(path)
        except NormsError as error:
            good = next((file for file in reversed(kept) if _sound(file)), None)
            if repair and good is not None:
                publish_file(path, good.read_bytes())
                yield Finding(str(path), str(error), f"version {good.stem} put back")
                current = norms.from_json(path)
            else:
                yield Finding(str(path), str(error))
                return
        for number in range(1, current.version + 1):
            file = norms.version_file(home, number)
            if _sound(file):
                continue
            problem = f"{file}: expected version {number} of the norms, found it damaged or missing"
            if repair and number == current.version:
                publish_file(file, path.read_bytes())
                yield Finding(str(file), problem, "copied from the current file")
            else:
                yield Finding(str(file), problem)


def _sound(file: Path) -> bool:
    try:
        return str(norms.from_json(file).version) == file.stem
    except NormsError:
        return False


def examine_bundles(home: Path, *, repair: bool) -> Iterator[Finding]:
    """Yield damaged bundles, and a `current` that does not lead to a sound one."""
    if not (home / "bundles").is_dir() and not (home / "current").is_symlink():
        return
    from gnn.bundle.promote import CURRENT, LOCK, promotions
    from gnn.bundle.write import BUNDLES

    sound: set[str] = set()
    folder = home / BUNDLES
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        problem = _bundle_damage(path)
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


def _bundle_damage(path: Path) -> str | None:
    from gnn.bundle.read import read_bundle

    try:
        found = read_bundle(path).build_id
    except BundleRejected as error:
        return str(error)
    return None if found == path.name else f"{path}: expected the bundle of that build id, found {found}"


def examine_warehouse(home: Path, tables: TableStore, *, repair: bool) -> Iterator[Finding]:
    """Report views that can't be read any more: files gone, or the home moved."""
    path = home / warehouse.WAREHOUSE
    if not path.exists():
        return
    problem = _unreadable(path)
    if problem is None:
        return
    if repair:
        warehouse.publish(home, tables)
    yield Finding(str(path), problem, "built anew" if repair else None)


def _unreadable(path: Path) -> str | None:
    """Return what a reader of the warehouse runs into, or None."""
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            rows = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
            for schema, table in rows:
                connection.execute(f'SELECT * FROM "{schema}"."{table}" LIMIT 1').fetchall()
    except duckdb.Error as error:
        return f"{path}: expected readable views, found: {str(error).splitlines()[0]}"
    return None
