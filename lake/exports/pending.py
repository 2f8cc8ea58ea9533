"""Find exports that some table does not hold yet, from the ledger and the app transactions in each table's commits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lake.accounting import export_key, feeds
from lake.exports.folders import Export, Scan
from lake.exports.ledger import Entry, first_arrivals, present
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES, Folder
from schemas.errors import StorageError


@dataclass(frozen=True)
class Pending:
    """One export and the tables that do not hold it yet. `again`: it is a later arrival of bytes that they hold."""

    export: Export
    entry: Entry
    tables: frozenset[str]
    again: frozenset[str]


@dataclass(frozen=True)
class _Arrival:
    """A present export: its newest arrival, and the `seq` of its first one."""

    export: Export
    entry: Entry
    first: int


def plans_of(tables: TableStore, scan: Scan, entries: Iterable[Entry], errors: list[StorageError]) -> dict[str, list[Pending]]:
    """Return, by scanned folder, the exports that some table lacks, in order of arrival.

    If a table of a folder can't be read, the folder has no plan and the error is appended to `errors`.
    """
    entries = list(entries)
    newest, first = present(entries, scan.folders), first_arrivals(entries, scan.folders)
    here: dict[str, dict[str, _Arrival]] = {folder: {} for folder in scan.folders}
    for export in scan.exports:
        key = (export.folder, export.identity)
        here[export.folder][export.identity] = _Arrival(export, newest[key], first[key])
    arrivals = {name: sorted(found.values(), key=lambda one: one.entry.seq) for name, found in here.items()}
    plans: dict[str, list[Pending]] = {}
    for name, found in arrivals.items():
        try:
            plans[name] = _plan(tables, FOLDERS[name], found) if found else []
        except StorageError as error:
            errors.append(error)
    return plans


def _plan(tables: TableStore, folder: Folder, arrivals: Sequence[_Arrival]) -> list[Pending]:
    lacking: dict[str, set[str]] = {}
    again: dict[str, set[str]] = {}
    for name in targets_of(folder):
        mark = tables.transaction(name, mark_of(folder))
        for one in arrivals:
            if mark is not None and one.entry.seq <= mark:
                continue
            known = _known(tables, name, folder, one, mark)
            if known is None or (known < one.entry.scan and name in TABLES and TABLES[name].by_arrival):
                lacking.setdefault(one.entry.identity, set()).add(name)
                if known is not None:
                    again.setdefault(one.entry.identity, set()).add(name)
    return [
        Pending(one.export, one.entry, frozenset(lacking[identity]), frozenset(again.get(identity, ())))
        for one in arrivals
        if (identity := one.entry.identity) in lacking
    ]


def _known(tables: TableStore, name: str, folder: Folder, one: _Arrival, mark: int | None) -> int | None:
    """Return the number of the arrival of an export that a table holds; None if it holds none."""
    if mark is not None and one.first > mark:
        # a commit that holds an export has followed the ledger at least up to one of its arrivals
        return None
    return tables.transaction(name, export_key(folder, one.entry.identity))


def targets_of(folder: Folder) -> list[str]:
    """Return the tables to commit for files of `folder`, rejects tables first."""
    rejects = {folder.reject_table, *(folder.reject_table_of(name) for name in feeds(folder))}
    return [*sorted(rejects), *feeds(folder)]


def mark_of(folder: Folder) -> str:
    """Return the key of the app transaction whose version is the ledger seq up to which a table holds a whole folder."""
    return f"{folder.path}:ledger"
