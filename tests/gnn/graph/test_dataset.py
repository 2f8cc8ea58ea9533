"""The dataset gives back the very graphs that were written, in any order and company, and refuses what is not its own."""

import pickle
from dataclasses import fields
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from gnn.coverage.counts import mask_sums
from gnn.encode.build import FeatureSet, build_features, encode_all
from gnn.encode.encoding import Vocabularies
from gnn.graph.batch import GraphBatch
from gnn.graph.builder import to_batch
from gnn.graph.dataset import GraphDataset, Shard
from gnn.graph.files import FILES, VERSION, ShardWriter, write_shard
from gnn.graph.plan import ALL_TYPES, Directions
from gnn.join.tables import feature_tables, join_of
from schemas.errors import FeatureError
from schemas.features import COVERAGE_KEYS, NODE_TYPES, RELATIONS
from tests.gnn.tables import packet, registries, small_world, table

REGISTRIES = registries(layer_type=["linear"], seed=["seed-1"])


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
    return build_features(world, registries=REGISTRIES)


def only(run: str) -> FeatureSet:
    """The features of one run, through the feature tables."""
    tables = feature_tables(features().joined)
    own = {name: rows.filter(pc.equal(rows["training_run_id"], run)) for name, rows in tables.items()}
    return encode_all(join_of(own), Vocabularies(REGISTRIES))


@pytest.fixture
def dataset(tmp_path: Path) -> GraphDataset:
    return GraphDataset.of([write_shard(tmp_path / "graphs", features())], verify=True)


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


def test_the_message_plan_is_the_same_with_and_without_the_stored_order(dataset: GraphDataset) -> None:
    batch = dataset.batch([4, 1, 0])
    computed = GraphBatch(**{**vars(batch), "reverse_order": None})
    for receivers in (ALL_TYPES, ("layer", "seed")):
        stored, sorted_anew = (each.plan(Directions.reaching(receivers)) for each in (batch, computed))
        assert len(stored.slot) > 0
        for name in ("slot", "begins", "rows", "part", "share", "numbers", "scored"):
            assert torch.equal(getattr(stored, name), getattr(sorted_anew, name)), name
        assert stored.arranged.lots == sorted_anew.arranged.lots


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


def test_shards_are_one_sequence_in_any_company(dataset: GraphDataset, tmp_path: Path) -> None:
    whole = features()
    runs = [write_shard(tmp_path / run, only(run)) for run in ("run-b", "run-a")]
    parts = GraphDataset.of(runs, verify=True)
    assert len(parts) == len(dataset) == whole.size
    order = [dataset.index_of(key["training_run_id"], key["packet_id"]) for key in parts.keys.to_pylist()]
    assert same(parts.batch(range(len(parts))), dataset.batch(order))
    assert same(parts.batch([5, 0, 3, 5]), dataset.batch([order[place] for place in (5, 0, 3, 5)]))
    assert [parts.element_ids("context", place) for place in range(6)] == [dataset.element_ids("context", n) for n in order]
    assert same(pickle.loads(pickle.dumps(parts)).batch([1, 4]), parts.batch([1, 4]))


def test_a_shard_depends_on_its_runs_alone_whether_they_are_encoded_or_copied(dataset: GraphDataset, tmp_path: Path) -> None:
    whole = dataset.shards[0]
    assert write_shard(tmp_path / "each", iter([only("run-a"), only("run-b")])).name == whole.directory.name
    lone = Shard.open(write_shard(tmp_path / "lone", only("run-b")))
    for sources in (((whole, 0), (whole, 1)), ((whole, 0), (lone, 0))):
        writer = ShardWriter(tmp_path / "copies")
        for shard, run in sources:
            writer.copy(shard.part(run, run + 1))
        directory, header = writer.finish()
        assert (directory.name, header) == (whole.directory.name, whole.header)
        writer.abandon()
    measured = dict(zip(COVERAGE_KEYS, whole.measured().tolist(), strict=True))
    assert measured == mask_sums(features())


def test_measured_elements_of_long_runs_are_counted_run_by_run(tmp_path: Path) -> None:
    world = small_world(1)
    packets = [packet(step, run, blueprint_id=host) for run, host in (("a", "host"), ("b", None)) for step in range(600)]
    whole = build_features(world | {"tolaria.system_state": table("tolaria.system_state", packets)}, registries=REGISTRIES)
    shard = Shard.open(write_shard(tmp_path, whole))
    assert dict(zip(COVERAGE_KEYS, shard.measured().tolist(), strict=True)) == mask_sums(whole)
    per_run = [dict(zip(COVERAGE_KEYS, row, strict=True)) for row in shard.runs.column("measured").to_pylist()]
    assert [row["context.training_loss"] for row in per_run] == [600, 600]
    assert [row["layer.layer_type"] for row in per_run] == [1200, 0]


def test_batches_are_made_of_float32_and_int64_whatever_the_files_hold(dataset: GraphDataset) -> None:
    batch = dataset.batch([1, 0])
    tensors = [*batch.x.values(), *batch.edge_attr.values()]
    numbers = [*batch.ids.values(), *batch.edge_index.values(), *batch.edge_ids.values(), *batch.ptr.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert {tensor.dtype for tensor in numbers} == {torch.int64}


def test_a_shard_of_another_format_version_is_refused(dataset: GraphDataset) -> None:
    path = dataset.shards[0].directory / "header.json"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', '"version": 2'))
    with pytest.raises(FeatureError, match=f"version: expected {VERSION}, found 2; materialize graphs/dataset again"):
        GraphDataset.of([path.parent])


def test_empty_dataset(tmp_path: Path) -> None:
    assert len(GraphDataset.of([write_shard(tmp_path / "none", [])], verify=True)) == 0
    assert len(GraphDataset.open(tmp_path)) == 0


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_or_lost_byte_is_found(dataset: GraphDataset, name: str) -> None:
    directory = dataset.shards[0].directory
    path = directory / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FeatureError, match=f"{name}: expected SHA-256"):
        GraphDataset.of([directory], verify=True)
    path.write_bytes(data[:-1])
    with pytest.raises(FeatureError, match=f"{name}: expected {len(data)} bytes"):
        GraphDataset.of([directory])


def test_foreign_directories_and_numbers_are_refused(dataset: GraphDataset, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="expected a shard of graphs"):
        GraphDataset.of([tmp_path])
    with pytest.raises(FeatureError, match=r"graph numbers 0\.\.5"):
        dataset.batch([6])
    (tmp_path / "graphs" / "current.json").write_text('{"0": "../../etc"}')
    with pytest.raises(FeatureError, match="expected bucket numbers and digests"):
        GraphDataset.open(tmp_path)
