"""Tables that can't be read any more: removed, so that the next ingest builds them again from the exports."""

from pathlib import Path

import pyarrow as pa

from lake.accounting import feeds, reject_tables
from lake.builds import release
from lake.durable.publish import ensure_dir
from lake.exports.ledger import Ledger, present
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.errors import ContractError, StorageError

DAMAGED = "damaged"


def is_derived(name: str) -> bool:
    """Whether a table is made of others, not of exports."""
    return name not in TABLES and not name.startswith("rejects.")


def broken_tables(tables: TableStore, *, derived: bool) -> dict[str, str]:
    """Tables whose log or files can't be read, and why: derived ones, or those that are made of exports."""
    found: dict[str, str] = {}
    for name in tables.names():
        if is_derived(name) is derived:
            try:
                tables.check(name)
            except (StorageError, ContractError, OSError, pa.ArrowException) as error:
                found[name] = str(error)
    return found


def remove_broken(home: Path, tables: TableStore, *, derived: bool) -> dict[str, str]:
    """Remove the tables that can't be read, and those that are counted together with them; what was wrong and done.

    The caller holds the ingest lock. The next refresh, or of derived tables the run around it, builds them again.
    """
    broken = broken_tables(tables, derived=derived)
    done = {name: remove_table(home, tables, name) for name in sorted(with_rejects(tables, set(broken)))}
    return {
        name: f"{problem}; {done.get(name, 'removed')}, and built again from the exports" for name, problem in broken.items()
    }


def with_rejects(tables: TableStore, names: set[str]) -> set[str]:
    """A contract table and its rejects are counted together, so they are built again together."""
    found = set(names)
    for name in TABLES:
        group = {name, *reject_tables(name)}
        if group & names:
            found |= group
    return {name for name in found if tables.path(name).exists()}


def remove_table(home: Path, tables: TableStore, name: str) -> str:
    """Remove a table for it to be built again; one whose exports are gone in part is moved aside instead."""
    # a table that starts again has other versions: pins of the old ones would name the wrong content
    release(home, tables, [name])
    if not _exports_gone(home, name):
        tables.remove(name)
        return "removed"
    aside = home / DAMAGED
    ensure_dir(aside)
    number = len(list(aside.iterdir()))
    destination = aside / f"{name}-{number}"
    tables.path(name).rename(destination)
    return f"moved to {destination}, because some exports it was made from are gone"


def _exports_gone(home: Path, name: str) -> bool:
    """Whether exports that fed a contract table once are not there any more."""
    if name not in TABLES:
        return False
    folders = {folder.path for folder in FOLDERS.values() if name in feeds(folder)}
    try:
        entries = Ledger(home).entries()
    except StorageError:
        return True
    here = present(entries, folders)
    return any(e.folder in folders and (e.folder, e.identity) not in here for e in entries)
