"""Check coverage run by run and rebuild by rebuild, so that one bad run is not diluted by many good ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg
import pyarrow.compute as pc
from dagster import ResourceParam

from lake.retirement import retired_runs
from lake.settings import Settings
from lake.store.table_store import TableStore
from schemas.features import GROUPS
from tamiyo_assets.assets.coverage import HISTORY
from tamiyo_assets.assets.problems import Problem, check_result, counted_runs, named_runs, time_of
from tamiyo_assets.assets.reports import key_of

if TYPE_CHECKING:
    from gnn.coverage.shortfalls import Shortfall

BY_KEY: Final = key_of("coverage.by_key")
BY_FAMILY: Final = key_of("coverage.by_family")
GAPS: Final = key_of("coverage.gaps")
_SYSTEM_OF: Final = {group.key(feature): feature.system for group in GROUPS for feature in group.features}
_GAPS_READ: Final = ("training_run_id", "key", "system", "missing", "since_timestamp_ns")


@dg.asset_check(asset=BY_KEY, additional_deps=[GAPS], description="Every mandatory key is measured everywhere, in every run.")
def mandatory_coverage(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """ERROR if a mandatory key is under the threshold in some run; a key without elements has no ratio."""
    from gnn.coverage.shortfalls import low_keys

    rows = tables.read("coverage.by_key", columns=["training_run_id", "key", "mandatory", "ratio"])
    low = low_keys(rows, settings.mandatory_coverage)
    return check_result(
        _shortfalls(tables, low, f"under {settings.mandatory_coverage:.2f}"),
        f"every mandatory key is at least {settings.mandatory_coverage:.2f} in every run",
        metadata={"keys_under": len(low)},
    )


@dg.asset_check(asset=BY_FAMILY, additional_deps=[GAPS], description="No family of features is mostly missing in any run.")
def family_coverage(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN if a family is under the threshold in some run."""
    from gnn.coverage.shortfalls import low_families

    rows = tables.read("coverage.by_family", columns=["training_run_id", "family", "ratio"])
    low = low_families(rows, settings.family_coverage)
    return check_result(
        _shortfalls(tables, low, f"under {settings.family_coverage:.2f}"),
        f"every family is at least {settings.family_coverage:.2f} in every run",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"families_under": len(low)},
    )


@dg.asset_check(
    asset=GAPS,
    additional_deps=[BY_KEY, key_of("features.context")],
    description="The newest runs have something of every optional key.",
)
def optional_gaps(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN if an optional key is at 0 in the newest runs by first packet, whether it was ever sent or not."""
    from gnn.coverage.shortfalls import newest_runs, unsent_keys

    packets = tables.read("features.context", columns=["training_run_id", "timestamp_ns"])
    runs = newest_runs(packets, settings.optional_gap_runs)
    columns = ["training_run_id", "key", "mandatory", "measured", "elements", "ratio"]
    unsent = unsent_keys(tables.read("coverage.by_key", runs=runs, columns=columns)) if runs else []
    return check_result(
        _shortfalls(tables, unsent, "measured nowhere"),
        "every optional key is measured in the newest runs",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"keys": len(unsent)},
    )


def _shortfalls(tables: TableStore, low: Sequence["Shortfall"], how: str) -> list[Problem]:
    """Return one problem for each key or family, with the systems that should have sent it and since when it is missing."""
    from gnn.coverage.shortfalls import explained

    if not low:
        return []
    runs = sorted({run for one in low for run in one.runs})
    found = explained(low, tables.read("coverage.gaps", runs=runs, columns=list(_GAPS_READ)))
    return [Problem(one.name, _text(one, how), one.systems, one.runs, one.since_ns) for one in found]


def _text(one: "Shortfall", how: str) -> str:
    since = f", since {time_of(one.since_ns)}" if one.since_ns is not None else ""
    ask = f", ask {' and '.join(one.systems)}" if one.systems else ""
    worst = f", {one.worst:.3f} at worst," if one.worst > 0 else ""
    return f"{one.name} {how}{worst} in {counted_runs(one.runs)}{ask}{since}"


@dg.asset_check(asset=key_of(HISTORY), additional_deps=[BY_KEY], description="No key fell since the rebuilds before.")
def coverage_drop(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN if a key fell by more than the threshold in the newest rebuild, against the median of those before.

    A fall that no run shows any more, since the run was sent again or retired, does not count.
    """
    from gnn.coverage.shortfalls import falls, standing

    found = falls(tables.read(HISTORY), settings.coverage_drop, settings.coverage_drop_rebuilds)
    if found:
        found = standing(found, tables.read("coverage.by_key", columns=["key", "ratio"]), settings.coverage_drop)
    texts = {one.key: f"{one.key} fell from {one.before:.3f} to {one.now:.3f}, ask {_SYSTEM_OF[one.key]}" for one in found}
    return check_result(
        [Problem(one.key, texts[one.key], (_SYSTEM_OF[one.key],), since_ns=one.since_ns) for one in found],
        f"no key fell by more than {settings.coverage_drop:.2f}",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"keys": len(found)},
    )


@dg.asset_check(asset=GAPS, description="Every run with states has layers, activations, parameters.")
def graphs_have_elements(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """ERROR if a run's graphs have no layer, no activation or no parameter; runs may have no seeds."""
    rows = tables.read("coverage.gaps", columns=["training_run_id", "key", "system", "reason", "since_timestamp_ns"])
    empty: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows.filter(pc.starts_with(rows.column("reason"), "no elements")).to_pylist():
        node_type = row["key"].partition(".")[0]
        if node_type in ("layer", "activation", "parameter"):
            empty.setdefault((node_type, row["system"]), {})[row["training_run_id"]] = row["since_timestamp_ns"]
    problems = [
        Problem(
            f"no {node_type}",
            f"no {node_type} in {counted_runs(sorted(runs))}, {system} did not send any",
            (system,),
            sorted(runs),
            min(runs.values()),
        )
        for (node_type, system), runs in sorted(empty.items())
    ]
    runs = {run for found in empty.values() for run in found}
    return check_result(problems, "every run has layers, activations and parameters", metadata={"runs_without": len(runs)})


@dg.asset_check(asset=BY_KEY, additional_deps=[GAPS], description="Measured and missing add up to elements, key by key.")
def coverage_conservation(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """Check that every run with states is counted, unless retired, and that measured and missing add up to all elements."""
    from gnn.coverage.counts import unbalanced

    rows = tables.read("coverage.by_key", columns=["training_run_id", "key", "measured", "elements"])
    states = tables.read("tolaria.system_state", columns=["training_run_id", "is_completion"])
    graphs = states.filter(pc.invert(pc.fill_null(states.column("is_completion"), False)))
    expected = set(graphs.column("training_run_id").unique().to_pylist()) - retired_runs(tables)
    uncounted = sorted(expected - set(rows.column("training_run_id").unique().to_pylist()))
    wrong = unbalanced(rows, tables.read("coverage.gaps", columns=["training_run_id", "key", "missing"]))
    problems = []
    if uncounted:
        said = f"uncounted runs: {len(uncounted)} have training states and no coverage ({named_runs(uncounted)})"
        problems.append(Problem("uncounted runs", said, runs=uncounted))
    if wrong:
        said = f"counts that do not add up: {len(wrong)}, such as {wrong[0]}"
        problems.append(Problem("counts that do not add up", said))
    return check_result(problems, "every key adds up", metadata={"rows": rows.num_rows})


COVERAGE_CHECKS: Final = (
    mandatory_coverage,
    family_coverage,
    coverage_drop,
    optional_gaps,
    graphs_have_elements,
    coverage_conservation,
)
