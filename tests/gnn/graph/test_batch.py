"""Behaviour of GraphBatch: layout, views and the CSR plan."""

from dataclasses import replace

import pytest
import torch

from schemas.errors import FeatureError
from schemas.features import NODE_TYPES, RELATIONS
from tests.gnn.graph.batches import random_batch


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
