"""Which blueprints of graphs have no safety sheet in time, and which have one that lacks fields.

A sheet counts for a graph if the join finds it for the graph's packet: the newest that was issued not after it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

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

    `row` int64 [N] are rows of `urabrask.bsds`, -1 where there is none: missing. A sheet is partial if it lacks its risk score,
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
