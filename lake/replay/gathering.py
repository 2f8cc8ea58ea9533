"""Gather on disk the results of decoding records again: rows, rejects, and the changes of each table's counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from lake.replay.selection import Key, Reasons, Selection, Source, contract_of
from lake.store.validation import declaration, refuse
from schemas.contracts import FOLDERS, REJECT_SCHEMA, TABLES
from schemas.decode import Decoded
from schemas.table_declaration import DeclaredTable

ROWS_SUFFIX: Final = ".rows"
PLACES_SUFFIX: Final = ".places"
PLACES: Final = pa.schema([("export_digest", pa.string()), ("position", pa.int64()), ("folder", pa.string())])


@dataclass
class Gathered:
    """What is gathered for one table: an Arrow file of rows, places of records, and counts (see `replay_plan.Change`)."""

    path: Path
    schema: pa.Schema
    declared: DeclaredTable | None = None
    places: set[tuple[str, int, str]] = field(default_factory=set)
    rows: int = 0
    fresh: int = 0
    healed: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        """Open the file."""
        self._writer = pa.ipc.new_file(str(self.path), self.schema)

    def add(self, rows: pa.Table) -> None:
        """Append rows. Raises StorageError if they break the rules of their table."""
        if self.declared is not None:
            refuse(self.declared, rows, part="rows")
        self.rows += rows.num_rows
        self._writer.write_table(rows)

    def close(self) -> None:
        """Finish both files."""
        self._writer.close()
        columns = list(zip(*sorted(self.places), strict=True)) or [(), (), ()]
        with pa.ipc.new_file(str(self.path.with_suffix(PLACES_SUFFIX)), PLACES) as writer:
            writer.write_table(pa.table([pa.array(c, one.type) for c, one in zip(columns, PLACES, strict=True)], schema=PLACES))


@dataclass
class Outcomes:
    """Everything that a replay will change. `healed` and `failing` count rejects by their former (rejects table, reason)."""

    folder: Path
    selection: Selection
    changes: dict[str, Gathered] = field(default_factory=dict)
    healed: Counter[tuple[str, str]] = field(default_factory=Counter)
    failing: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, source: Source, decoded: Decoded | None, asked: Iterable[int], first: int | None = None) -> set[int]:
        """Add one decoded chunk of an export; return the positions of the records that were judged.

        These are the records asked for, all rejected before, and all from `first` on, which were never read before. A record
        that was unknown before lay in the bad piece that was asked for and precedes it.
        """
        after = {} if decoded is None else _reasons(decoded)
        seen = set(after) | (set() if decoded is None else _positions(decoded))
        wanted = set(asked) | {position for position in seen if self._is_wanted(Key(source, position), first)}
        fresh = {position for position in wanted if Key(source, position) not in self.selection.before}
        cut = {max((other for other in asked if other <= position), default=position) for position in fresh}
        changed = fresh | cut
        for position in sorted(wanted):
            if self._judge(Key(source, position), after.get(position, {}), known=position in changed):
                changed.add(position)
        if decoded is not None:
            self._stage_rows(source, decoded, changed)
            for name, rejects in decoded.rejects.items():
                self._of(name).add(_at(rejects, changed))
        return wanted

    def _is_wanted(self, key: Key, first: int | None) -> bool:
        if key in self.selection.before:
            return True
        return first is not None and key.position >= first and key.position not in self.selection.stored(key.source)

    def leave(self, key: Key) -> None:
        """Leave a record as it is, because the file that it needs is absent."""
        for name, reasons in self.selection.before[key].items():
            self.failing.update({(name, reason): count for reason, count in reasons.items()})

    def close(self) -> None:
        """Finish writing."""
        for change in self.changes.values():
            change.close()

    def _judge(self, key: Key, after: Reasons, *, known: bool) -> bool:
        """Count one record's rejects before and after; return whether they changed. `known`: they surely did."""
        before = self.selection.before.get(key, {})
        accepted = self.selection.accepted(key)
        for name in before.keys() | after.keys():
            old, new = before.get(name, Counter[str]()), after.get(name, Counter[str]())
            healed = max(0, old.total() - new.total())
            for reason, count in _healed(old, new, healed).items():
                self.healed[name, reason] += count
            self.failing.update({(name, reason): n for reason, n in (old - _healed(old, new, healed)).items()})
            self._count(key, name, new.total() - old.total(), healed if accepted else 0)
        if before == after and not known:
            return False
        for name in before:
            self._replace(name, key)
        return True

    def _count(self, key: Key, reject_table: str, rejected: int, healed: int) -> None:
        name = contract_of(FOLDERS[key.source.folder], reject_table)
        if name is not None and (rejected or healed):
            self._of(name).rejected += rejected
            self._of(name).healed += healed

    def _stage_rows(self, source: Source, decoded: Decoded, changed: set[int]) -> None:
        """Stage all rows of records not accepted before; of other records, only rows of tables that had rejects of them."""
        folder = FOLDERS[source.folder]
        before = {position: self.selection.before.get(Key(source, position), {}) for position in changed}
        accepted = {position for position in changed if self.selection.accepted(Key(source, position))}
        for name, rows in decoded.tables.items():
            parts = {position for position in accepted if folder.reject_table_of(name) in before[position]}
            fresh, again = _at(rows, changed - accepted), _at(rows, parts)
            for chosen in (fresh, again):
                if chosen.num_rows:
                    self._of(name).add(self._arrived(source, name, chosen))
                    self._of(name).fresh += chosen.num_rows if chosen is fresh else 0
            for position in parts:
                self._replace(name, Key(source, position))

    def _arrived(self, source: Source, name: str, rows: pa.Table) -> pa.Table:
        """Return `rows` with the number of their export's newest arrival, if their table is ordered by it."""
        place = rows.schema.get_field_index("arrival")
        if place < 0:
            return rows
        arrival = self.selection.arrival(source, name)
        return rows.set_column(place, rows.schema.field(place), pa.repeat(pa.scalar(arrival, pa.int64()), rows.num_rows))

    def _replace(self, name: str, key: Key) -> None:
        self._of(name).places.add((key.source.digest, key.position, key.source.folder))

    def _of(self, name: str) -> Gathered:
        if name not in self.changes:
            schema = TABLES[name].arrow_schema if name in TABLES else REJECT_SCHEMA
            self.changes[name] = Gathered(self.folder / f"{name}{ROWS_SUFFIX}", schema, declaration(name))
        return self.changes[name]


def _healed(old: Counter[str], new: Counter[str], count: int) -> Counter[str]:
    """Return which `count` of the old reasons are healed, first those that no longer occur."""
    found: Counter[str] = Counter()
    for reasons in (old - new, old & new):
        for reason, number in reasons.items():
            taken = min(number, count - found.total())
            if taken > 0:
                found[reason] += taken
    return found


def _reasons(decoded: Decoded) -> dict[int, Reasons]:
    """Return the reason codes of a chunk's rejects, by position and rejects table."""
    found: dict[int, Reasons] = {}
    for name, rejects in decoded.rejects.items():
        columns = (rejects.column(column).to_pylist() for column in ("position", "reason", "records"))
        for position, reason, records in zip(*columns, strict=True):
            found.setdefault(position, {}).setdefault(name, Counter())[reason] += records
    return found


def _positions(decoded: Decoded) -> set[int]:
    return {position for rows in decoded.tables.values() for position in rows.column("position").to_pylist()}


def _at(rows: pa.Table, positions: Iterable[int]) -> pa.Table:
    """Return the rows at some positions."""
    mask = np.isin(np.asarray(rows.column("position"), np.int64), np.fromiter(positions, np.int64))
    return rows.filter(pa.array(mask))
