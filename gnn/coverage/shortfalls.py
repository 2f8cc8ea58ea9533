"""Find keys and families below a threshold in some run, optional keys that are no longer sent, and falls between rebuilds.

Each is judged run by run or rebuild by rebuild, so that many good runs do not hide a bad one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.derived.coverage import HISTORY
from schemas.features import GROUPS

REBUILDS: Final = 20  # a fall is measured against this many rebuilds before the newest
NEWEST: Final = 3  # this many newest runs show whether an optional key is still sent
_FAMILY_OF: Final = {group.key(feature): group.family for group in GROUPS for feature in group.features}


@dataclass(frozen=True)
class Shortfall:
    """A key or family whose coverage is too low in some runs.

    `worst` is the lowest ratio among `runs`, which are sorted. `systems` are those to ask, `since_ns` is the first packet with
    the gap [ns since 1970 UTC]. Both come from `coverage.gaps`; they are () and None if it has no row of these runs and name.
    """

    name: str
    worst: float
    runs: tuple[str, ...]
    systems: tuple[str, ...] = ()
    since_ns: int | None = None


@dataclass(frozen=True)
class Fall:
    """A key whose ratio in the newest rebuild is below its median in the rebuilds before."""

    key: str
    before: float
    now: float
    since_ns: int


def low_keys(by_key: pa.Table, threshold: float) -> list[Shortfall]:
    """Find mandatory keys under `threshold` in some run, worst first; `systems` and `since_ns` are left out.

    `by_key`: columns training_run_id, key, mandatory and ratio of `coverage.by_key`. A key without elements has no ratio.
    """
    return _low(by_key.filter(by_key.column("mandatory")), "key", threshold)


def low_families(by_family: pa.Table, threshold: float) -> list[Shortfall]:
    """Find families under `threshold` in some run, worst first; `by_family` has columns training_run_id, family and ratio."""
    return _low(by_family, "family", threshold)


def _low(rows: pa.Table, name: str, threshold: float) -> list[Shortfall]:
    low = rows.filter(pc.fill_null(pc.less(rows.column("ratio"), threshold), False))
    return _grouped(low.select(["training_run_id", name, "ratio"]).to_pylist(), name)


def _grouped(rows: Iterable[dict[str, Any]], name: str) -> list[Shortfall]:
    """Return one shortfall per name from rows with a run, a name and a ratio, worst first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    shortfalls = (
        Shortfall(key, min(row["ratio"] for row in own), tuple(sorted(row["training_run_id"] for row in own)))
        for key, own in found.items()
    )
    return sorted(shortfalls, key=lambda one: (one.worst, one.name))


def newest_runs(packets: pa.Table, count: int = NEWEST) -> list[str]:
    """Return the `count` runs whose first packet is newest, newest first.

    `packets` has the columns training_run_id and timestamp_ns.
    """
    first = packets.group_by("training_run_id").aggregate([("timestamp_ns", "min")])
    order = [("timestamp_ns_min", "descending"), ("training_run_id", "descending")]
    runs: list[str] = first.sort_by(order).slice(0, count).column("training_run_id").to_pylist()
    return runs


def unsent_keys(by_key: pa.Table) -> list[Shortfall]:
    """Find optional keys that have elements but are measured nowhere in these rows of `coverage.by_key`.

    A run in which the key applies to no element is left out.
    """
    optional = by_key.filter(pc.invert(by_key.column("mandatory")))
    total = optional.group_by("key").aggregate([("measured", "sum"), ("elements", "sum")])
    unsent = {row["key"] for row in total.to_pylist() if row["elements_sum"] and not row["measured_sum"]}
    rows = optional.select(["training_run_id", "key", "ratio"]).to_pylist()
    return _grouped((row for row in rows if row["key"] in unsent and row["ratio"] is not None), "key")


def explained(shortfalls: Sequence[Shortfall], gaps: pa.Table) -> list[Shortfall]:
    """Add the systems to ask and the first packet of each gap, from rows of `coverage.gaps` of the runs concerned."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in gaps.filter(pc.greater(gaps.column("missing"), 0)).to_pylist():
        for name in {row["key"], _FAMILY_OF.get(row["key"], row["key"])}:
            by_name.setdefault(name, []).append(row)
    return [_explained(one, by_name.get(one.name, [])) for one in shortfalls]


def _explained(shortfall: Shortfall, gaps: Iterable[dict[str, Any]]) -> Shortfall:
    runs = frozenset(shortfall.runs)
    own = [row for row in gaps if row["training_run_id"] in runs]
    systems: dict[str, int] = {}
    for row in own:
        systems[row["system"]] = systems.get(row["system"], 0) + row["missing"]
    since = min((row["since_timestamp_ns"] for row in own), default=None)
    most_first = tuple(sorted(systems, key=lambda system: (-systems[system], system)))
    return Shortfall(shortfall.name, shortfall.worst, shortfall.runs, most_first, since)


def history_rows(by_key: pa.Table, rebuild: str, finished_at_ns: int) -> pa.Table:
    """Return rows of `coverage.history`: `coverage.by_key` of the runs that one rebuild changed, summed over them."""
    total = by_key.group_by("key", use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")])
    rows = (
        {"rebuild_run_id": rebuild, "finished_at_ns": finished_at_ns, "key": row["key"]}
        | {"measured": row["measured_sum"], "elements": row["elements_sum"]}
        | {"ratio": row["measured_sum"] / row["elements_sum"] if row["elements_sum"] else None}
        for row in total.to_pylist()
    )
    return pa.Table.from_pylist(list(rows), schema=HISTORY)


def falls(history: pa.Table, most: float, rebuilds: int = REBUILDS) -> list[Fall]:
    """Find keys that fell by more than `most` in the newest rebuild of `coverage.history`, largest fall first.

    The fall is measured from the median over the `rebuilds` before it; rebuilds without elements of the key are left out.
    """
    last = sorted(_unique(history.select(["finished_at_ns", "rebuild_run_id"])), reverse=True)[: rebuilds + 1]
    if len(last) < 2:
        return []
    newest, oldest = last[0], last[-1][0]
    rows = history.filter(pc.greater_equal(history.column("finished_at_ns"), oldest)).to_pylist()
    now: dict[str, float] = {}
    before: dict[str, list[float]] = {}
    for row in rows:
        if row["ratio"] is None:
            continue
        if (row["finished_at_ns"], row["rebuild_run_id"]) == newest:
            now[row["key"]] = row["ratio"]
        else:
            before.setdefault(row["key"], []).append(row["ratio"])
    found = [Fall(key, median(before[key]), ratio, newest[0]) for key, ratio in now.items() if key in before]
    return sorted((one for one in found if one.before - one.now > most + 1e-9), key=lambda one: (one.now - one.before, one.key))


def standing(falls: Iterable[Fall], by_key: pa.Table, most: float) -> list[Fall]:
    """Return the falls that `coverage.by_key` still shows; one that has since recovered, or whose runs are gone, does not."""
    lowest = by_key.group_by("key", use_threads=False).aggregate([("ratio", "min")])
    now = dict(zip(lowest.column("key").to_pylist(), lowest.column("ratio_min").to_pylist(), strict=True))
    return [fall for fall in falls if (ratio := now.get(fall.key)) is not None and fall.before - ratio > most + 1e-9]


def _unique(rows: pa.Table) -> Collection[tuple[int, str]]:
    found = rows.group_by(rows.column_names).aggregate([])
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))
