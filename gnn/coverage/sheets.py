"""Find blueprints whose safety sheet was missing or incomplete at the time of some graph.

The sheet of a graph is the one that the join finds for its packet: the newest that was not issued after it.
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
    """Sorted ids of blueprints: those without a sheet for some graph, and others whose sheet is partial for some graph."""

    missing: tuple[str, ...]
    partial: tuple[str, ...]


def missing_and_partial(sheets: Rows, row: Ints) -> tuple[Bools, Bools]:
    """Return which of N sheets are missing and which are partial: bool [N] each.

    `row` int64 [N] are rows of `urabrask.bsds`, -1 for a missing sheet. A sheet is partial if it lacks its risk score,
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
    """Return the gaps of N blueprint nodes: `blueprints` [N] are their ids, `times` int64 [N] their packets' times in ns."""
    rows = sheets.newest(blueprints.translate(sheets.codes_of), times)
    missing, partial = (_ids(blueprints, marks) for marks in missing_and_partial(sheets.rows, rows))
    return SheetGaps(tuple(sorted(missing)), tuple(sorted(partial - missing)))


def _ids(blueprints: Labels, marks: Bools) -> set[str]:
    codes = np.unique(blueprints.codes[marks]).tolist()
    return {blueprints.words[code] for code in codes if code >= 0}


def runs_without_sheet(nodes: pa.Table, sheets: pa.Table) -> dict[str, list[str]]:
    """Return blueprint id -> sorted training runs with a graph of that blueprint, but no sheet issued by the packet's time.

    `nodes`: columns training_run_id, element_id and timestamp_ns of `features.blueprint`. `sheets`: blueprint_id and
    issued_at_ns of `urabrask.bsds`. If any graph of a run lacks a sheet, the run's first graph with the blueprint does.
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
    """Return blueprint id -> why no sheet could be made, if its newest failure arrived after its newest sheet.

    `failures`: columns blueprint_id, arrival and reason of `urabrask.bsds_failure`. `sheets`: blueprint_id and export_digest of
    `urabrask.bsds`. `arrivals`: number of the newest arrival of an export, by digest. A blueprint without a sheet is included.
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
