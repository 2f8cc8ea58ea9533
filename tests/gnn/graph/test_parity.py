"""Online equals offline: packets replayed one at a time give the offline graphs bit for bit, also across a restart."""

import pyarrow as pa
import pytest
import torch

from gnn.encode.build import build_features, encode_all
from gnn.encode.encoding import Vocabularies
from gnn.graph.batch import GraphBatch
from gnn.graph.builder import GraphBuilder, to_batch
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.state import RunState
from schemas.contracts import TABLES
from schemas.errors import FeatureError
from schemas.features import NODE_TYPES, RELATIONS
from tests.gnn.graph.replay import packet_tables
from tests.gnn.graph.worlds import World, world_registries


def graph_of(batch: GraphBatch, number: int) -> dict[object, torch.Tensor]:
    """All tensors of one graph of a batch, with its own node numbers."""
    found: dict[object, torch.Tensor] = {}
    for node in NODE_TYPES:
        rows = slice(int(batch.ptr[node.name][number]), int(batch.ptr[node.name][number + 1]))
        found[node.name, "x"], found[node.name, "ids"] = batch.x[node.name][rows], batch.ids[node.name][rows]
    for relation in RELATIONS:
        triple = relation.triple
        rows = slice(int(batch.edge_ptr[triple][number]), int(batch.edge_ptr[triple][number + 1]))
        first = torch.stack([batch.ptr[relation.source][number], batch.ptr[relation.target][number]])
        found[triple, "index"] = batch.edge_index[triple][:, rows] - first[:, None]
        found[triple, "attr"], found[triple, "ids"] = batch.edge_attr[triple][rows], batch.edge_ids[triple][rows]
    return found


def assert_same(first: dict[object, torch.Tensor], second: dict[object, torch.Tensor]) -> None:
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def metadata_of(world: dict[str, pa.Table]) -> Metadata:
    return Metadata(world)


@pytest.mark.parametrize("seed", range(12))
def test_replay_is_bit_equal_also_when_restored_in_the_middle(seed: int) -> None:
    world = World(seed, runs=4, steps=6).tables()
    offline = build_features(world, registries=world_registries())
    batch = to_batch(offline)
    builder = GraphBuilder(metadata_of(world), world_registries())
    for number, tables in enumerate(packet_tables(world, offline)):
        built = builder.build(tables)
        built.batch.validate()
        assert built.batch.num_graphs == 1
        assert_same(graph_of(batch, number), graph_of(built.batch, 0))
        if number % 3 == 1:
            saved = builder.save()
            builder = GraphBuilder(metadata_of(world), world_registries())
            builder.restore(saved)
            assert builder.save() == saved


def test_a_run_may_be_cut_into_blocks_anywhere() -> None:
    world = World(3, messy=False, runs=3, steps=6).tables()
    whole = to_batch(build_features(world, registries=world_registries()))
    metadata, number = metadata_of(world), 0
    states: dict[str, RunState] = {}
    features = build_features(world, registries=world_registries())
    parts = list(packet_tables(world, features))
    for first in range(0, len(parts), 4):
        merged = {name: pa.concat_tables([part[name] for part in parts[first : first + 4]]) for name in parts[0]}
        filled = merged | {n: t.empty() for n, t in TABLES.items() if n not in merged}
        joined, states = join(metadata, filled, states)
        block = encode_all(joined, Vocabularies(world_registries()))
        for place in range(block.size):
            assert_same(graph_of(whole, number), graph_of(to_batch(block), place))
            number += 1
    assert number == whole.num_graphs


def test_runs_do_not_disturb_each_other_and_order_of_rows_does_not_matter() -> None:
    world = World(5, runs=3, steps=5).tables()
    whole = build_features(world, registries=world_registries())
    batch, keys = to_batch(whole), whole.keys().to_pylist()
    backwards = {name: rows.take(pa.array(range(rows.num_rows - 1, -1, -1), pa.int64())) for name, rows in world.items()}
    again = to_batch(build_features(backwards, registries=world_registries()))
    for number in range(batch.num_graphs):
        assert_same(graph_of(batch, number), graph_of(again, number))
    for run in whole.joined.states.runs:
        alone = build_features(
            {n: (t.filter(pa.compute.equal(t["training_run_id"], run)) if TABLES[n].scope else t) for n, t in world.items()},
            registries=world_registries(),
        )
        own = [number for number, key in enumerate(keys) if key["training_run_id"] == run]
        for place, number in enumerate(own):
            assert_same(graph_of(batch, number), graph_of(to_batch(alone), place))


def test_damaged_state_is_refused() -> None:
    builder = GraphBuilder(metadata_of({}), world_registries())
    for saved in (
        b"",
        b"{}",
        b'{"format": 9, "runs": {}}',
        b'{"format": 2, "runs": {"a": {"ewma": {}, "losses": {}, "seeds": "!"}}}',
    ):
        with pytest.raises(FeatureError, match="saved run states"):
            builder.restore(saved)


@pytest.mark.parametrize("seed", range(6))
def test_a_second_replay_which_finds_every_topology_known_gives_the_same_graphs(seed: int) -> None:
    world = World(seed, runs=4, steps=6).tables()
    offline = build_features(world, registries=world_registries())
    batch, metadata = to_batch(offline), metadata_of(world)
    for _ in range(2):
        builder = GraphBuilder(metadata, world_registries())
        for number, tables in enumerate(packet_tables(world, offline)):
            assert_same(graph_of(batch, number), graph_of(builder.build(tables).batch, 0))


def test_a_packet_that_names_other_elements_or_other_ends_is_not_given_the_known_ones() -> None:
    world = World(1, messy=False).tables()
    offline = build_features(world, registries=world_registries())
    first = next(packet_tables(world, offline))
    metadata = metadata_of(world)
    for name in ("tolaria.layer_telemetry", "tolaria.connection_telemetry"):
        assert first[name].num_rows > 1
        for rows in (first[name].slice(1), first[name].take(list(reversed(range(first[name].num_rows))))):
            builds = [GraphBuilder(one, world_registries()) for one in (metadata, metadata_of(world))]
            builds[0].build(first)
            builds[0].forget(first[name]["training_run_id"][0].as_py())
            again, fresh = (builder.build(first | {name: rows}).batch for builder in builds)
            assert_same(graph_of(again, 0), graph_of(fresh, 0))


def test_the_number_of_topologies_that_metadata_keep_is_bounded() -> None:
    metadata = metadata_of(World(1).tables())
    made = [metadata.once(("x", number), lambda: object()) for number in range(2000)]
    assert metadata.once(("x", 1999), lambda: object()) is made[-1]
    assert metadata.once(("x", 0), lambda: object()) is not made[0]
