"""Fit the norms, priors and EWMA states, and publish them as `gnn_norms.json` and as tables."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.code_version import code_version
from gnn.join.run_norms import run_norms
from gnn.norms.priors import fit_priors, training_hosts
from gnn.norms.published import Norms, newest_observations, publish
from lake.retirement import retired_runs, without
from lake.settings import Settings
from lake.store.increments import Increments, batches_of
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.derived.norms import CURRENT
from schemas.derived.norms import EWMA as EWMA_SCHEMA
from schemas.errors import RowsRefused
from tamiyo_assets.assets.features import BATCH_ROWS
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.reports import (
    AFTER_COVERAGE,
    COLUMNS,
    ROWS,
    Reporter,
    derived_columns,
    key_of,
    kinds_of,
    schema_specs,
)
from tamiyo_assets.assets.upstream import RETIRED

_STATES = "tolaria.system_state"
_FITTED = {
    _STATES: ["training_run_id", "blueprint_id", "experiment_name"],
    "urza.blueprint": None,
    "urza.parameter": ["blueprint_id", "exported_at_ns", "parameter_count"],
}
EWMA = key_of("norms.ewma")
NORMS = key_of("norms.current")


@dg.multi_asset(
    name="norms",
    specs=[
        dg.AssetSpec(
            EWMA,
            deps=[key_of("tolaria.system_state"), RETIRED],
            skippable=True,
            group_name="normalization",
            kinds=kinds_of(EWMA, "deltalake"),
            owners=["team:tamiyo"],
            description="Each training run's EWMA state of the step metrics after its last packet.",
            metadata={COLUMNS: derived_columns("norms.ewma")},
        ),
        dg.AssetSpec(
            NORMS,
            deps=[EWMA, key_of("urza.blueprint"), key_of("urza.parameter"), RETIRED],
            skippable=True,
            group_name="normalization",
            kinds=kinds_of(NORMS, "json"),
            owners=["team:tamiyo"],
            description="gnn_norms.json: the newest EWMA states and the priors fitted on the catalogue's training hosts.",
            metadata={COLUMNS: derived_columns("norms.current")},
        ),
    ],
    check_specs=schema_specs(["norms.ewma", "norms.current"]),
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def norms(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Recompute from the tables, publish only what changed."""
    reporter = Reporter(context, versions)
    try:
        yield from _results(context, settings, tables, versions, reporter)
    except RowsRefused as error:
        yield from reporter.refused(error)
        raise


def _results(
    context: dg.AssetExecutionContext, settings: Settings, tables: TableStore, versions: Versions, reporter: Reporter
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    from gnn.norms.pictures import bands

    refresh_ewma(tables, versions)
    yield from reporter.schema("norms.ewma")
    ewma, rows = versions.of("norms.ewma"), tables.read("norms.ewma")
    if EWMA in context.selected_asset_keys:
        alt = "mean and band of each metric per run"
        shown = picture_metadata(settings.home, ewma.name, "bands", ewma.digest, lambda: bands(rows), alt, thumbnail=False)
        yield reporter.table(ewma, shown)
    contracts = fitted_tables(tables)
    hosts = training_hosts(contracts, settings.training.held_out_data_set)
    published = publish(settings.home, Norms.of(fit_priors(contracts, hosts), newest_observations(rows)))
    versions.write("norms.current", _rows(published))
    yield from reporter.schema("norms.current")
    if NORMS in context.selected_asset_keys:
        fitted_on = len(hosts) if hosts is not None else "the whole catalogue"
        yield reporter.asset(
            NORMS,
            published.digest,
            {
                ROWS: len(published.metrics) + len(published.priors),
                "version": published.version,
                "fitted_on_hosts": fitted_on,
                "path": dg.MetadataValue.path(settings.home / "gnn_norms.json"),
            },
        )


def fitted_tables(tables: TableStore) -> dict[str, pa.Table]:
    """Return the contract tables that priors are fitted on: runs that train and are not retired, newest blueprint records."""
    from gnn.join.sources import newest_records

    retired = retired_runs(tables)
    contracts = {name: without(rows, retired) for name, rows in tables.read_each(_FITTED).items()}
    blueprints = contracts["urza.blueprint"]
    return contracts | {name: newest_records(contracts[name], blueprints) for name in ("urza.blueprint", "urza.parameter")}


def refresh_ewma(tables: TableStore, versions: Versions) -> None:
    """Filter the packets of the runs whose states changed; the other runs' rows stay as they are."""
    increments = Increments("norms", tables, ["norms.ewma"])
    known, states = increments.load(), versions.of(_STATES)
    retired = retired_runs(tables)
    now = {run: f"{code_version()} {part.digest}" for run, part in states.runs.items() if run not in retired}
    if not tables.exists("norms.ewma"):
        tables.write("norms.ewma", EWMA_SCHEMA.empty_table())
    gone, stale = [run for run in known if run not in now], sorted(run for run in now if known.get(run) != now[run])
    if gone:
        tables.write("norms.ewma", EWMA_SCHEMA.empty_table(), runs=gone)
    for batch in batches_of(stale, {run: part.rows for run, part in states.runs.items()}, BATCH_ROWS):
        tables.write("norms.ewma", run_norms(tables.read(_STATES, runs=batch)), runs=batch)
    if gone or stale:
        increments.save(now)


def _rows(published: Norms) -> pa.Table:
    rows = [{"name": name, **norm.model_dump()} for name, norm in (*published.metrics.items(), *published.priors.items())]
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in CURRENT} for row in rows], schema=CURRENT)


NORM_ASSETS = (norms,)
