"""Encoders: scales of inputs, missing values, embeddings."""

import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.model.encoders import CLIP, LEAST_SPREAD, GroupEmbedding, InputScale, NodeEncoder
from gnn.model.site import squash
from schemas.configuration import ModelConfig
from schemas.features import CONTEXT, LAYER, NODE_TYPES, RELATIONS, SEED, Kind

CONFIG = ModelConfig()


def measured(group: object, rows: int) -> torch.Tensor:
    """Random values with random masks."""
    torch.manual_seed(0)
    width, masks = group.value_width, len(group.valued)
    return torch.cat([torch.randn(rows, width) * 7 + 3, (torch.rand(rows, masks) > 0.3).float()], 1)


def test_squash_is_odd_monotone_and_linear_near_zero() -> None:
    x = torch.linspace(-5000, 5000, 1001)
    assert torch.equal(squash(-x), -squash(x))
    assert bool((squash(x).diff() > 0).all())
    assert float(squash(torch.tensor(1e-4))) == pytest.approx(1e-4, rel=1e-3)


def test_measured_numbers_are_standardized_and_missing_ones_are_zero() -> None:
    scale, values = InputScale(CONTEXT), measured(CONTEXT, 500)
    scale.fit(values)
    found, masks = scale(values)
    numeric = [place for place, f in enumerate(CONTEXT.valued) if f.kind is Kind.NUMERIC]
    assert torch.equal(masks, values[:, CONTEXT.value_width :])
    for column in numeric:
        known = masks[:, column] == 1
        kept = found[known, column]
        assert abs(float(kept.mean())) < 0.05
        assert 0.8 < float(kept.std()) < 1.1
        assert bool((found[~known, column] == 0).all())


def test_a_wild_value_is_clipped_and_no_channel_drowns_the_others() -> None:
    scale, values = InputScale(LAYER), measured(LAYER, 100)
    scale.fit(values)
    values[0, : LAYER.value_width], values[0, LAYER.value_width :] = 1e30, 1.0
    found, _ = scale(values)
    assert float(found.abs().max()) <= CLIP
    assert bool(found.isfinite().all())


def test_a_constant_channel_is_not_blown_up() -> None:
    scale, values = InputScale(CONTEXT), measured(CONTEXT, 50)
    values[:, 0], values[:, CONTEXT.value_width] = 2.0, 1.0
    scale.fit(values)
    assert float(scale.scale[0]) == pytest.approx(LEAST_SPREAD)
    assert float(scale(values)[0][:, 0].abs().max()) < 1e-4


def test_flags_and_multi_hots_stay_as_they_are() -> None:
    scale, values = InputScale(SEED), measured(SEED, 60)
    scale.fit(values)
    channel = 0
    for feature in SEED.valued:
        if feature.kind is not Kind.NUMERIC:
            span = slice(channel, channel + feature.channels)
            assert bool((scale.center[span] == 0).all())
            assert bool((scale.scale[span] == 1).all())
        channel += feature.channels


@pytest.mark.parametrize("group", [*NODE_TYPES, *RELATIONS], ids=lambda g: g.family)
def test_widths_follow_from_the_declaration(group: object) -> None:
    embedding = GroupEmbedding(group, CONFIG)
    ids = torch.zeros(3, len(group.categorical), dtype=torch.int64)
    assert embedding(torch.zeros(3, group.width), ids).shape == (3, embedding.width)
    assert embedding(torch.zeros(0, group.width), ids[:0]).shape == (0, embedding.width)


def test_an_id_that_training_never_met_is_neutral() -> None:
    batch = random_batch(1)
    encoder = NodeEncoder(LAYER, CONFIG)
    one, two = (torch.full_like(batch.ids["layer"], number) for number in (5, 9))
    assert torch.equal(encoder(batch.x["layer"], one), encoder(batch.x["layer"], two))
