"""The dataset gives back the very graphs that were written, in any order and company, and refuses what is not its own."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from gnn.encode.build import FeatureSet, build_features
from gnn.graph.assemble import to_batch
from gnn.graph.batch import GraphBatch
from gnn.graph.dataset import GraphDataset
from gnn.graph.files import FILES, write_dataset
from schemas.errors import FeatureError, StorageError
from schemas.features import NODE_TYPES, RELATIONS
from tests.gnn.tables import FixedNorms, packet, registries, small_world, table

INPUTS = {"tolaria.system_state": "a" * 64}


def same(first: GraphBatch, second: GraphBatch) -> bool:
    """Whether two batches hold equal tensors, `reverse_order` aside."""
    for field in fields(GraphBatch):
        one, other = getattr(first, field.name), getattr(second, field.name)
        compared = isinstance(one, dict) and field.name != "reverse_order"
        if compared and (one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one)):
            return False
    return first.num_graphs == second.num_graphs


def features(steps: int = 4) -> FeatureSet:
    world = small_world(steps)
    lone = table("tolaria.system_state", [packet(step, "run-b", blueprint_id=None) for step in range(2)])
    world["tolaria.system_state"] = table("tolaria.system_state", world["tolaria.system_state"].to_pylist() + lone.to_pylist())
    return build_features(world, norms=FixedNorms(), registries=registries(layer_type=["linear"], seed=["seed-1"]))


@pytest.fixture
def dataset(tmp_path: Path) -> GraphDataset:
    write_dataset(tmp_path / "graphs", features(), INPUTS)
    return GraphDataset.open(tmp_path / "graphs", inputs=INPUTS, verify=True)


def test_whole_dataset_is_the_feature_set(dataset: GraphDataset) -> None:
    whole = dataset.batch(range(len(dataset)))
    whole.validate()
    assert same(whole, to_batch(features()))
    assert dataset.keys.equals(features().keys())


def test_a_graph_is_the_same_alone_and_in_company(dataset: GraphDataset) -> None:
    company = dataset.batch([3, 0, 5, 3])
    company.validate()
    for place, number in enumerate([3, 0, 5, 3]):
        alone = dataset.batch([number])
        for node in NODE_TYPES:
            rows = slice(int(company.ptr[node.name][place]), int(company.ptr[node.name][place + 1]))
            assert torch.equal(company.x[node.name][rows], alone.x[node.name])
            assert torch.equal(company.ids[node.name][rows], alone.ids[node.name])
        for relation in RELATIONS:
            edge_ptr = company.edge_ptr[relation.triple]
            rows = slice(int(edge_ptr[place]), int(edge_ptr[place + 1]))
            shift = torch.stack([company.ptr[relation.source][place], company.ptr[relation.target][place]])
            found = company.edge_index[relation.triple][:, rows] - shift[:, None]
            assert torch.equal(found, alone.edge_index[relation.triple])
            assert torch.equal(company.edge_attr[relation.triple][rows], alone.edge_attr[relation.triple])


def test_stored_csr_plan_is_the_computed_one(dataset: GraphDataset) -> None:
    batch = dataset.batch([4, 1, 0])
    computed = GraphBatch(**{**vars(batch), "reverse_order": None})
    for triple, plan in batch.csr.items():
        for name in ("indptr", "neighbours", "order"):
            assert torch.equal(getattr(plan, name), getattr(computed.csr[triple], name)), (triple, name)


def test_element_ids_and_index(dataset: GraphDataset) -> None:
    graph = dataset.index_of("run-a", "run-a-2")
    assert dataset.element_ids("layer", graph) == ["fc1", "fc2"]
    assert dataset.element_ids("seed", graph) == ["seed-1"]
    assert dataset.element_ids("blueprint", graph) == ["host", "kernel-linear"]
    assert dataset.element_ids("context", graph) == ["run-a-2"]
    assert dataset.element_ids("layer", dataset.index_of("run-b", "run-b-0")) == []
    with pytest.raises(KeyError):
        dataset.index_of("run-a", "run-b-0")


def test_hetero_data_of_a_batch_validates(dataset: GraphDataset) -> None:
    assert dataset.batch([0, 5]).hetero_data().validate()
    assert dataset.batch([]).num_graphs == 0


def test_written_in_parts_it_holds_the_same_graphs(tmp_path: Path) -> None:
    write_dataset(tmp_path / "parts", iter([features(2), features(3)]), INPUTS)
    parts = GraphDataset.open(tmp_path / "parts")
    assert len(parts) == 9
    assert same(parts.batch(range(4)), to_batch(features(2)))
    assert same(parts.batch(range(4, 9)), to_batch(features(3)))


def test_empty_dataset(tmp_path: Path) -> None:
    write_dataset(tmp_path / "none", [], INPUTS)
    assert len(GraphDataset.open(tmp_path / "none", verify=True)) == 0


def test_a_published_dataset_is_never_overwritten(dataset: GraphDataset) -> None:
    with pytest.raises(StorageError, match="never change"):
        write_dataset(dataset.directory, features(), INPUTS)
    assert [path.name for path in dataset.directory.parent.iterdir()] == ["graphs"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_or_lost_byte_is_found(dataset: GraphDataset, name: str) -> None:
    path = dataset.directory / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FeatureError, match=f"{name}: expected SHA-256"):
        GraphDataset.open(dataset.directory, verify=True)
    path.write_bytes(data[:-1])
    with pytest.raises(FeatureError, match=f"{name}: expected {len(data)} bytes"):
        GraphDataset.open(dataset.directory)


def test_other_inputs_and_foreign_directories_are_refused(dataset: GraphDataset, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"input tolaria\.system_state: expected bbb"):
        GraphDataset.open(dataset.directory, inputs={"tolaria.system_state": "b" * 64})
    with pytest.raises(FeatureError, match="expected a graph dataset"):
        GraphDataset.open(tmp_path)
    with pytest.raises(FeatureError, match=r"graph numbers 0\.\.5"):
        dataset.batch([6])
