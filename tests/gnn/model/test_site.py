"""Site vectors: their layout, their independence of company and order, and their scale."""

import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.model.site import CLIP, INDICATORS, SiteScale, site_vectors, site_width, squash
from schemas.features import CONTEXT, LAYER, SEED
from tests.gnn.model.store import join

MONITORS = ("seed", "monitors", "layer")


@pytest.mark.parametrize("sizes", [{}, {"seed": 0}, {"layer": 0}, {"parameter": 0, "context": 0}])
def test_the_width_follows_from_the_declaration(sizes: dict[str, int]) -> None:
    batch = random_batch(3, sizes=sizes)
    found = site_vectors(batch)
    assert found.shape == (batch.num_nodes("seed"), site_width())
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


def test_a_seed_reads_the_same_alone_and_in_company() -> None:
    graphs = [random_batch(1, seed=number) for number in (1, 2, 3)]
    together = site_vectors(join(graphs))
    alone = torch.cat([site_vectors(graph) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_the_parts_stand_where_they_are_said_to() -> None:
    batch = random_batch(2)
    found, start = site_vectors(batch), SEED.width
    assert torch.equal(found[:, :start], squash(batch.x["seed"]))
    seeds, layers = batch.edge_index[MONITORS]
    column = [feature.name for feature in LAYER.categorical].index("layer_type")
    for seed in range(batch.num_nodes("seed")):
        watched = layers[seeds == seed]
        mean = found[seed, start : start + LAYER.width]
        types = found[seed, start + LAYER.width :][:INDICATORS]
        if not len(watched):
            assert not bool(mean.any())
            assert not bool(types.any())
            continue
        torch.testing.assert_close(mean, squash(batch.x["layer"][watched].mean(0)), rtol=1e-5, atol=1e-6)
        kind = int(batch.ids["layer"][watched.min(), column])
        assert types.nonzero().flatten().tolist() == [min(kind, INDICATORS - 1)]
    context = found[:, start + LAYER.width + 2 * INDICATORS :][:, : CONTEXT.width]
    assert torch.equal(context, squash(batch.x["context"])[batch.node_batch("seed")])


def test_every_channel_of_seed_layer_and_context_reaches_the_vector() -> None:
    for name, width in (("seed", SEED.width), ("layer", LAYER.width), ("context", CONTEXT.width)):
        batch = random_batch(1, edges=12)
        before = site_vectors(batch)
        for channel in range(width):
            batch.x[name][:, channel] += 1.0
            assert not torch.equal(site_vectors(batch), before), (name, channel)
            batch.x[name][:, channel] -= 1.0


def test_the_scale_is_fitted_clips_and_leaves_out_what_never_moved() -> None:
    torch.manual_seed(0)
    scale, rows = SiteScale(), torch.randn(400, site_width()) * 3 + 1
    rows[:, 0] = 7.0
    scale.fit(rows)
    found = scale(rows)
    torch.testing.assert_close(found[:, 1:].mean(0), torch.zeros(site_width() - 1), atol=0.02, rtol=0)
    assert float(found.abs().max()) <= CLIP
    assert not bool(scale(rows + 5.0)[:, 0].any())
    scale.fit(rows[:0])
    assert torch.equal(scale(rows), found)
