"""Norms: the fitted priors and the EWMA states, published as `gnn_norms.json` and as tables."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.norms.priors import fit_priors
from gnn.norms.published import Norms, publish
from gnn.norms.run_norms import newest_observations, run_norms
from lake.settings import Settings
from lake.store.contracts import read_contracts, training_hosts
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.derived.features import EWMA as EWMA_SCHEMA
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.reports import AFTER_COVERAGE, COLUMNS, ROWS, Reporter, derived_columns, key_of, kinds_of

EWMA = key_of("norms.ewma")
NORMS = key_of("norms.current")
_CURRENT = pa.schema(
    [
        ("name", pa.string()),
        ("mean", pa.float64()),
        ("var", pa.float64()),
        ("count", pa.int64()),
        ("transform", pa.string()),
        ("training_run_id", pa.string()),
        ("timestamp_ns", pa.int64()),
    ]
)


@dg.multi_asset(
    name="norms",
    specs=[
        dg.AssetSpec(
            EWMA,
            deps=[key_of("tolaria.system_state")],
            skippable=True,
            group_name="normalization",
            kinds=kinds_of(EWMA, "deltalake"),
            owners=["team:tamiyo"],
            description="Each training run's EWMA state of the step metrics after its last packet.",
            metadata={COLUMNS: derived_columns("norms.ewma", EWMA_SCHEMA)},
        ),
        dg.AssetSpec(
            NORMS,
            deps=[EWMA, key_of("urza.blueprint"), key_of("urza.parameter")],
            skippable=True,
            group_name="normalization",
            kinds=kinds_of(NORMS, "json"),
            owners=["team:tamiyo"],
            description="gnn_norms.json: the newest EWMA states and the priors fitted on the catalogue's training hosts.",
            metadata={COLUMNS: derived_columns("norms.current", _CURRENT)},
        ),
    ],
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def norms(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None]]:
    """Recompute from the tables, publish only what changed."""
    from gnn.join.sources import Sources
    from gnn.norms.pictures import bands

    reporter = Reporter(context, versions)
    contracts = Sources(read_contracts(tables))
    rows = run_norms(contracts["tolaria.system_state"])
    ewma = versions.write("norms.ewma", rows)
    if EWMA in context.selected_asset_keys:
        alt = "mean and band of each metric per run"
        shown = picture_metadata(settings.home, ewma.name, "bands", ewma.digest, lambda: bands(rows), alt, thumbnail=False)
        yield reporter.table(ewma, shown)
    hosts = training_hosts(contracts, settings.training.held_out_data_set)
    published = publish(settings.home, Norms.of(fit_priors(contracts, hosts), newest_observations(rows)))
    versions.write("norms.current", _rows(published))
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


def _rows(published: Norms) -> pa.Table:
    rows = [{"name": name, **norm.model_dump()} for name, norm in (*published.metrics.items(), *published.priors.items())]
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in _CURRENT} for row in rows], schema=_CURRENT)


NORM_ASSETS = (norms,)
