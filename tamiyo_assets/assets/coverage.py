"""Count coverage: how much of what the graphs are made of was measured, from the masks of the feature tables."""

import time
from collections.abc import Collection, Iterator
from typing import Any, Final

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.coverage.ratios import coverage_figures, key_totals, ratios
from lake.settings import Settings
from lake.store.increments import ALL_BUCKETS, Increments, batches_of, by_bucket
from lake.store.table_store import TableStore
from lake.store.versions import TableVersion, Versions
from schemas.derived.features import DANGLING_TABLE, PACKET
from schemas.derived.tables import DERIVED
from schemas.errors import RowsRefused
from schemas.features import CONTEXT, GROUPS
from tamiyo_assets.assets.features import BATCH_ROWS, feature_increments
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.reports import COLUMNS, Reporter, derived_columns, key_of, kinds_of, schema_specs

COVERAGE_TABLES: Final = ("coverage.by_key", "coverage.by_family", "coverage.gaps")
HISTORY: Final = "coverage.history"
_TABLES: Final = (*COVERAGE_TABLES, HISTORY)
_DESCRIPTIONS: Final = {
    "coverage.by_key": "Per training run and feature: measured elements of all elements, and the system that sends it.",
    "coverage.by_family": "Coverage summed over the keys of each node type and relation.",
    "coverage.gaps": "What is missing, since when, and which system should have sent it.",
    HISTORY: "Coverage of the runs that each rebuild touched, key by key; it can't be rebuilt.",
}
_DEPENDENCIES: Final = {
    "coverage.by_key": [group.table for group in GROUPS],
    "coverage.by_family": ["coverage.by_key"],
    "coverage.gaps": ["coverage.by_key", DANGLING_TABLE],
    HISTORY: ["coverage.by_key"],
}


