"""Gather coverage for the panel: gaps by system to ask, keys, training runs, and the history of rebuilds."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gnn.coverage.ratios import key_totals, summed_by_key
from gnn.coverage.signals import CoverageFigures
from lake.store.increments import by_bucket
from lake.store.table_store import TableStore
from schemas.features import FAMILIES, GROUPS
from tamiyo_assets.panel.facts import CoveragePoint, Gap, KeyCoverage, Retired, Run

HISTORY: Final = "coverage.history"
RETIRED: Final = "operations.retired"
_REBUILDS_SHOWN: Final = 40
_RUNS_AT_ONCE: Final = 5_000  # training runs whose counts, some 117 keys each, are in memory at once
_MANDATORY: Final = frozenset(group.key(feature) for group in GROUPS for feature in group.features if feature.mandatory)


def time_of(nanoseconds: int) -> datetime:
    """Return the time, in UTC."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def keys_of(tables: TableStore) -> tuple[KeyCoverage, ...]:
    """Return every key, worst first."""
    if not tables.exists("coverage.by_key"):
        return ()
    return tuple(KeyCoverage(**row) for row in summed_by_key(key_totals(tables)))


def gaps_of(tables: TableStore) -> tuple[Gap, ...]:
    """Return one gap per system, key and kind of reason; mandatory keys first, then by the share that is missing."""
    if not tables.exists("coverage.gaps"):
        return ()
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in tables.read("coverage.gaps").to_pylist():
        grouped.setdefault((row["system"], row["key"], row["reason"].partition(":")[0]), []).append(row)
    found = [_gap(system, key, rows) for (system, key, _), rows in grouped.items()]
    return tuple(sorted(found, key=lambda gap: (not gap.mandatory, -(gap.share or 0.0), gap.system, gap.key)))


def _gap(system: str, key: str, rows: list[Mapping[str, Any]]) -> Gap:
    return Gap(
        system=system,
        key=key,
        mandatory=key in _MANDATORY,
        reason=rows[0]["reason"].partition(", on ")[0],
        runs=tuple(sorted({row["training_run_id"] for row in rows})),
        since=time_of(min(row["since_timestamp_ns"] for row in rows)),
        missing=sum(row["missing"] for row in rows),
        elements=sum(row["elements"] for row in rows),
    )


def runs_of(tables: TableStore, gaps: Iterable[Gap], family_threshold: float) -> tuple[Run, ...]:
    """Return every training run with coverage: those with mandatory gaps first, then the lowest coverage."""
    if not tables.exists("coverage.by_key"):
        return ()
    systems: dict[str, dict[str, None]] = {}
    number: dict[str, int] = {}
    for gap in gaps:
        for run in gap.runs:
            systems.setdefault(run, {})[gap.system] = None
            number[run] = number.get(run, 0) + 1
    names = by_bucket(tables.read("coverage.by_family", columns=["training_run_id"]).column(0).unique().to_pylist())
    found = []
    for first in range(0, len(names), _RUNS_AT_ONCE):
        for run, own, lacking in _counts(tables, names[first : first + _RUNS_AT_ONCE]):
            figures = CoverageFigures.of(own)
            found.append(
                Run(
                    run_id=run,
                    coverage=figures.mean,
                    families={family: figures.families.get(family) for family in FAMILIES},
                    mandatory_missing=tuple(sorted(lacking)),
                    families_under=tuple(name for name, ratio in figures.families.items() if ratio < family_threshold),
                    gaps=number.get(run, 0),
                    systems=tuple(systems.get(run, ())),
                )
            )
    return tuple(sorted(found, key=lambda run: (-len(run.mandatory_missing), run.coverage, run.run_id)))


def _counts(tables: TableStore, runs: list[str]) -> list[tuple[str, dict[str, tuple[int, int]], list[str]]]:
    """Return of each of `runs` the measured values and elements by key, and the mandatory keys that lack some."""
    rows = tables.read("coverage.by_key", runs=runs, columns=["training_run_id", "key", "mandatory", "measured", "elements"])
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    lacking: dict[str, list[str]] = {}
    for run, key, mandatory, measured, elements in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        counts.setdefault(run, {})[key] = (measured, elements)
        if mandatory and measured < elements:
            lacking.setdefault(run, []).append(key)
    return [(run, own, lacking.get(run, [])) for run, own in counts.items()]


def history_of(tables: TableStore) -> tuple[CoveragePoint, ...]:
    """Return coverage after each of the newest rebuilds, oldest first; none before the table was written."""
    if not tables.exists(HISTORY):
        return ()
    rows = tables.read(HISTORY, columns=["rebuild_run_id", "finished_at_ns", "key", "measured", "elements"])
    counts: dict[tuple[int, str], dict[str, tuple[int, int]]] = {}
    for run, at, key, measured, elements in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        counts.setdefault((at, run), {})[key] = (measured, elements)
    found = []
    for (at, run), own in sorted(counts.items())[-_REBUILDS_SHOWN:]:
        figures = CoverageFigures.of(own)
        found.append(CoveragePoint(run, time_of(at), figures.mean, figures.mandatory_mean))
    return tuple(found)


def retired_of(tables: TableStore) -> tuple[Retired, ...]:
    """Return the training runs that operators retired; none if the table was never written."""
    if not tables.exists(RETIRED):
        return ()
    names = ["training_run_id", "reason", "retired_at_ns", "by"]
    rows = tables.read(RETIRED, columns=names).to_pylist()
    return tuple(Retired(row["training_run_id"], row["reason"], time_of(row["retired_at_ns"]), row["by"]) for row in rows)
