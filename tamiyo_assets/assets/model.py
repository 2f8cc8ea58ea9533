"""Train: make examples from measured outcomes, train and evaluate once, and write the bundle."""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.code_version import code_version
from gnn.norms.published import Norms
from gnn.norms.published import load as load_norms
from gnn.registry.refresh import load as load_registries
from lake import builds as lineage
from lake.durable.publish import lock
from lake.retirement import TABLE, retired_runs, runs_digest, without
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.errors import RowsRefused
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.normalization import NORMS, fitted_tables
from tamiyo_assets.assets.registries import registries_directory, registry_key
from tamiyo_assets.assets.reports import (
    AFTER_COVERAGE,
    COLUMNS,
    ROWS,
    SLOW,
    Reporter,
    derived_columns,
    key_of,
    kinds_of,
    schema_specs,
)
from tamiyo_assets.assets.upstream import RETIRED
from tamiyo_assets.champion import challenge_serving
from tamiyo_assets.training_process import TRAININGS, train_apart

if TYPE_CHECKING:
    from gnn.bundle import BuildInputs
    from gnn.bundle.report import BuildReport
    from gnn.graph.dataset import GraphDataset
    from gnn.model.trained import TrainedModel

_OWNER = ["team:tamiyo"]
EXAMPLES = key_of("training.examples")
BUNDLE = dg.AssetKey(["bundle", "tamiyo_gnn_v1"])
RESULTS = ("training.predictions", "training.evaluation", "training.calibration")
CHECKPOINTS: Final = "checkpoints"
_SECONDS_BETWEEN_LINES: Final = 10.0
DESCRIBING: Final = ("urza.blueprint", "urza.layer", "urabrask.bsds")  # what describes the kernels
_OUTCOMES: Final = ("tamiyo.field_report", "tamiyo.command", "tolaria.system_state")
Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many
_DESCRIPTIONS = {
    "training.predictions": "What each model says of every measured outcome, beside what was measured.",
    "training.evaluation": "Figures of the model and its baselines on hosts that they never saw, with intervals.",
    "training.calibration": "Reliability of the risk head before and after temperature scaling.",
}


