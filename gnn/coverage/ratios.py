"""Sum coverage counts over training runs: by key, by family, and against a threshold."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa

from gnn.coverage.signals import CoverageFigures
from schemas.derived.tables import DERIVED

BY_KEY: Final = "coverage.by_key"
_OF_KEY: Final = ["key", "family", "system", "mandatory"]


class Tables(Protocol):
    """Tables that are read in batches."""

    def batches(self, name: str, *, columns: Sequence[str], runs: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield rows of some columns and training runs (None: all)."""


def key_totals(tables: Tables, runs: Sequence[str] | None = None) -> pa.Table:
    """Sum the rows of `coverage.by_key` over training runs (None: all), batch by batch.

    Return a few rows for each key, for the functions below. The table of 100,000 runs has 12 million rows, more than 1 GB.
    """
    columns = [*_OF_KEY, "measured", "elements"]
    parts = [pa.schema([DERIVED[BY_KEY].field(name) for name in columns]).empty_table()]
    for batch in tables.batches(BY_KEY, columns=columns, runs=runs):
        total = pa.Table.from_batches([batch]).group_by(_OF_KEY).aggregate([("measured", "sum"), ("elements", "sum")])
        named = [total.column(name) for name in (*_OF_KEY, "measured_sum", "elements_sum")]
        parts.append(pa.Table.from_arrays(named, schema=parts[0].schema))
    return pa.concat_tables(parts)


def summed(rows: pa.Table, by: list[str]) -> list[dict[str, Any]]:
    """Return rows of `coverage.by_key` or `.by_family` summed over runs, grouped by the columns `by`, worst first.

    Each row has the columns `by`, measured, elements and ratio. A group without elements has the ratio None and comes last.
    """
    total = rows.group_by(by).aggregate([("measured", "sum"), ("elements", "sum")])
    found = [
        {name: row[name] for name in by}
        | {"measured": row["measured_sum"], "elements": row["elements_sum"]}
        | {"ratio": row["measured_sum"] / row["elements_sum"] if row["elements_sum"] else None}
        for row in total.to_pylist()
    ]
    return sorted(found, key=lambda row: (row["ratio"] is None, row["ratio"] or 0.0, row[by[0]]))


def summed_by_key(rows: pa.Table) -> list[dict[str, Any]]:
    """Return every key summed over runs, with its family, its system and whether it is mandatory."""
    return summed(rows, ["key", "family", "system", "mandatory"])


def ratios(rows: pa.Table, by: list[str]) -> list[dict[str, Any]]:
    """Return `summed` without the groups that have no elements, worst first."""
    return [row for row in summed(rows, by) if row["ratio"] is not None]


def coverage_figures(rows: pa.Table) -> CoverageFigures | None:
    """Compute the figures of all runs together from `coverage.by_key`; None if it has no rows."""
    if not rows.num_rows:
        return None
    return CoverageFigures.of({row["key"]: (row["measured"], row["elements"]) for row in summed(rows, ["key"])})
