"""Contract tables by name, as features are made from them: every declared column there, typed, also where rows are none."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES
from schemas.errors import FeatureError

BLUEPRINT: Final = "urza.blueprint"
_UNDATED: Final = np.iinfo(np.int64).min


def conform(name: str, table: pa.Table) -> pa.Table:
    """`table` with exactly the contract's columns and types: absent ones NULL, others cast.

    Raises FeatureError where a column can't be what the contract says.
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


def current_elements(rows: pa.Table, blueprints: pa.Table) -> pa.Table:
    """Rows of a `urza.*` element table that belong to their blueprint's newest record.

    Elements are kept by key, so what a newer record left out is still there: it has another `exported_at_ns`, or another
    arrival where the records carry no time. Elements of a blueprint without a record of its own are all kept.
    """
    record = pc.index_in(rows.column("blueprint_id"), value_set=blueprints.column("blueprint_id").combine_chunks())
    at = pc.fill_null(record, -1).to_numpy()
    time, arrival = _stamp(rows, "exported_at_ns"), _stamp(rows, "arrival")
    record_time, record_arrival = (np.append(_stamp(blueprints, name), _UNDATED)[at] for name in ("exported_at_ns", "arrival"))
    kept = (at < 0) | ((time == record_time) & ((time != _UNDATED) | (arrival == record_arrival)))
    return rows if kept.all() else rows.filter(pa.array(kept))


def _stamp(rows: pa.Table, column: str) -> np.ndarray:
    return np.asarray(pc.fill_null(rows.column(column), int(_UNDATED)).to_numpy(), dtype=np.int64)


class Sources(Mapping[str, pa.Table]):
    """Every contract table by name, Urza's graphs as they are now; one that was not given is a typed table without rows."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """Wrap `tables`; names that are no contract table are left out."""
        self._given = {name: table for name, table in tables.items() if name in TABLES}
        self._whole: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        found = self._whole.get(name)
        if found is None:
            given = self._given.get(name)
            found = TABLES[name].empty() if given is None else conform(name, given)
            if name.startswith("urza.") and name != BLUEPRINT and found.num_rows:
                found = current_elements(found, self[BLUEPRINT])
            self._whole[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)

    def for_runs(self, runs: Collection[str]) -> "Sources":
        """The same sources with only these runs' rows in the tables that belong to runs."""
        wanted = pa.array(sorted(set(runs)), pa.string())
        kept = {}
        for name, table in TABLES.items():
            rows = self[name]
            kept[name] = rows.filter(pc.is_in(rows.column("training_run_id"), value_set=wanted)) if table.scope else rows
        return Sources(kept)
