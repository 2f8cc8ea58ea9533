"""`log_z` features are centred when a batch is assembled, and nothing else is touched."""

import pytest
import torch

from gnn.encode.build import build_features
from gnn.graph.builder import to_batch
from gnn.graph.scale import scale
from gnn.norms.priors import DEFAULT_PRIORS
from schemas.features import PARAMETER
from tests.gnn.tables import altered, registries, small_world


def channel(name: str) -> int:
    names = [feature.name for feature in PARAMETER.valued]
    return names.index(name)  # each of them has one channel


def test_z_scores_stand_in_place_of_logarithms_and_momentum_has_none() -> None:
    world = altered(small_world(2), "tolaria.parameter_telemetry", momentum=0.95)
    world = altered(world, "urza.parameter", parameter_count=1_000_000)
    raw = to_batch(build_features(world, registries=registries()))
    found = scale(raw, DEFAULT_PRIORS)
    momentum, count = found.x["parameter"][:, channel("momentum")], found.x["parameter"][:, channel("parameter_count")]
    assert momentum.tolist() == pytest.approx([1.0] * len(momentum), abs=1e-5)
    assert count.tolist() == pytest.approx([0.0] * len(count), abs=1e-5)
    assert raw.x["parameter"][:, channel("momentum")].tolist() == pytest.approx([0.95] * len(momentum))
    for name, tensor in raw.x.items():
        same = [place for place in range(tensor.shape[1]) if name != "parameter" or place > channel("gradient_variance")]
        assert torch.equal(found.x[name][:, same], tensor[:, same])
    assert found.edge_attr is raw.edge_attr


def test_a_missing_value_keeps_its_neutral_channel() -> None:
    world = altered(small_world(1), "tolaria.parameter_telemetry", momentum=None)
    world = altered(world, "urza.blueprint", optimizer_momentum=None)
    found = scale(to_batch(build_features(world, registries=registries())), DEFAULT_PRIORS)
    assert found.x["parameter"][:, channel("momentum")].unique().tolist() == [0.0]
