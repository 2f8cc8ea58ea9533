"""The graph dataset: every training state as a typed graph, in one memory-mapped directory per set of inputs."""

import hashlib
import json
import shutil
from pathlib import Path

import dagster as dg
from dagster import ResourceParam

from gnn.publish import ensure_dir, lock, switch_link
from schemas.errors import FeatureError
from schemas.features import GROUPS
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.reports import key_of, materialized
from tamiyo_assets.partitions import SINGLE_RUN, training_runs
from tamiyo_assets.resources.features import FeatureSource
from tamiyo_assets.settings import Settings
from tamiyo_assets.versions import RunVersion, TableVersion, Versions

DATASET = key_of("graphs.dataset")
_ONE_A_GRAPH = "features.context"
_CURRENT = "current"
_KEPT = 2


@dg.asset(
    key=DATASET,
    deps=[key_of(group.table) for group in GROUPS] + [key_of("coverage.by_key")],
    group_name="graphs",
    kinds={"pytorch"},
    owners=["team:tamiyo"],
    partitions_def=training_runs,
    backfill_policy=SINGLE_RUN,
    description="Every training state as a graph of six node types and eleven relations, memory-mapped for training.",
)
def dataset(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Write the dataset of the current inputs where there is none, and point `current` at it."""
    from gnn.graph.files import read_header, write_dataset

    if not versions.of(_ONE_A_GRAPH).rows:
        raise FeatureError(f"{_ONE_A_GRAPH}: expected at least one training state, found none; ask Tolaria for its packets")
    inputs = source.inputs(versions)
    directory = source.dataset_directory(versions)
    with lock(directory.parent / ".lock"):
        header = read_header(directory) if directory.exists() else write_dataset(directory, source.features(), inputs)
        ensure_dir(directory.parent)
        switch_link(directory.parent / _CURRENT, directory.name)
        _drop_older(directory)
    shared = {name: digest for name, digest in inputs.items() if not name.startswith("table.")}
    version = TableVersion("graphs.dataset", header.digest, header.graphs, _runs(source, versions, shared))
    return materialized(
        context,
        DATASET,
        version,
        {
            "path": dg.MetadataValue.path(directory),
            "rows": dg.MetadataValue.json(header.rows),
            **_newest(settings.home, directory, header.digest),
            "bytes": sum(record.size for record in header.files.values()),
        },
    )


def _newest(home: Path, directory: Path, digest: str) -> dict[str, dg.MetadataValue]:
    """A picture of the newest packet's graph; nothing where there is no graph."""
    from gnn.graph.dataset import GraphDataset
    from gnn.graph.picture import picture_of

    graphs = GraphDataset.open(directory)
    numbers = graphs.find("newest")
    if not numbers:
        return {}
    alt = "the newest packet's graph"
    return picture_metadata(home, "graphs.dataset", "newest_graph", digest, lambda: picture_of(graphs, numbers[0]), alt)


def _runs(source: FeatureSource, versions: Versions, shared: dict[str, str]) -> dict[str, RunVersion]:
    """Per run: what its graphs are made of, its own feature rows with the registries and norms that encode them."""
    tables = [versions.of(group.table) for group in GROUPS]
    graphs = versions.of(_ONE_A_GRAPH)
    found = {}
    for run, part in graphs.runs.items():
        content = json.dumps([shared, [table.run(run).digest for table in tables]], sort_keys=True)
        found[run] = RunVersion(hashlib.sha256(content.encode()).hexdigest(), part.rows)
    return found


def _drop_older(directory: Path) -> None:
    """Remove all but the newest datasets; one that is open stays readable until it is closed."""
    others = [p for p in directory.parent.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
    older = sorted((p for p in others if p != directory), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in older[_KEPT - 1 :]:
        shutil.rmtree(path)


GRAPH_ASSETS = (dataset,)
