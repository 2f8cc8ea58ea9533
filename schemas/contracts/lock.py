"""Lock the contracts: what consumers may rely on, which changes are additive, and which break them.

`contracts.lock.json` is committed. A test fails if the declarations differ from the lock. `python -m schemas.contracts.lock`
writes additive changes to the lock, and breaking ones only with a new major version.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from schemas.contracts import FOLDERS, TABLES, Column, Folder, Table
from schemas.contracts.enums import ENUMS
from schemas.errors import ContractError

VERSION: Final = "2.0"
PATH: Final = Path(__file__).with_name("contracts.lock.json")


class LockedColumn(BaseModel):
    """What is locked of a column."""

    model_config = ConfigDict(frozen=True)

    type: str
    nullable: bool
    presence: str
    path: str
    unit: str = ""
    enum: str | None = None
    low: float | None = None
    high: float | None = None


class LockedTable(BaseModel):
    """What is locked of a table: its key, what orders its records, and its columns by name."""

    model_config = ConfigDict(frozen=True)

    key: list[str]
    nullable_key: list[str]
    event_time: str | None
    by_arrival: bool
    scope: str | None
    columns: dict[str, LockedColumn]


class LockedFolder(BaseModel):
    """What is locked of an export folder."""

    model_config = ConfigDict(frozen=True)

    tables: list[str]
    extensions: list[str]
    messages: list[str]
    reject_table: str


class Lock(BaseModel):
    """All contracts, and their version: major.minor."""

    model_config = ConfigDict(frozen=True)

    version: str
    tables: dict[str, LockedTable]
    folders: dict[str, LockedFolder]
    enums: dict[str, dict[str, int]]

    @property
    def major(self) -> int:
        """The major version."""
        return int(self.version.partition(".")[0])


class Change(BaseModel):
    """One difference between two locks. `where` names the table and column, folder or enum value."""

    model_config = ConfigDict(frozen=True)

    where: str
    what: str
    breaking: bool


def _column(column: Column) -> LockedColumn:
    return LockedColumn(
        type=str(column.type),
        nullable=column.nullable,
        presence=column.presence.value,
        path=column.field_path,
        unit=column.unit,
        enum=column.enum,
        low=column.low,
        high=column.high,
    )


def _table(table: Table) -> LockedTable:
    return LockedTable(
        key=list(table.key),
        nullable_key=list(table.nullable_key),
        event_time=table.event_time,
        by_arrival=table.by_arrival,
        scope=table.scope,
        columns={column.name: _column(column) for column in table.columns},
    )


def _folder(folder: Folder) -> LockedFolder:
    return LockedFolder(
        tables=list(folder.tables),
        extensions=list(folder.extensions),
        messages=list(folder.messages),
        reject_table=folder.reject_table,
    )


def current() -> Lock:
    """Return the lock of the current declarations."""
    return Lock(
        version=VERSION,
        tables={name: _table(table) for name, table in sorted(TABLES.items())},
        folders={path: _folder(folder) for path, folder in sorted(FOLDERS.items())},
        enums={name: spec.numbers for name, spec in sorted(ENUMS.items())},
    )


def load(path: Path = PATH) -> Lock:
    """Return the committed lock. Raises ContractError if it can't be read."""
    try:
        return Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: expected the contract lock, found {error}; restore it from version control") from error


def compare(old: Lock, new: Lock) -> list[Change]:
    """Return every difference, sorted by table, folder or enum."""
    changes = [*_tables(old, new), *_folders(old, new), *_enums(old, new)]
    return sorted(changes, key=lambda change: (change.where, change.what))


def _named(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    gone = [Change(where=name, what=f"{kind} removed", breaking=True) for name in old.keys() - new.keys()]
    return gone + [Change(where=name, what=f"{kind} added", breaking=False) for name in new.keys() - old.keys()]


def _tables(old: Lock, new: Lock) -> list[Change]:
    changes = _named("table", old.tables, new.tables)
    for name in old.tables.keys() & new.tables.keys():
        before, after = old.tables[name], new.tables[name]
        for part in ("key", "nullable_key", "event_time", "by_arrival", "scope"):
            changes += _differs(f"{name}.{part}", getattr(before, part), getattr(after, part))
        changes += _columns(name, before.columns, after.columns)
    return changes


def _columns(table: str, old: dict[str, LockedColumn], new: dict[str, LockedColumn]) -> list[Change]:
    changes = [Change(where=f"{table}.{name}", what="column removed", breaking=True) for name in old.keys() - new.keys()]
    for name in new.keys() - old.keys():
        what = "column added" if new[name].nullable else "column added that producers must fill"
        changes.append(Change(where=f"{table}.{name}", what=what, breaking=not new[name].nullable))
    for name in old.keys() & new.keys():
        for part in LockedColumn.model_fields:
            changes += _differs(f"{table}.{name}", getattr(old[name], part), getattr(new[name], part), part)
    return changes


def _differs(where: str, old: Any, new: Any, part: str = "") -> list[Change]:
    if old == new:
        return []
    return [Change(where=where, what=f"{part} changed from {old} to {new}".strip(), breaking=True)]


def _folders(old: Lock, new: Lock) -> list[Change]:
    changes = _named("folder", old.folders, new.folders)
    for path in old.folders.keys() & new.folders.keys():
        before, after = old.folders[path], new.folders[path]
        changes += _differs(path, before.reject_table, after.reject_table, "reject_table")
        for part in ("tables", "extensions", "messages"):
            for one in set(getattr(before, part)) ^ set(getattr(after, part)):
                gone = one in getattr(before, part)
                changes.append(Change(where=path, what=f"{one} {'removed from' if gone else 'added to'} {part}", breaking=gone))
    return changes


def _enums(old: Lock, new: Lock) -> list[Change]:
    changes = _named("enum", old.enums, new.enums)
    for name in old.enums.keys() & new.enums.keys():
        before, after = old.enums[name], new.enums[name]
        for value in before.keys() | after.keys():
            if value not in before:
                changes.append(Change(where=f"{name}.{value}", what="value added", breaking=after[value] in before.values()))
            elif before[value] != after.get(value):
                changes.append(Change(where=f"{name}.{value}", what="value removed or renumbered", breaking=True))
    return changes


def check(old: Lock, new: Lock) -> list[Change]:
    """Return the changes from `old` to `new`. Raises ContractError naming each breaking one without a new major version."""
    changes = compare(old, new)
    breaking = [change for change in changes if change.breaking]
    if breaking and new.major <= old.major:
        named = "; ".join(f"{change.where}: {change.what}" for change in breaking)
        raise ContractError(
            f"contracts {new.version}: expected no breaking change of {old.version}, found {named}; "
            "undo it, or raise the major version in schemas/contracts/lock.py"
        )
    return changes


def write(path: Path = PATH) -> None:
    """Write the current declarations to the lock. Raises ContractError if they break it without a new major version."""
    new = current()
    if path.exists():
        check(load(path), new)
    path.write_text(json.dumps(new.model_dump(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
