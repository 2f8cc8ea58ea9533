"""Find blueprints of graphs that have no safety sheet in time, or one that lacks fields.

A sheet counts for a graph if the join finds it for the graph's packet: the newest that was issued not after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.rows import Bools, Ints, Labels, Rows
from gnn.join.sheets import Sheets

_NUMBERS: Final = ("risk_score",)
_WORDS: Final = ("hazard_band", "handling_class", "resource_profile")


@dataclass(frozen=True)
class SheetGaps:
    """Ids of blueprints, sorted: those without a sheet for some graph, and other ones whose sheet for some graph is partial."""

    missing: tuple[str, ...]
    partial: tuple[str, ...]


def missing_and_partial(sheets: Rows, row: Ints) -> tuple[Bools, Bools]:
    """Tell of each of N sheets whether it is missing, and whether it is partial: bool [N] and bool [N].

    `row` int64 [N] are rows of `urabrask.bsds`, -1 if there is none: missing. A sheet is partial if it lacks its risk score,
    hazard band, handling class or resource profile.
    """
    missing = row < 0
    lacking = np.zeros(len(row), dtype=np.bool_)
    for name in _NUMBERS:
        lacking |= ~np.isfinite(sheets.numbers(name)[row])
    for name in _WORDS:
        lacking |= sheets.labels(name).codes[row] < 0
    return missing, lacking & ~missing


def sheet_gaps(sheets: Sheets, blueprints: Labels, times: Ints) -> SheetGaps:
    """Return the gaps of blueprint nodes: `blueprints` [N] are their ids, `times` int64 [N] their packets' times in ns."""
    rows = sheets.newest(blueprints.translate(sheets.codes_of), times)
    missing, partial = (_ids(blueprints, marks) for marks in missing_and_partial(sheets.rows, rows))
    return SheetGaps(tuple(sorted(missing)), tuple(sorted(partial - missing)))


def _ids(blueprints: Labels, marks: Bools) -> set[str]:
    codes = np.unique(blueprints.codes[marks]).tolist()
    return {blueprints.words[code] for code in codes if code >= 0}


def runs_without_sheet(nodes: pa.Table, sheets: pa.Table) -> dict[str, list[str]]:
    """Return blueprint id -> sorted training runs that have a graph with it and no sheet that was issued not after its packet.

    `nodes`: columns training_run_id, element_id and timestamp_ns of `features.blueprint`. `sheets`: blueprint_id and
    issued_at_ns of `urabrask.bsds`. A run lacks a sheet in some graph if it does in its first one that has the blueprint.
    """
    first = nodes.group_by(["element_id", "training_run_id"]).aggregate([("timestamp_ns", "min")])
    issued = sheets.group_by("blueprint_id").aggregate([("issued_at_ns", "min")])
    known = dict(zip(issued["blueprint_id"].to_pylist(), issued["issued_at_ns_min"].to_pylist(), strict=True))
    found: dict[str, list[str]] = {}
    for row in first.to_pylist():
        if row["timestamp_ns_min"] < known.get(row["element_id"], row["timestamp_ns_min"] + 1):
            found.setdefault(row["element_id"], []).append(row["training_run_id"])
    return {blueprint: sorted(runs) for blueprint, runs in sorted(found.items())}


def failed_since_sheet(failures: pa.Table, sheets: pa.Table, arrivals: Mapping[str, int]) -> dict[str, str]:
    """Return blueprint id -> why no sheet could be made, of those whose newest failure arrived after their newest sheet.

    `failures`: columns blueprint_id, arrival and reason of `urabrask.bsds_failure`. `sheets`: blueprint_id and export_digest of
    `urabrask.bsds`. `arrivals`: number of the newest arrival of an export, by digest. A blueprint without any sheet counts.
    """
    newest: dict[str, tuple[int, str]] = {}
    for row in failures.to_pylist():
        told = (-1 if row["arrival"] is None else row["arrival"], row["reason"] or "no reason given")
        newest[row["blueprint_id"]] = max(newest.get(row["blueprint_id"], told), told)
    issued: dict[str, int] = {}
    for row in sheets.to_pylist():
        arrival = arrivals.get(row["export_digest"], -1)
        issued[row["blueprint_id"]] = max(issued.get(row["blueprint_id"], arrival), arrival)
    return {name: why for name, (arrival, why) in sorted(newest.items()) if name not in issued or arrival > issued[name]}
