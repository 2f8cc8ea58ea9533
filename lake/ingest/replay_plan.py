"""Write down what a replay will change before it changes anything, so that an interrupted replay can be completed.

`$TAMIYO_HOME/replay/` appears whole, by one rename. Each table is then written in one commit, which records the number of the
replay, so that repeating it does nothing. The directory is removed last.
"""

import shutil
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from lake.accounting import Tally, tally
from lake.store.pruning import SCOPE
from lake.store.table_store import TableStore
from schemas.contracts import REJECT_SCHEMA, TABLES
from schemas.decode.shape.merge import merge

DIRECTORY: Final = "replay"
PLAN: Final = "plan.json"
_NUMBER: Final = "tamiyo.replay"
_PLACE: Final = ["export_digest", "position"]


class Change(BaseModel):
    """The change of one table. `identity` names the Delta table: if it was rebuilt meanwhile, it already has the new rows.

    `rows`: Arrow file of new rows. `places`: Arrow file of (export_digest, position) whose old rows they replace. `fresh`: rows
    of records not read before. `healed`: rows that were rejected parts of records. `rejected`: change in the count of rejects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    identity: str
    rows: str
    places: str
    fresh: int = 0
    healed: int = 0
    rejected: int = 0


class Plan(BaseModel):
    """All changes of one replay, contract tables before rejects tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    changes: tuple[Change, ...]


def identity(tables: TableStore, name: str) -> str:
    """Return an id of a Delta table that lasts until the table is rebuilt; "" if it was never written."""
    return (tables.commit(name) or "").partition("@")[0]


def next_number(tables: TableStore) -> int:
    """Return the number of the next replay of this home."""
    return 1 + max((tables.transaction(name, _NUMBER) or 0 for name in tables.names()), default=0)


def finish(home: Path, tables: TableStore) -> dict[str, int]:
    """Complete a planned replay; return the rows gained by contract table. The caller holds the ingest lock."""
    folder = home / DIRECTORY
    if not folder.is_dir():
        return {}
    plan = Plan.model_validate_json((folder / PLAN).read_bytes())
    gained: dict[str, int] = {}
    for change in plan.changes:
        if identity(tables, change.name) != change.identity or (tables.transaction(change.name, _NUMBER) or 0) >= plan.number:
            continue
        if change.name in TABLES:
            gained[change.name] = _contract(tables, folder, change, plan.number)
        else:
            _rejects(tables, folder, change, plan.number)
    shutil.rmtree(folder)
    return gained


def _contract(tables: TableStore, folder: Path, change: Change, number: int) -> int:
    """Merge new rows into a contract table in place of rows of the same records; return the number of rows gained."""
    table = TABLES[change.name]
    new = read_rows(folder / change.rows)
    runs = sorted(set(new.column(SCOPE).to_pylist())) if table.scope else None
    old = tables.read(change.name, runs=runs)
    merged = merge(table, _without(old, read_rows(folder / change.places), _PLACE), new).rows if new.num_rows else old
    gained = int(merged.num_rows - old.num_rows)
    duplicates = max(0, change.fresh + change.healed - gained)
    said = Tally(gained + duplicates + change.rejected, duplicates, change.rejected)
    said = tally(tables, change.name).plus(said)
    rows = merged if new.num_rows else new
    transactions = {_NUMBER: number, **said.transactions()}
    tables.write(change.name, rows, runs=runs, append=not new.num_rows, transactions=transactions, metadata=said.metadata())
    return gained


def _rejects(tables: TableStore, folder: Path, change: Change, number: int) -> None:
    """Take replayed records out of a rejects table and add what is still wrong with them."""
    places = read_rows(folder / change.places)
    remaining = folder / f"{change.name}.remaining"  # a table can't be read while it is written
    with pa.ipc.new_file(str(remaining), REJECT_SCHEMA) as writer:
        for batch in tables.batches(change.name):
            writer.write_table(_without(pa.Table.from_batches([batch]), places, [*_PLACE, "folder"]))
        writer.write_table(read_rows(folder / change.rows))
    with pa.OSFile(str(remaining)) as source:
        found = pa.ipc.open_file(source)
        batches = (found.get_batch(number) for number in range(found.num_record_batches))
        reader = pa.RecordBatchReader.from_batches(REJECT_SCHEMA, batches)
        tables.write(change.name, reader, transactions={_NUMBER: number})


def read_rows(path: Path) -> pa.Table:
    """Return the rows of an Arrow file."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _without(rows: pa.Table, places: pa.Table, on: list[str]) -> pa.Table:
    """Return the rows that did not come from one of the places."""
    if not places.num_rows or not rows.num_rows:
        return rows
    frame = pl.DataFrame({name: pl.from_arrow(rows.column(name)) for name in _PLACE})
    if "folder" in on:
        file = pl.Series(rows.column("file").to_pylist(), dtype=pl.String)
        frame = frame.with_columns(folder=file.str.replace("/[^/]*$", ""))
    gone = frame.with_row_index("row").join(pl.DataFrame(pl.from_arrow(places)), on=on, how="semi")["row"]
    keep = pl.Series("row", range(rows.num_rows), dtype=pl.UInt32).is_in(gone.implode()).not_()
    return rows.filter(pa.array(keep.to_numpy()))
