"""Retire training runs: keep their rows in the contract tables, and leave them out of everything derived.

The journal `$TAMIYO_HOME/retirements.ndjson` is append-only and fsynced; it can't be rebuilt from exports. The table
`operations.retired` holds its state at the newest rebuild; all derived tables read that.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lake.durable.journal import Journal
from lake.durable.publish import ensure_dir, lock
from lake.store.pruning import SCOPE
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED, RETIRED

RETIREMENTS: Final = "retirements.ndjson"
LOCK: Final = ".retirements.lock"
TABLE: Final = RETIRED.name


@dataclass(frozen=True, order=True)
class Retirement:
    """One retired training run: why, since when (ns since 1970 UTC), and which user retired it."""

    training_run_id: str
    reason: str
    retired_at_ns: int
    by: str


@dataclass(frozen=True)
class Retirements:
    """The journal of one home."""

    home: Path

    @property
    def journal(self) -> Journal:
        """The journal's file."""
        return Journal(
            self.home / RETIREMENTS,
            "which runs are retired is known nowhere else: restore the file, or remove that line and retire its run again",
        )

    def current(self) -> dict[str, Retirement]:
        """Return the retired runs by id, sorted. Raises StorageError for a damaged line."""
        journal, found = self.journal, dict[str, Retirement]()
        for number, record in enumerate(journal.read(), start=1):
            try:
                event, one = record.pop("event"), Retirement(**record)
            except (KeyError, TypeError) as damage:
                raise journal.damaged(number, f"expected a retirement, found {damage}") from None
            if event == "retired":
                found[one.training_run_id] = one
            elif event == "restored":
                found.pop(one.training_run_id, None)
            else:
                raise journal.damaged(number, f"expected the event retired or restored, found {event!r}")
        return dict(sorted(found.items()))

    def retire(self, runs: Iterable[str], reason: str, by: str, at_ns: int) -> list[str]:
        """Retire runs; return those not retired before, or retired for another reason."""
        return self._append("retired", [Retirement(run, reason, at_ns, by) for run in dict.fromkeys(runs)])

    def restore(self, runs: Iterable[str], reason: str, by: str, at_ns: int) -> list[str]:
        """Restore runs; return those that were retired."""
        return self._append("restored", [Retirement(run, reason, at_ns, by) for run in dict.fromkeys(runs)])

    def _append(self, event: str, wanted: Sequence[Retirement]) -> list[str]:
        ensure_dir(self.home)
        with lock(self.home / LOCK):
            known = self.current()
            before = {run: one.reason for run, one in known.items()}
            changed = [
                one
                for one in wanted
                if (before.get(one.training_run_id) != one.reason if event == "retired" else one.training_run_id in before)
            ]
            self.journal.append({"event": event, **asdict(one)} for one in changed)
        return [one.training_run_id for one in changed]

    def rows(self) -> pa.Table:
        """Return the retired runs as rows of `operations.retired`."""
        return pa.Table.from_pylist([asdict(one) for one in self.current().values()], schema=DERIVED[TABLE])

    def digest(self) -> str:
        """Return a digest (hex) of `rows`, which changes with the retirements; "" if no run is retired."""
        return _digest(self.current().values())


def applied_digest(tables: TableStore) -> str:
    """Return the `digest` of the retirements that the newest rebuild applied."""
    rows = tables.read(TABLE).to_pylist() if tables.exists(TABLE) else []
    return _digest(Retirement(**row) for row in rows)


def retired_runs(tables: TableStore) -> frozenset[str]:
    """Return the training runs that the newest rebuild leaves out."""
    if not tables.exists(TABLE):
        return frozenset()
    return frozenset(tables.read(TABLE, columns=[SCOPE]).column(0).to_pylist())


def runs_digest(runs: Iterable[str]) -> str:
    """Return a digest (hex) of the ids of retired runs, a part of the build id; who retired them and when is left out."""
    return hashlib.sha256(json.dumps(sorted(runs)).encode("ascii")).hexdigest()


def without(rows: pa.Table, retired: Iterable[str]) -> pa.Table:
    """Return the rows that belong to none of the `retired` runs; all rows if the table's rows belong to no run."""
    gone = pa.array(sorted(retired), pa.string())
    if not len(gone) or SCOPE not in rows.column_names:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows.column(SCOPE), value_set=gone)))


def known_runs(tables: TableStore) -> frozenset[str]:
    """Return every training run of which a contract table holds a row."""
    held = tables.held()
    names = [table.name for table in TABLES.values() if table.scope == SCOPE]
    files = [runs for name in names for runs in held.runs_by_file(name).values()]
    return frozenset(run for runs in files for run in runs if run is not None)


def _digest(found: Iterable[Retirement]) -> str:
    ordered = [asdict(one) for one in sorted(found)]
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode("ascii")).hexdigest() if ordered else ""
