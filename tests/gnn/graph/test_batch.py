"""Behaviour of GraphBatch: layout, views and the CSR plan."""

from dataclasses import replace

import pytest
import torch

from gnn.graph.batch import joined
from gnn.graph.builder import PlanCache
from gnn.graph.plan import ALL_TYPES, Directions
from schemas.artifacts import REGISTRIES
from schemas.errors import FeatureError
from schemas.features import LAYER, NODE_TYPES, RELATIONS
from tests.gnn.graph.batches import random_batch
from tests.gnn.model.store import join


def test_hetero_data_validates_and_holds_every_type_and_reverse() -> None:
    data = random_batch(4, seed=1).hetero_data()
    assert data.validate()
    assert set(data.node_types) == {node.name for node in NODE_TYPES}
    assert set(data.edge_types) == {t for relation in RELATIONS for t in (relation.triple, relation.reverse)}


def test_reverse_carries_the_same_attributes() -> None:
    data = random_batch(2, seed=2).hetero_data()
    for relation in RELATIONS:
        assert torch.equal(data[relation.triple].edge_attr, data[relation.reverse].edge_attr)
        assert torch.equal(data[relation.triple].edge_index.flip(0), data[relation.reverse].edge_index)


def test_node_batch_counts_nodes_per_graph() -> None:
    batch = random_batch(5, seed=3)
    for node in NODE_TYPES:
        assert torch.equal(torch.bincount(batch.node_batch(node.name), minlength=5), batch.ptr[node.name].diff())


def test_csr_groups_edges_by_receiver() -> None:
    batch = random_batch(3, seed=4)
    for relation in RELATIONS:
        for triple, index in (
            (relation.triple, batch.edge_index[relation.triple]),
            (relation.reverse, batch.edge_index[relation.triple].flip(0)),
        ):
            plan = batch.csr[triple]
            receivers = torch.repeat_interleave(torch.arange(len(plan.indptr) - 1), plan.indptr.diff())
            assert torch.equal(index[:, plan.order], torch.stack([plan.neighbours, receivers]))


def test_validate_names_every_fault() -> None:
    batch = random_batch(2, seed=5)
    batch.validate()
    broken = replace(
        batch,
        x={**batch.x, "layer": batch.x["layer"].double()},
        ptr={**batch.ptr, "seed": batch.ptr["seed"] + 1},
    )
    with pytest.raises(FeatureError, match=r"layer: values expected.*seed\.ptr: expected int64 offsets"):
        broken.validate()


@pytest.mark.parametrize("wrong", [-1, REGISTRIES["layer_type"].capacity])
def test_an_id_outside_its_registry_is_a_fault(wrong: int) -> None:
    batch = random_batch(1, seed=5)
    ids = batch.ids["layer"].clone()
    ids[0, [feature.name for feature in LAYER.categorical].index("layer_type")] = wrong
    with pytest.raises(FeatureError, match="layer: an id outside the capacity of its registry"):
        replace(batch, ids={**batch.ids, "layer": ids}).validate()


def test_joined_batches_are_one_batch_of_all_graphs() -> None:
    graphs = [random_batch(1, seed=seed) for seed in (6, 7, 8)]
    found, expected = joined([graphs[0], joined(graphs[1:]), graphs[0]]), join([*graphs, graphs[0]])
    found.validate()
    assert found.num_graphs == 4
    for name in ("x", "ids", "ptr", "edge_index", "edge_attr", "edge_ids", "edge_ptr"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_graphs_share_plans_if_their_nodes_and_edges_are_equal() -> None:
    cache, ways = PlanCache(), Directions.reaching(ALL_TYPES)
    first = random_batch(1, seed=8)
    triple = next(r.triple for r in RELATIONS if first.edge_index[r.triple].shape[1] > 1)
    equal = replace(first, x={name: x + 1.0 for name, x in first.x.items()})
    turned = replace(first, edge_index={**first.edge_index, triple: first.edge_index[triple].flip(1)})
    larger = replace(first, x={**first.x, "layer": torch.cat([first.x["layer"], torch.zeros(1, first.x["layer"].shape[1])])})
    plans = [replace(batch, shared=cache.of(batch)).plan(ways) for batch in (first, equal, turned, larger)]
    assert plans[0] is plans[1]
    assert plans[0] is not plans[2]
    assert plans[0] is not plans[3]
    fresh = turned.plan(ways)
    assert torch.equal(plans[2].numbers, fresh.numbers)
    assert torch.equal(plans[2].slot, fresh.slot)


def test_the_plan_cache_forgets_the_structure_that_was_not_used_for_longest() -> None:
    cache, batch = PlanCache(), random_batch(1, seed=9)
    sized = [
        replace(batch, x={**batch.x, "seed": torch.zeros(rows, batch.x["seed"].shape[1])})
        for rows in range(PlanCache._KEPT + 1)
    ]
    kept = [cache.of(one) for one in sized[:-1]]
    assert cache.of(sized[0]) is kept[0]
    cache.of(sized[-1])
    assert cache.of(sized[0]) is kept[0]
    assert cache.of(sized[1]) is not kept[1]
