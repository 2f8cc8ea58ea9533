"""Pictures are PNGs of the right graph; the shares that colour them are those of the masks."""

from pathlib import Path

import numpy as np
import pytest

from gnn.coverage.counts import by_family
from gnn.coverage.heatmap import heat_map, trend
from gnn.encode.build import build_features
from gnn.graph.builder import to_batch
from gnn.graph.dataset import GraphDataset
from gnn.graph.files import write_shard
from gnn.graph.picture import measured_share, picture, picture_of
from schemas.errors import FeatureError
from schemas.features import NODE_TYPES, node_type
from tests.gnn.coverage import by_key
from tests.gnn.graph.worlds import World, world_registries
from tests.gnn.tables import small_world

PNG = b"\x89PNG\r\n\x1a\n"


def test_picture_of_a_graph_and_of_one_without_layers() -> None:
    features = build_features(World(1).tables(), registries=world_registries())
    batch = to_batch(features)
    for number in range(min(3, batch.num_graphs)):
        names = {}
        for node in NODE_TYPES:
            labels = features.nodes[node.name].group.names
            span = slice(int(batch.ptr[node.name][number]), int(batch.ptr[node.name][number + 1]))
            names[node.name] = [] if labels is None else labels.arrow().to_pylist()[span]
        assert picture(batch, names, "a packet", number).startswith(PNG)
    with pytest.raises(FeatureError, match="expected one of"):
        picture(batch, {}, "none", batch.num_graphs)


def test_picture_of_a_dataset(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "graphs", build_features(small_world(2), registries=world_registries()))
    dataset = GraphDataset.of([shard])
    assert picture_of(dataset, 1).startswith(PNG)
    with pytest.raises(FeatureError, match=r"expected one of 0\.\.1"):
        picture_of(dataset, 2)


def test_measured_share_counts_masks_and_ids() -> None:
    group = node_type("blueprint")
    values = np.zeros((2, group.width), dtype=np.float32)
    values[1, group.value_width :] = 1.0
    ids = np.array([[0, 0, 0], [5, 1, 2]])
    assert measured_share(group, values, ids).tolist() == [0.0, 1.0]


def test_heat_map_of_coverage_also_without_runs() -> None:
    features = build_features(small_world(2), registries=world_registries())
    assert heat_map(by_key(features)).startswith(PNG)
    assert heat_map(by_key(features).slice(0, 0)).startswith(PNG)


def test_trend_of_coverage_also_without_runs() -> None:
    families = by_family(by_key(build_features(small_world(2), registries=world_registries())))
    assert trend(families).startswith(PNG)
    assert trend(families.slice(0, 0)).startswith(PNG)
