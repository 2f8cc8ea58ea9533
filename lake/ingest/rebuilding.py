"""Remove tables that can no longer be read, so that the next ingest builds them again from the exports."""

import json
import shutil
from pathlib import Path

import pyarrow as pa

from lake.accounting import feeds, reject_tables
from lake.builds import release
from lake.durable.publish import ensure_dir, publish_file
from lake.durable.strict_json import read_object
from lake.exports.ledger import Ledger, present
from lake.store.pruning import SCOPE
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.errors import ContractError, StorageError

DAMAGED = "damaged"
IRREPLACEABLE = frozenset({"coverage.history"})  # derived tables that can't be rebuilt from anything else
LAYOUT_FILE = "layout.json"
LAYOUT = 2  # 1: derived tables without run buckets, one record per blueprint in urza.*, one directory per graph dataset


def begin_layout(home: Path, tables: TableStore) -> None:
    """Record the current layout in a home in which nothing is stored yet."""
    if not (home / LAYOUT_FILE).exists() and not tables.names():
        publish_file(home / LAYOUT_FILE, (json.dumps({"layout": LAYOUT}) + "\n").encode("ascii"))


def migrate(home: Path, tables: TableStore) -> dict[str, str]:
    """Migrate a home of an earlier layout; return {} if it is current, else one sentence that says what is built again.

    What is made from exports or other tables is removed, and the current run builds it again. What can't be made again stays:
    registries, norms, bundles, the ledger, retirements, promotions, alerts, and Urza's tables if some of their exports are
    gone. The caller holds the ingest lock.
    """
    path = home / LAYOUT_FILE
    if path.exists() and read_object(path, StorageError).get("layout") == LAYOUT:
        return {}
    names = tables.names()
    old = [name for name in names if is_derived(name) and SCOPE in tables.schema(name).names and not tables.is_bucketed(name)]
    urza = sorted(with_rejects(tables, {name for name in names if name.startswith("urza.")}))
    kept = [name for name in urza if _exports_gone(home, name)]
    again = old + ([] if kept else urza)
    for name in again:
        remove_table(home, tables, name)
    graphs = [path for path in (home / "graphs").glob("*") if not path.name.isdecimal() and path.name != "current.json"]
    for one in graphs:
        shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
    publish_file(path, (json.dumps({"layout": LAYOUT}) + "\n").encode("ascii"))
    if not again and not kept:
        return {}
    spared = "; Urza's tables stay as they are, because some exports they were made from are gone" if kept else ""
    said = f"the home has the layout of an earlier version; {len(again)} tables and the graphs are built again{spared}"
    return {"home": f"{said}; registries, norms, bundles and the ledger stay"}


def is_derived(name: str) -> bool:
    """Return whether a table is made from other tables, not from exports."""
    return name not in TABLES and not name.startswith("rejects.")


def broken_tables(tables: TableStore, *, derived: bool) -> dict[str, str]:
    """Return the tables whose log or files can't be read, and why: derived tables, or those made from exports."""
    found: dict[str, str] = {}
    for name in tables.names():
        if is_derived(name) is derived:
            try:
                tables.check(name)
            except (StorageError, ContractError, OSError, pa.ArrowException) as error:
                found[name] = str(error)
    return found


def remove_broken(home: Path, tables: TableStore, *, derived: bool) -> dict[str, str]:
    """Remove the tables that can't be read and those counted together with them; return what was wrong and done.

    The caller holds the ingest lock. The next refresh builds them again; derived tables are built again by the current run.
    """
    broken = broken_tables(tables, derived=derived)
    done = {name: remove_table(home, tables, name) for name in sorted(with_rejects(tables, set(broken)))}
    return {
        name: f"{problem}; {done.get(name, 'removed')}, and built again from the exports" for name, problem in broken.items()
    }


def with_rejects(tables: TableStore, names: set[str]) -> set[str]:
    """Add to contract tables their rejects tables, and the reverse: tables counted together are built again together."""
    found = set(names)
    for name in TABLES:
        group = {name, *reject_tables(name)}
        if group & names:
            found |= group
    return {name for name in found if tables.path(name).exists()}


def remove_table(home: Path, tables: TableStore, name: str) -> str:
    """Remove a table so that it is built again; move it aside instead if some of its exports are gone. Return what was done."""
    # a rebuilt table counts its versions anew: pins of old versions would name the wrong content
    release(home, tables, [name])
    irreplaceable = name in IRREPLACEABLE
    if not irreplaceable and not _exports_gone(home, name):
        tables.remove(name)
        return "removed"
    aside = home / DAMAGED
    ensure_dir(aside)
    number = len(list(aside.iterdir()))
    destination = aside / f"{name}-{number}"
    tables.path(name).rename(destination)
    why = "nothing else holds its rows" if irreplaceable else "some exports it was made from are gone"
    return f"moved to {destination}, because {why}"


def _exports_gone(home: Path, name: str) -> bool:
    """Return whether exports that once fed a contract table are gone."""
    if name not in TABLES:
        return False
    folders = {folder.path for folder in FOLDERS.values() if name in feeds(folder)}
    try:
        entries = Ledger(home).entries()
    except StorageError:
        return True
    here = present(entries, folders)
    return any(e.folder in folders and (e.folder, e.identity) not in here for e in entries)
