"""The vectorized builder against the plain Python of `reference.py`, on random tables with everything that goes wrong."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.encode.build import Featured, build_features, encode_all
from gnn.encode.encoding import Vocabularies
from gnn.graph.batch import GraphBatch
from gnn.graph.builder import to_batch
from gnn.graph.scale import scale
from gnn.join.tables import feature_tables, join_of
from gnn.norms.priors import fit_priors
from schemas.features import FeatureGroup, Kind, Transform
from tests.gnn.graph.reference import Element, Graph, Reference, transformed
from tests.gnn.graph.worlds import World, world_registries

REGISTRIES = world_registries()


class Fitted:
    """Priors fitted on a world."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.priors = fit_priors(tables, None)


def channels(group: FeatureGroup, element: Element, peaks: dict[str, float], graph: Graph, norms: Fitted) -> list[float]:
    """A row of `x`, by the reference."""
    values: list[float] = []
    masks: list[float] = []
    for feature in group.valued:
        raw = None if element.hollow else element.values[feature.name]
        if feature.kind is Kind.MULTI_HOT:
            row = [0.0] * feature.width
            for key in raw or []:
                row[min(REGISTRIES[str(feature.registry)].index(key) - 1, feature.width - 1)] = 1.0
            values += row
            masks.append(float(raw is not None))
            continue
        if feature.kind is Kind.SHARE:
            row = [0.0] * feature.width
            for key in raw or []:
                index = REGISTRIES[str(feature.registry)].index(key)
                row[min(index - 1, feature.width - 1) if index else feature.width - 1] += 1 / len(raw)
            values += row
            masks.append(float(raw is not None))
            continue
        if raw is None:
            channel = None
        elif feature.transform is Transform.GRAPH_MAX:
            channel = raw / peaks[feature.name] if peaks[feature.name] else 0.0
        else:
            channel = transformed(feature.transform.value, float(raw), feature.metric, graph, norms.priors)
        values.append(feature.neutral if channel is None else channel)
        masks.append(float(channel is not None))
    return values + masks


def ids(group: FeatureGroup, element: Element) -> list[int]:
    """A row of ids, by the reference."""
    return [
        REGISTRIES[str(feature.registry)].index(None if element.hollow else element.values[feature.name])
        for feature in group.categorical
    ]


def compare(featured: Featured, scaled: np.ndarray, number: int, elements: list[Element], graph: Graph, norms: Fitted) -> None:
    """One node type or relation of one graph; `scaled` are its channels after `scale`."""
    group, found = featured.declaration, featured.encoded
    rows = slice(int(featured.group.ptr[number]), int(featured.group.ptr[number + 1]))
    assert rows.stop - rows.start == len(elements), group.family
    peaks = {
        f.name: max((abs(e.values[f.name]) for e in elements if e.values[f.name] is not None and not e.hollow), default=0.0)
        for f in group.valued
        if f.transform is Transform.GRAPH_MAX
    }
    expected = np.array([channels(group, element, peaks, graph, norms) for element in elements]).reshape(
        len(elements), group.width
    )
    assert found.ids[rows].tolist() == [ids(group, element) for element in elements], group.family
    mask = slice(group.value_width, None)
    np.testing.assert_array_equal(scaled[rows][:, mask], expected[:, mask], err_msg=group.family)
    np.testing.assert_allclose(scaled[rows], expected.astype(np.float32), rtol=2e-6, atol=2e-6, err_msg=group.family)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_reference_on_messy_worlds(seed: int) -> None:
    check(World(seed, runs=2, steps=4))


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference_on_tidy_worlds(seed: int) -> None:
    check(World(seed, messy=False, runs=2, steps=5))


def assert_equal(first: GraphBatch, second: GraphBatch) -> None:
    """Every tensor, bit for bit."""
    for part, found in vars(first).items():
        if isinstance(found, dict):
            for key, tensor in found.items():
                assert torch.equal(tensor, getattr(second, part)[key]), (part, key)


def check(world: World) -> None:
    tables = world.tables()
    norms = Fitted(tables)
    features = build_features(tables, registries=REGISTRIES)
    batch = scale(to_batch(features), norms.priors)
    stored = encode_all(join_of(feature_tables(features.joined)), Vocabularies(REGISTRIES))
    assert_equal(scale(to_batch(stored), norms.priors), batch)
    graphs = Reference(tables).graphs()
    assert features.keys().column("packet_id").to_pylist() == [graph.packet["packet_id"] for graph in graphs]
    for number, graph in enumerate(graphs):
        for name, featured in features.nodes.items():
            labels = featured.group.names
            assert labels is not None
            rows = slice(int(featured.group.ptr[number]), int(featured.group.ptr[number + 1]))
            assert labels.arrow().to_pylist()[rows] == [element.id for element in graph.nodes[name]], name
            compare(featured, batch.x[name].numpy(), number, graph.nodes[name], graph, norms)
        for short, featured in features.edges.items():
            edges, relation = featured.group.edges, featured.declaration
            assert edges is not None
            rows = slice(int(edges.ptr[number]), int(edges.ptr[number + 1]))
            first = [int(features.nodes[end].group.ptr[number]) for end in (relation.source, relation.target)]
            ends = list(zip((edges.source[rows] - first[0]).tolist(), (edges.target[rows] - first[1]).tolist(), strict=True))
            assert ends == [edge.id for edge in graph.edges[short]], short
            compare(featured, batch.edge_attr[relation.triple].numpy(), number, graph.edges[short], graph, norms)
