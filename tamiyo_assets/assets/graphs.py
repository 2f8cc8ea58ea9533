"""The graph dataset: every training state as a typed graph, in one memory-mapped directory per set of inputs."""

import shutil
from functools import partial
from pathlib import Path
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.durable.publish import ensure_dir, lock, switch_link
from lake.settings import Settings
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.features import GROUPS
from tamiyo_assets.assets.normalization import NORMS
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.registries import registry_key
from tamiyo_assets.assets.reports import ROWS, SLOW, Reporter, key_of, kinds_of
from tamiyo_assets.resources.features import FeatureSource

DATASET: Final = key_of("graphs.dataset")
_CURRENT: Final = "current"
_KEPT: Final = 2


@dg.asset(
    key=DATASET,
    deps=[*(key_of(group.table) for group in GROUPS), NORMS, *(registry_key(name) for name in REGISTRIES)],
    group_name="graphs",
    kinds=kinds_of(DATASET, "pytorch"),
    owners=["team:tamiyo"],
    op_tags=SLOW,
    description="Every training state as a graph of six node types and eleven relations, memory-mapped for training.",
)
def dataset(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Write the dataset of the current inputs if there is none, and point `current` at it. Without states it has no graphs."""
    from gnn.graph.files import read_header, write_dataset

    inputs = source.inputs(versions)
    directory = source.dataset_directory(versions)
    with lock(directory.parent / ".lock"):
        header = read_header(directory) if directory.exists() else write_dataset(directory, source.features(), inputs)
        ensure_dir(directory.parent)
        switch_link(directory.parent / _CURRENT, directory.name)
        _drop_older(directory)
    return Reporter(context, versions).asset(
        DATASET,
        header.digest,
        {
            ROWS: header.graphs,
            "path": dg.MetadataValue.path(directory),
            "rows": dg.MetadataValue.json(header.rows),
            **(_newest(settings.home, directory, header.digest) if header.graphs else {}),
            "bytes": sum(record.size for record in header.files.values()),
        },
    )


def _newest(home: Path, directory: Path, digest: str) -> dict[str, dg.MetadataValue]:
    """A picture of the newest packet's graph."""
    from gnn.graph.dataset import GraphDataset
    from gnn.graph.picture import picture_of

    graphs = GraphDataset.open(directory)
    numbers = graphs.find("newest")
    alt = "the newest packet's graph"
    draw = partial(picture_of, graphs, numbers[0])
    return picture_metadata(home, "graphs.dataset", "newest_graph", digest, draw, alt, thumbnail=False)


def _drop_older(directory: Path) -> None:
    """Remove all but the newest datasets; one that is open stays readable until it is closed."""
    others = [p for p in directory.parent.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
    older = sorted((p for p in others if p != directory), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in older[_KEPT - 1 :]:
        shutil.rmtree(path)


GRAPH_ASSETS = (dataset,)
