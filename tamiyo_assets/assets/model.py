"""Training: examples from measured outcomes, then one training with its evaluation and the bundle that holds it."""

import shutil
from collections.abc import Iterator

import dagster as dg
from dagster import ResourceParam

from gnn.publish import lock
from schemas.artifacts import REGISTRIES
from tamiyo_assets import lineage
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.normalization import NORMS
from tamiyo_assets.assets.registries import registries_directory, registry_key
from tamiyo_assets.assets.reports import COLUMNS, ROWS, arrow_columns, key_of, materialized
from tamiyo_assets.builds import build_inputs, build_report
from tamiyo_assets.derived import DERIVED
from tamiyo_assets.resources.features import FeatureSource
from tamiyo_assets.resources.tables import TableStore
from tamiyo_assets.settings import Settings
from tamiyo_assets.versions import Versions

_OWNER = ["team:tamiyo"]
EXAMPLES = key_of("training.examples")
BUNDLE = dg.AssetKey(["bundle", "tamiyo_gnn_v1"])
RESULTS = ("training.predictions", "training.evaluation", "training.calibration")
_DESCRIPTIONS = {
    "training.predictions": "What each model says of every measured outcome, beside what was measured.",
    "training.evaluation": "Figures of the model and of its baselines on held-out hosts, with intervals.",
    "training.calibration": "Reliability of the risk head before and after temperature scaling.",
}


@dg.asset(
    key=EXAMPLES,
    deps=[key_of("tamiyo.field_report"), key_of("tamiyo.command"), key_of("tolaria.system_state")],
    group_name="model",
    kinds={"deltalake"},
    owners=_OWNER,
    metadata={COLUMNS: arrow_columns(DERIVED["training.examples"])},
    description="One row a measured outcome: packet, seed, kernel and horizon, with its uplift, risk class and split.",
)
def examples(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Field reports joined with their command and the packet in which it was given."""
    from gnn.model.examples import build_examples

    found = build_examples(source.sources(), settings.training)
    return materialized(
        context,
        EXAMPLES,
        versions.write("training.examples", found.table),
        {"unusable_reports": dg.MetadataValue.json(found.unusable)},
    )


@dg.multi_asset(
    name="training",
    specs=[
        *(
            dg.AssetSpec(
                key_of(name),
                deps=[EXAMPLES, DATASET],
                group_name="model",
                kinds={"pytorch", "deltalake"},
                owners=_OWNER,
                description=_DESCRIPTIONS[name],
                metadata={COLUMNS: arrow_columns(DERIVED[name])},
            )
            for name in RESULTS
        ),
        dg.AssetSpec(
            BUNDLE,
            deps=[EXAMPLES, DATASET, NORMS, *(registry_key(name) for name in REGISTRIES)],
            group_name="bundle",
            kinds={"pytorch"},
            owners=_OWNER,
            description="The checkpoint bundle: weights, manifest, registries, norms, golden outputs, a digest each.",
        ),
    ],
)
def training(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None]]:
    """Train what these inputs have not trained yet; a build that is published stays as it is."""
    with lock(settings.home / ".training.lock"):
        build_id = _published(context, settings, source, tables, versions)
    for name in RESULTS:
        yield materialized(context, key_of(name), versions.of(name), {"build_id": build_id})
    report = build_report(settings.home, build_id, settings.gates)
    yield dg.MaterializeResult(
        asset_key=BUNDLE,
        data_version=dg.DataVersion(build_id),
        metadata={
            "build_id": build_id,
            "path": dg.MetadataValue.path(report.path),
            ROWS: len(report.manifest.members),
            "metrics": dg.MetadataValue.json(report.manifest.metrics),
            "metrics_missing": dg.MetadataValue.json(report.manifest.metrics_missing),
            "heads": dg.MetadataValue.json(report.heads),
        },
    )


def _published(
    context: dg.AssetExecutionContext, settings: Settings, source: FeatureSource, tables: TableStore, versions: Versions
) -> str:
    """The build id of the current inputs, trained and published where it was not."""
    from gnn.bundle import is_published, write_bundle
    from gnn.graph.dataset import GraphDataset
    from gnn.model.alongside import cores
    from gnn.model.examples import build_examples
    from gnn.model.experiment import train

    inputs = build_inputs(source, versions, settings.training)
    build_id = inputs.build_id
    if is_published(settings.home, build_id) and all(tables.exists(name) for name in RESULTS):
        context.log.info(f"build {build_id} is published already: nothing to train")
        return build_id
    dataset = GraphDataset.open(source.dataset_directory(versions))
    found = build_examples(source.sources(), settings.training)
    trained = train(
        dataset,
        found.table,
        settings.training,
        settings.home / "checkpoints" / build_id,
        unusable=found.unusable,
        processes=cores(),
    )
    for name in RESULTS:
        versions.write(name, trained.tables[name])
    write_bundle(
        settings.home,
        trained,
        registries=registries_directory(settings.home),
        norms=settings.home / "gnn_norms.json",
        dataset=dataset,
        inputs=inputs,
    )
    lineage.record(settings.home, tables, build_id, source.versions())
    # what is published needs no checkpoint; those of builds that were given up go with it
    shutil.rmtree(settings.home / "checkpoints", ignore_errors=True)
    return build_id


MODEL_ASSETS = (examples, training)
