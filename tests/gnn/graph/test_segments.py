"""Segments: sums and means by segment, for one segment and for several."""

import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.graph.segments import Segments
from schemas.features import NODE_TYPES


@pytest.mark.parametrize(("index", "count"), [([0, 2, 2, 0, 0], 4), ([0, 0, 0], 1), ([], 1), ([], 3)])
def test_sums_means_and_maxima_are_those_of_each_segment(index: list[int], count: int) -> None:
    torch.manual_seed(0)
    segments, values = Segments(torch.tensor(index, dtype=torch.int64), count), torch.randn(len(index), 3)
    found = segments.sum(values), segments.mean(values), segments.highest(values, -0.5)
    for number in range(count):
        rows = values[[place for place, of in enumerate(index) if of == number]]
        torch.testing.assert_close(found[0][number], rows.sum(0))
        torch.testing.assert_close(found[1][number], rows.mean(0) if len(rows) else torch.zeros(3))
        assert torch.equal(found[2][number], torch.cat([rows, torch.full((1, 3), -0.5)]).amax(0))
    assert torch.equal(segments.spread(found[0]).expand(len(index), 3), found[0][index])


@pytest.mark.parametrize("graphs", [1, 3])
def test_a_batch_knows_the_graph_of_each_node_and_the_edges_of_each_seed(graphs: int) -> None:
    batch = random_batch(graphs)
    for node in NODE_TYPES:
        expected = torch.repeat_interleave(torch.arange(graphs), batch.ptr[node.name].diff())
        assert torch.equal(batch.graphs_of(node.name).index, expected)
        assert batch.graphs_of(node.name) is batch.graphs_of(node.name)
    monitors = ("seed", "monitors", "layer")
    assert torch.equal(batch.nodes_at(monitors).index, batch.edge_index[monitors][0])
    assert batch.nodes_at(monitors).count == batch.num_nodes("seed")