@dg.multi_asset(
    name="coverage",
    specs=[
        dg.AssetSpec(
            key_of(name),
            deps=[key_of(dependency) for dependency in _DEPENDENCIES[name]],
            skippable=True,
            group_name="features",
            kinds=kinds_of(key_of(name), "deltalake"),
            owners=["team:tamiyo"],
            description=_DESCRIPTIONS[name],
            metadata={COLUMNS: derived_columns(name)},
        )
        for name in _TABLES
    ],
    check_specs=schema_specs(_TABLES),
    can_subset=True,
)
def coverage(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Count the runs whose features changed; the other runs' rows stay as they are."""
    reporter = Reporter(context, versions)
    try:
        for done, of in refresh_coverage(tables):
            context.log.info(f"{done} of {of} training runs counted")
        if key_of(HISTORY) in context.selected_asset_keys:
            note_history(tables, context.run.run_id)
    except RowsRefused as error:
        yield from reporter.refused(error)
        raise
    shown = {"coverage.by_key": _by_key, "coverage.by_family": _by_family, "coverage.gaps": _gaps}
    for name in _TABLES:
        if key_of(name) in context.selected_asset_keys:
            version = versions.of(name)
            yield reporter.table(version, shown[name](settings, tables, version) if name in shown else {})
        yield from reporter.schema(name)


def refresh_coverage(tables: TableStore, buckets: Collection[int] = ALL_BUCKETS) -> Iterator[tuple[int, int]]:
    """Count what changed, one batch of runs at a time; after each, yield the runs done and the runs in all."""
    increments = _increments(tables, buckets)
    known = _known(increments)
    features = feature_increments(tables, buckets).load()
    now = {run: made["inputs"] for run, made in features.items()}
    for name in _TABLES:
        if not tables.exists(name):
            tables.write(name, DERIVED[name].empty_table(), append=True)  # another bucket may have rows by now
    gone = [run for run in known if run not in now]
    if gone:
        for name in COVERAGE_TABLES:
            tables.write(name, DERIVED[name].empty_table(), runs=gone)
        known = {run: made for run, made in known.items() if run in now}
        increments.save(known, gone)
    stale = by_bucket(run for run, inputs in now.items() if run not in known or known[run]["inputs"] != inputs)
    done = 0
    for batch in batches_of(stale, {run: features[run]["rows"] for run in stale}, BATCH_ROWS):
        for name, rows in _counted(tables, batch).items():
            tables.write(name, rows, runs=batch)
        known |= {run: {"inputs": now[run], "in_history": False} for run in batch}
        increments.save(known, batch)
        done += len(batch)
        yield done, len(stale)


def _increments(tables: TableStore, buckets: Collection[int] = ALL_BUCKETS) -> Increments:
    """Return what each run was counted from, and whether `coverage.history` has that count."""
    return Increments("coverage", tables, COVERAGE_TABLES, buckets)


def _known(increments: Increments) -> dict[str, dict[str, Any]]:
    """Return the record of each run; leave out those of an earlier version, which do not mention the history."""
    return {run: made for run, made in increments.load().items() if isinstance(made, dict)}


def note_history(tables: TableStore, rebuild: str) -> None:
    """Append the coverage of the runs that were counted since the last append to `coverage.history`, if there are any."""
    from gnn.coverage.shortfalls import history_rows

    increments = _increments(tables)
    known = _known(increments)
    touched = sorted(run for run, made in known.items() if not made["in_history"])
    if not touched:
        return
    counts = tables.read("coverage.by_key", runs=touched, columns=["key", "measured", "elements"])
    # a step that was killed and is tried again may have appended its rows already
    noted = tables.read(HISTORY, columns=["rebuild_run_id"]).column(0).unique().to_pylist()
    if counts.num_rows and rebuild not in noted:
        tables.write(HISTORY, history_rows(counts, rebuild, time.time_ns()), append=True)
    increments.save({run: made | {"in_history": True} for run, made in known.items()}, touched)


def _counted(tables: TableStore, batch: list[str]) -> dict[str, pa.Table]:
    """Return the coverage tables of some runs."""
    from gnn.coverage.counts import by_family, by_key, marks_in, mask_columns
    from gnn.coverage.gaps import gaps
    from gnn.join.tables import PacketIndex

    names = [name for name, _ in PACKET]
    packets = PacketIndex(tables.read(CONTEXT.table, runs=batch, columns=[*names, "packet_order"]))
    masks = {group.table: tables.read(group.table, runs=batch, columns=mask_columns(group)) for group in GROUPS}
    marks = marks_in(packets, masks)
    keys = by_key(packets.states, marks)
    dangling = packets.dangling(tables.read(DANGLING_TABLE, runs=batch))
    return {
        "coverage.by_key": keys,
        "coverage.by_family": by_family(keys),
        "coverage.gaps": gaps(packets.states, marks, dangling),
    }


def _by_key(settings: Settings, tables: TableStore, version: TableVersion) -> dict[str, Any]:
    from gnn.coverage.heatmap import MOST_RUNS, heat_map

    def draw() -> bytes:
        return heat_map(tables.read(version.name, runs=sorted(version.runs)[-MOST_RUNS:]))

    shown = picture_metadata(settings.home, version.name, "heat_map", version.digest, draw, "coverage by key and training run")
    figures = coverage_figures(key_totals(tables))
    return ({"coverage": figures.mean, "mandatory_coverage": figures.mandatory_mean} if figures else {}) | shown


def _by_family(settings: Settings, tables: TableStore, version: TableVersion) -> dict[str, Any]:
    from gnn.coverage.heatmap import trend

    rows, alt = tables.read(version.name), "coverage by family, run by run"
    shown = picture_metadata(settings.home, version.name, "trend", version.digest, lambda: trend(rows), alt, thumbnail=False)
    return {row["family"]: row["ratio"] for row in ratios(rows, ["family"])} | shown


def _gaps(_: Settings, tables: TableStore, version: TableVersion) -> dict[str, Any]:
    systems = tables.read(version.name, columns=["system", "missing"]).group_by("system").aggregate([("missing", "sum")])
    return {"missing_by_system": dg.MetadataValue.json({row["system"]: row["missing_sum"] for row in systems.to_pylist()})}


COVERAGE_ASSETS = (coverage,)
