"""Contract tables by name, as features are made from them: every declared column there, typed, also where rows are none."""

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES
from schemas.errors import FeatureError


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


class Sources(Mapping[str, pa.Table]):
    """Every contract table by name; one that was not given is a typed table without rows."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """Wrap `tables`; names that are no contract table are left out."""
        self._given = {name: table for name, table in tables.items() if name in TABLES}
        self._whole: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        found = self._whole.get(name)
        if found is None:
            given = self._given.get(name)
            found = TABLES[name].empty() if given is None else conform(name, given)
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
