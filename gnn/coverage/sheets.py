"""Blueprints of graphs without a safety sheet in time, and sheets that lack fields."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl

_FIELDS = ("risk_score", "hazard_band", "handling_class", "resource_profile")


@dataclass(frozen=True)
class SheetGaps:
    """Distinct blueprints that some graph shows without any sheet, and those whose newest sheet lacks a field."""

    missing: tuple[str, ...]
    partial: tuple[str, ...]


def sheet_gaps(blueprints: pa.Table, sheets: pa.Table) -> SheetGaps:
    """`blueprints`: features.blueprint (element_id, timestamp_ns); `sheets`: urabrask.bsds (blueprint_id, issued_at_ns, ...).

    A sheet counts for a graph where it was issued not after the graph's packet.
    """
    import polars as pl

    shown = _frame(blueprints.select(["element_id", "timestamp_ns"])).unique()
    issued = _frame(sheets.select(["blueprint_id", "issued_at_ns", *_FIELDS])).sort("issued_at_ns")
    first = issued.group_by("blueprint_id").agg(pl.col("issued_at_ns").min())
    joined = shown.join(first, left_on="element_id", right_on="blueprint_id", how="left")
    late = pl.col("issued_at_ns").is_null() | (pl.col("issued_at_ns") > pl.col("timestamp_ns"))
    missing = set(joined.filter(late)["element_id"].to_list())
    newest = issued.group_by("blueprint_id").last()
    incomplete = newest.filter(pl.any_horizontal([pl.col(name).is_null() for name in _FIELDS]))["blueprint_id"].to_list()
    partial = (set(incomplete) & set(shown["element_id"].to_list())) - missing
    return SheetGaps(tuple(sorted(missing)), tuple(sorted(partial)))


def _frame(rows: pa.Table) -> "pl.DataFrame":
    import polars as pl

    frame = pl.from_arrow(rows)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()
