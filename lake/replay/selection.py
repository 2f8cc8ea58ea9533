"""Select the rejected records to decode again, with what is known about them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.accounting import export_key, feeds, weights
from lake.exports.folders import identity
from lake.rejects import reject_names
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES, Folder
from schemas.contracts.oona import ROUTES
from schemas.decode.again import Kept, file_is_bad, needs_file

SLICE = 4096  # rejects that are decoded at once
Reasons = dict[str, Counter[str]]  # records by reason code and rejects table
Row = dict[str, Any]


@dataclass(frozen=True, order=True)
class Source:
    """One export: its folder and its identity there (`lake.exports.folders.identity`)."""

    folder: str
    identity: str

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes."""
        return self.identity.partition(":")[0]


@dataclass(frozen=True, order=True)
class Key:
    """One record: its export and its position in it."""

    source: Source
    position: int


@dataclass(frozen=True)
class Filter:
    """Which rejects are asked for; None: any."""

    table: str | None = None
    reason: str | None = None

    def takes(self, table: str, reason: str) -> bool:
        """Return whether a reject is asked for."""
        return self.table in (None, table) and self.reason in (None, reason)


@dataclass
class Selection:
    """Records to decode again. `before`: the reasons of all rejects of these records.

    `files`: exports that must be read whole; the value is the position from which on they were never read, if any.
    """

    tables: TableStore
    before: dict[Key, Reasons] = field(default_factory=dict)
    files: dict[Source, int | None] = field(default_factory=dict)
    _stored: dict[Source, frozenset[int]] = field(default_factory=dict)

    def stored(self, source: Source) -> frozenset[int]:
        """Return the positions of an export from which a row is stored."""
        if source not in self._stored:
            found: set[int] = set()
            for name in feeds(FOLDERS[source.folder]):
                for batch in self.tables.batches(name, columns=["export_digest", "position"]):
                    of_source = batch.filter(pc.equal(batch.column("export_digest"), source.digest))
                    found.update(of_source.column("position").to_pylist())
            self._stored[source] = frozenset(found)
        return self._stored[source]

    @cached_property
    def kept(self) -> frozenset[tuple[str, int]]:
        """Return (digest, position) of records with a stored row: their head is good, and only parts were rejected."""
        wanted = {(key.source.digest, key.position) for key in self.before}
        names = {name for folder in {key.source.folder for key in self.before} for name in feeds(FOLDERS[folder])}
        found: set[tuple[str, int]] = set()
        for name in sorted(names):
            for batch in self.tables.batches(name):
                found |= wanted & set(zip(batch["export_digest"].to_pylist(), batch["position"].to_pylist(), strict=True))
        return frozenset(found)

    def accepted(self, key: Key) -> bool:
        """Return whether the record itself was accepted before, and only parts of it were rejected.

        False for a telemetry packet whose metrics all came from a copy: its rows then count as read again.
        """
        reasons = self.before.get(key)
        if reasons is None:
            return False
        return (key.source.digest, key.position) in self.kept or not heads(FOLDERS[key.source.folder]) & reasons.keys()

    def arrival(self, source: Source, name: str) -> int | None:
        """Return the number of the newest arrival of an export that table `name` holds."""
        return self.tables.transaction(name, export_key(FOLDERS[source.folder], source.identity))

    def raws(self) -> Iterator[tuple[Source, str, list[Kept]]]:
        """Yield the records that need no file, each once, by export: (export, file, records)."""
        done: set[Key] = set()
        for name in reject_names(self.tables):
            for rows in _slices(self.tables, name):
                groups: dict[tuple[Source, str], list[Kept]] = {}
                for row in rows:
                    key = key_of(row)
                    if key in self.before and key not in done and key.source not in self.files:
                        done.add(key)
                        record = Kept(row["position"], row["reason"], row["raw"] or b"")
                        groups.setdefault((key.source, row["file"]), []).append(record)
                for (source, file), records in groups.items():
                    yield source, file, records


def select(tables: TableStore, wanted: Filter) -> Selection:
    """Return the records of all rejects that are asked for, with all their rejects."""
    chosen: set[Key] = set()
    found = Selection(tables)
    for name in reject_names(tables):
        for rows in _slices(tables, name):
            for row in rows:
                if wanted.takes(name, row["reason"]):
                    key = key_of(row)
                    chosen.add(key)
                    _note_file(found, key, row)
    for name in reject_names(tables):
        rejects = tables.read(name, columns=["export_digest", "file", "position", "reason", "records"])
        for row, weight in zip(rejects.to_pylist(), weights(rejects), strict=True):
            key = key_of(row)
            if key in chosen or key.source in found.files:
                found.before.setdefault(key, {}).setdefault(name, Counter())[row["reason"]] += weight
    return found


def _note_file(found: Selection, key: Key, row: Row) -> None:
    """Note that a reject's export must be read whole, and from which position on it was never read."""
    record = Kept(row["position"], row["reason"], row["raw"] or b"")
    if not needs_file(row["file"], record):
        return
    first = found.files.get(key.source)
    if file_is_bad(row["file"], record):
        first = record.position if first is None else min(first, record.position)
    found.files[key.source] = first


def key_of(row: Row) -> Key:
    """Return the record of one row of a rejects table."""
    folder = str(row["file"]).rpartition("/")[0]
    return Key(Source(folder, identity(folder, row["file"], row["export_digest"])), row["position"])


def heads(folder: Folder) -> frozenset[str]:
    """Return the rejects tables that hold whole records of a folder's files: its own, and its messages' for envelopes."""
    carried = (FOLDERS[path].record for _, path in ROUTES.values()) if not folder.tables else ()
    return frozenset({folder.reject_table, *(folder.reject_table_of(record) for record in carried)})


def contract_of(folder: Folder, reject_table: str) -> str | None:
    """Return the contract table whose bad rows from a folder are in a rejects table; None if they belong to no table."""
    return next((name for name in feeds(folder) if name in TABLES and folder.reject_table_of(name) == reject_table), None)


def _slices(tables: TableStore, name: str) -> Iterator[list[Row]]:
    for batch in tables.batches(name):
        for start in range(0, batch.num_rows, SLICE):
            yield pa.Table.from_batches([batch.slice(start, SLICE)]).to_pylist()
