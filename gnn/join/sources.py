"""Provide contract tables by name with every declared column, typed, even if a table has no rows."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.join.rows import Ints
from schemas.contracts import TABLES
from schemas.errors import FeatureError

BLUEPRINT: Final = "urza.blueprint"
_UNDATED: Final = np.iinfo(np.int64).min


def conform(name: str, table: pa.Table) -> pa.Table:
    """Return `table` with exactly the contract's columns and types: absent columns are NULL, the others cast.

    Raises FeatureError if a column can't be cast to its type.
    """
    schema = TABLES[name].arrow_schema
    if table.schema.equals(schema):
        return table
    columns = []
    for wanted in schema:
        if wanted.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, wanted.type))
            continue
        column = table.column(wanted.name)
        try:
            columns.append(column if column.type == wanted.type else column.cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FeatureError(
                f"table {name}, column {wanted.name}: expected {wanted.type}, found {column.type} ({error}); ingest it again"
            ) from error
    return pa.table(columns, schema=schema)


def elements_of_records(rows: pa.Table, blueprints: pa.Table) -> pa.Table:
    """Return the rows of a `urza.*` element table that belong to a record in `urza.blueprint`.

    A row belongs to the record of its blueprint and `exported_at_ns`. Records without that time are told apart by arrival, so
    elements that a later record dropped are left out. Elements of a blueprint without any record are all kept.
    """
    if not blueprints.num_rows:
        return rows
    ids = pc.unique(blueprints.column("blueprint_id"))
    owner, record_owner = (_codes(table, ids) for table in (rows, blueprints))
    time, record_time = (_stamp(table, "exported_at_ns") for table in (rows, blueprints))
    arrival, record_arrival = (_stamp(table, "arrival") for table in (rows, blueprints))
    times = np.unique(record_time)
    span = len(times) + 1
    keys, record_keys = owner * span + times.searchsorted(time), record_owner * span + times.searchsorted(record_time)
    order = np.argsort(record_keys)
    record = order[np.minimum(record_keys[order].searchsorted(keys), len(order) - 1)]
    of_record = (record_keys[record] == keys) & (record_time[record] == time)
    kept = (owner < 0) | (of_record & ((time != _UNDATED) | (record_arrival[record] == arrival)))
    return rows if kept.all() else rows.filter(pa.array(kept))


def newest_records(rows: pa.Table, blueprints: pa.Table) -> pa.Table:
    """Return the rows of a `urza.*` table, `urza.blueprint` included, that belong to the newest record of their blueprint."""
    ids = pc.unique(blueprints.column("blueprint_id"))
    owner, record_owner = (_codes(table, ids) for table in (rows, blueprints))
    newest = np.full(len(ids) + 1, _UNDATED)
    np.maximum.at(newest, record_owner, _stamp(blueprints, "exported_at_ns"))
    kept = (owner < 0) | (_stamp(rows, "exported_at_ns") == newest[owner])
    return rows if kept.all() else rows.filter(pa.array(kept))


def _codes(table: pa.Table, ids: pa.Array) -> Ints:
    """Return the place (int64 [n]) of each row's blueprint among `ids`; -1 if it is not one of them."""
    found = pc.index_in(table.column("blueprint_id"), value_set=ids)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def _stamp(rows: pa.Table, column: str) -> Ints:
    return np.asarray(pc.fill_null(rows.column(column), int(_UNDATED)).to_numpy(), dtype=np.int64)


class Sources(Mapping[str, pa.Table]):
    """Every contract table by name, Urza's elements limited to known records; an absent table is typed and has no rows."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """Wrap `tables`; names that are not contract tables are left out."""
        self._given = {name: table for name, table in tables.items() if name in TABLES}
        self._whole: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        found = self._whole.get(name)
        if found is None:
            given = self._given.get(name)
            found = TABLES[name].empty() if given is None else conform(name, given)
            if name.startswith("urza.") and name != BLUEPRINT and found.num_rows:
                found = elements_of_records(found, self[BLUEPRINT])
            self._whole[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)
