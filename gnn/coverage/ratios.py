"""Sum coverage counts over training runs: by key, by family, and against a threshold."""

from typing import Any

import pyarrow as pa

from gnn.coverage.signals import CoverageFigures


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
