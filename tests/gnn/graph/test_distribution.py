"""Distributions of feature values, and how far one dataset is from another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from gnn.graph.batch import GraphBatch
from gnn.graph.distribution import SAMPLE, Distribution, _counts, _of, distributions, stability
from schemas.features import LAYER, Kind
from tests.gnn.graph.batches import random_batch
from tests.gnn.model.store import MemoryStore

PLACE = [feature.name for feature in LAYER.valued].index("loss")
VALUE = sum(feature.channels for feature in LAYER.valued[:PLACE])
MASK = LAYER.value_width + PLACE


def store(count: int, shift: float = 0.0, *, measured: bool = True) -> MemoryStore:
    """Random graphs whose layers have losses around `shift`."""
    graphs = [random_batch(1, seed=number) for number in range(count)]
    numbers = np.random.default_rng(7)
    found = []
    for graph in graphs:
        x = graph.x["layer"].clone()
        x[:, VALUE] = torch.from_numpy(numbers.normal(shift, 1.0, len(x))).float()
        x[:, MASK] = float(measured)
        found.append(replace(graph, x={**graph.x, "layer": x}))
    return MemoryStore(found)


def test_the_same_data_have_no_distance_and_moved_ones_a_large_one() -> None:
    before = distributions(store(80))
    assert set(stability(before, store(80)).values()) == {0.0}
    found = stability(before, store(80, shift=1.0))
    assert next(iter(found)) == "layer.loss" and found["layer.loss"] > 0.5
    assert found["layer.loss"] == max(found.values())


def test_what_is_not_measured_is_left_to_coverage() -> None:
    before = distributions(store(80))
    assert "layer.loss" not in stability(before, store(80, measured=False))
    assert "layer.loss" not in stability(distributions(store(80, measured=False)), store(80))
    assert stability({}, store(3)) == {} == stability(before, MemoryStore([]))
    assert distributions(MemoryStore([])) == {}


def test_names_and_sets_have_no_distribution() -> None:
    found = distributions(store(3))
    assert not {"seed.seed_id", "seed.policy_version", "blueprint.blueprint_id"} & found.keys()
    assert not [f for f in LAYER.features if f.kind is Kind.MULTI_HOT and LAYER.key(f) in found]
    assert "layer.layer_type" in found and "context.conservative_mode" in found


def test_one_value_that_many_share_has_a_bin_of_its_own() -> None:
    values = np.array([0.0] * 90 + [0.3] * 10, dtype=np.float32)
    found = _of(values)
    assert found == Distribution(edges=[0.0, 0.0], counts=[0, 90, 10])
    assert _counts(found, np.array([-1.0, 0.0, 0.0, 0.1], dtype=np.float32)).tolist() == [1, 2, 1]
    constant = _of(np.full(20, 0.1, dtype=np.float32))
    assert constant == Distribution(edges=[0.1, 0.1], counts=[0, 20, 0])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e20])
def test_deciles_survive_being_written_as_decimals(scale: float) -> None:
    values = (np.random.default_rng(3).normal(size=1000) * scale).astype(np.float32)
    found = _of(values)
    again = Distribution.model_validate_json(found.model_dump_json())
    assert again == found and _counts(again, values).tolist() == found.counts
    assert sum(found.counts) == 1000 and max(found.counts) - min(found.counts) <= 2


def test_rare_and_new_indices_share_a_bin() -> None:
    ids = np.repeat(np.arange(1, 31), np.arange(30, 0, -1)).astype(np.int64)
    found = _of(ids)
    assert found.values == list(range(1, 21)) and found.counts[-1] == sum(range(1, 11))
    assert _counts(found, np.array([1, 4095], dtype=np.int64)).tolist() == [1, *[0] * 19, 1]


def test_no_more_graphs_are_read_than_the_sample_has() -> None:
    class Long(MemoryStore):
        def __len__(self) -> int:
            return 100 * SAMPLE

        def batch(self, indices: Sequence[int]) -> GraphBatch:
            asked.append(list(indices))
            return super().batch([0])

    asked: list[list[int]] = []
    distributions(Long(store(1).graphs))
    assert [len(indices) for indices in asked] == [SAMPLE]
    assert (asked[0][0], asked[0][-1]) == (0, 100 * SAMPLE - 1)
