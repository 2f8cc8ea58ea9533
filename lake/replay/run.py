"""Replay rejected records with the current code and limits, in one step."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from pydantic import BaseModel, ConfigDict

from lake.durable.publish import TEMPORARY, ensure_dir, lock, publish_dir, sweep
from lake.exports.folders import Export, Exports
from lake.ingest.ingest import INGEST_LOCK
from lake.ingest.replay_plan import DIRECTORY, PLAN, Change, Plan, finish, identity, next_number
from lake.replay.gathering import PLACES_SUFFIX, ROWS_SUFFIX, Outcomes
from lake.replay.selection import Filter, Key, Selection, Source, select
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Limits, decode_file
from schemas.decode.again import decode_again
from schemas.errors import StorageError


class Replayed(BaseModel):
    """Rejects of one rejects table and reason: how many are rejects no longer, and how many still are."""

    model_config = ConfigDict(frozen=True)

    table: str
    reason: str
    healed: int
    failing: int


class Replay(BaseModel):
    """What a replay did. `gained`: rows by contract table. `files_missing`: how many exports were needed whole but are gone."""

    model_config = ConfigDict(frozen=True)

    rejects: list[Replayed]
    gained: dict[str, int]
    files_missing: int

    @property
    def healed(self) -> int:
        """Rejects that have become rows."""
        return sum(one.healed for one in self.rejects)


def replay(home: Path, tables: TableStore, exports: Exports, limits: Limits, wanted: Filter) -> Replay:
    """Decode the wanted rejects again. Holds the ingest lock; safe to repeat and to kill.

    A record that passes now becomes rows of its contract tables and leaves its rejects table; any other stays, with its current
    reason. The kept bytes are read; the export itself is read only if they are not the whole record.
    """
    with lock(home / INGEST_LOCK):
        finish(home, tables)
        sweep(home, DIRECTORY)
        selection = select(tables, wanted)
        folder = Path(mkdtemp(prefix=f".{DIRECTORY}.", suffix=TEMPORARY, dir=_made(home)))
        outcomes = Outcomes(folder, selection)
        _decode_kept(outcomes, limits)
        missing = _decode_files(outcomes, exports, limits)
        outcomes.close()
        plan = _plan(tables, outcomes)
        (folder / PLAN).write_text(plan.model_dump_json(), encoding="utf-8")
        if plan.changes:
            publish_dir(folder, home / DIRECTORY)
        gained = finish(home, tables)
        sweep(home, DIRECTORY)
    return Replay(rejects=list(_counts(outcomes)), gained={n: g for n, g in gained.items() if g}, files_missing=missing)


def _made(home: Path) -> Path:
    ensure_dir(home)
    return home


def _decode_kept(outcomes: Outcomes, limits: Limits) -> None:
    """Decode records whose bytes were kept whole."""
    for source, file, records in outcomes.selection.raws():
        decoded = decode_again(FOLDERS[source.folder], file, source.digest, records, limits)
        outcomes.take(source, decoded, [record.position for record in records], first=0)


def _decode_files(outcomes: Outcomes, exports: Exports, limits: Limits) -> int:
    """Decode exports that must be read whole; return how many of them are gone."""
    selection = outcomes.selection
    found = _present(selection, exports)
    for source, first in selection.files.items():
        left = {key.position for key in selection.before if key.source == source}
        if source not in found:
            for position in sorted(left):
                outcomes.leave(Key(source, position))
            continue
        export = found[source]
        for chunk in decode_file(export.path, FOLDERS[source.folder], file=export.file, digest=export.digest, limits=limits):
            left -= outcomes.take(source, chunk, (), first)
        outcomes.take(source, None, left)
        if not export.unchanged():
            raise StorageError(f"{export.file}: expected an export that stays as it is, found it changed; replay again")
    return len(selection.files.keys() - found.keys())


def _present(selection: Selection, exports: Exports) -> dict[Source, Export]:
    """Return the exports that must be read whole and are still under the root."""
    if not selection.files or not exports.root.is_dir():
        return {}
    scan = exports.scan({source.folder for source in selection.files})
    here = {Source(export.folder, export.identity): export for export in scan.exports}
    return {source: export for source, export in here.items() if source in selection.files}


def _plan(tables: TableStore, outcomes: Outcomes) -> Plan:
    """Return the changes of all tables, contract tables first."""
    names = sorted(outcomes.changes, key=lambda name: (name not in TABLES, name))
    changes = tuple(
        Change(
            name=name,
            identity=identity(tables, name),
            rows=f"{name}{ROWS_SUFFIX}",
            places=f"{name}{PLACES_SUFFIX}",
            fresh=outcomes.changes[name].fresh,
            healed=outcomes.changes[name].healed,
            rejected=outcomes.changes[name].rejected,
        )
        for name in names
    )
    return Plan(number=next_number(tables), changes=tuple(one for one in changes if not _is_empty(outcomes, one)))


def _is_empty(outcomes: Outcomes, change: Change) -> bool:
    gathered = outcomes.changes[change.name]
    return not (gathered.places or gathered.rows or change.rejected or change.healed)


def _counts(outcomes: Outcomes) -> Iterator[Replayed]:
    """Yield the healed and failing rejects by table and reason."""
    for table, reason in sorted(outcomes.healed.keys() | outcomes.failing.keys()):
        healed, failing = outcomes.healed[table, reason], outcomes.failing[table, reason]
        if healed or failing:
            yield Replayed(table=table, reason=reason, healed=healed, failing=failing)