@dg.asset(
    key=EXAMPLES,
    deps=[RETIRED, *(key_of(name) for name in ("tamiyo.field_report", "tamiyo.command", "tolaria.system_state"))],
    group_name="model",
    kinds=kinds_of(EXAMPLES, "deltalake"),
    owners=_OWNER,
    op_tags=AFTER_COVERAGE,
    metadata={COLUMNS: derived_columns("training.examples")},
    check_specs=schema_specs(["training.examples"]),
    description="One row a measured outcome: packet, seed, kernel and horizon, with its uplift, risk class and split.",
)
def examples(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Join field reports with their command and with the packet in which it was given."""
    from gnn.model.examples import build_examples

    found = build_examples(_outcomes(tables), settings.training)
    unusable = {"unusable_reports": dg.MetadataValue.json(found.unusable)}
    yield from Reporter(context, versions).written("training.examples", found.table, unusable)


@dg.multi_asset(
    name="training",
    specs=[
        *(
            dg.AssetSpec(
                key_of(name),
                deps=[EXAMPLES, DATASET],
                skippable=True,
                group_name="model",
                kinds=kinds_of(key_of(name), "pytorch", "deltalake"),
                owners=_OWNER,
                description=_DESCRIPTIONS[name],
                metadata={COLUMNS: derived_columns(name)},
            )
            for name in RESULTS
        ),
        dg.AssetSpec(
            BUNDLE,
            deps=[EXAMPLES, DATASET, NORMS, *(registry_key(name) for name in REGISTRIES)],
            skippable=True,
            group_name="bundle",
            kinds=kinds_of(BUNDLE, "pytorch"),
            owners=_OWNER,
            description="The checkpoint bundle: weights, manifest, registries, norms, golden outputs, a digest each.",
        ),
    ],
    check_specs=schema_specs(RESULTS),
    op_tags=SLOW,
)
def training(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Train on these inputs unless that was done before; a build that is published stays as it is.

    Without a training state there is no bundle: its output is left out, and the tables of results have no rows.
    """
    reporter = Reporter(context, versions)
    build_id = None
    if versions.of("features.context").rows:
        try:
            with lock(settings.home / ".training.lock"):
                build_id = _published(context, settings, tables, versions)
                challenge_serving(settings.home, tables, build_id)
                lineage.note_trained(settings.home, build_id)
        except RowsRefused as error:
            yield from reporter.refused(error)
            raise
    else:
        context.log.warning("Tolaria sent no training state to make a graph of: nothing to train, no bundle.")
    for name in RESULTS:
        found = versions.of(name) if build_id is not None else versions.write(name, DERIVED[name].empty_table())
        yield reporter.table(found, {"build_id": build_id} if build_id is not None else {})
        yield from reporter.schema(name)
    if build_id is not None:
        from gnn.bundle.report import build_report

        yield _bundle(reporter, build_report(settings.home, build_id, settings.gates))


def _bundle(reporter: Reporter, report: "BuildReport") -> dg.MaterializeResult[None]:
    """Return the bundle's result, with its figures as numbers, which the UI plots over builds."""
    manifest = report.manifest
    return reporter.asset(
        BUNDLE,
        manifest.build_id,
        {
            ROWS: len(manifest.members),
            "build_id": manifest.build_id,
            "path": dg.MetadataValue.path(report.path),
            **report.figures,
            "metrics": dg.MetadataValue.json(manifest.metrics),
            "metrics_missing": dg.MetadataValue.json(manifest.metrics_missing),
            "heads": dg.MetadataValue.json(report.heads),
        },
    )


def _progress(context: dg.AssetExecutionContext) -> Progress:
    """Return a callback that logs the progress of a training, at most one line every few seconds."""
    said = -_SECONDS_BETWEEN_LINES

    def progress(what: str, done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES or done == of:
            said = time.monotonic()
            context.log.info(f"{what}: epoch {done} of at most {of}")

    return progress


def _outcomes(tables: TableStore) -> dict[str, pa.Table]:
    """Return the contract tables that measured outcomes are read from, without retired runs."""
    retired = retired_runs(tables)
    return {name: without(rows, retired) for name, rows in tables.read_each(dict.fromkeys(_OUTCOMES)).items()}


def _published(context: dg.AssetExecutionContext, settings: Settings, tables: TableStore, versions: Versions) -> str:
    """Return the build id of the current inputs; train and publish first if there is no such build yet."""
    from gnn.bundle import BuildInputs, is_published, write_bundle
    from gnn.graph.dataset import GraphDataset, current_shards

    read = {name: version for name in (*TABLES, TABLE) if (version := tables.version(name)) is not None}
    registries, norms = registries_directory(settings.home), load_norms(settings.home) or Norms.default()
    inputs = BuildInputs(
        tables={**versions.at(read), TABLE: runs_digest(retired_runs(tables))},
        registries=load_registries(registries).digests(),
        norms=norms.digest,
        code=code_version(),
        configuration=settings.training.model_dump(mode="json"),
    )
    build_id = inputs.build_id
    if is_published(settings.home, build_id) and all(tables.exists(name) for name in RESULTS):
        context.log.info(f"build {build_id} is published already: nothing to train")
        return build_id
    shards, scales = current_shards(settings.home), settings.home / "gnn_norms.json"
    dataset = GraphDataset.open(settings.home, shards)
    trained = _trained(context, settings, tables, inputs, dataset, norms)
    for name in RESULTS:
        versions.write(name, trained.tables[name])
    write_bundle(settings.home, trained, registries=registries, norms=scales, dataset=dataset, inputs=inputs)
    lineage.record(settings.home, tables, build_id, read, shards)
    # a published build needs no checkpoint; those of abandoned builds are removed too
    for folder in (CHECKPOINTS, TRAININGS):
        shutil.rmtree(settings.home / folder, ignore_errors=True)
    return build_id


def _trained(
    context: dg.AssetExecutionContext,
    settings: Settings,
    tables: TableStore,
    inputs: "BuildInputs",
    dataset: "GraphDataset",
    norms: Norms,
) -> "TrainedModel":
    """Train here, or in a process of its own if that is configured; the result is the same."""
    from gnn.model.alongside import cores
    from gnn.model.examples import build_examples
    from gnn.model.experiment import train
    from gnn.model.kernel_vectors import kernel_descriptors
    from gnn.model.rounds import CataloguePriors
    from gnn.norms.priors import fit_priors

    found, catalogue = build_examples(_outcomes(tables), settings.training), fitted_tables(tables)
    kernels = kernel_descriptors(tables.read_each(dict.fromkeys(DESCRIBING)))
    if settings.launch.where == "pipes":
        return train_apart(context, settings, inputs, dataset, found, catalogue, kernels)
    return train(
        dataset,
        found.table,
        settings.training,
        settings.home / CHECKPOINTS / inputs.build_id,
        _progress(context),
        unusable=found.unusable,
        processes=cores(),
        priors=CataloguePriors(norms.priors, partial(fit_priors, catalogue)),
        kernels=kernels,
    )


MODEL_ASSETS = (examples, training)
