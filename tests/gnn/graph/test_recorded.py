"""On recorded training: mandatory coverage is full, masks conserve, and serialized packets replayed online give the same bits.

On the exports of the existing system: nothing is invented, and every gap names who should have sent what.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gnn.encode.build import FeatureSet, build_features
from gnn.graph.builder import GraphBuilder, to_batch
from gnn.join.metadata import Metadata
from gnn.join.sources import Sources
from gnn.registry.refresh import Registries
from schemas.features import COVERAGE_KEYS, RELATIONS
from schemas.leyline import leyline_pb2
from tests.gnn.coverage import by_key, check_conservation, gaps
from tests.gnn.graph.test_parity import assert_same, graph_of
from tests.gnn.recorded import recorded_registries, recorded_tables, serialized_packets

RUNS = 18


@dataclass(frozen=True)
class Recorded:
    """Tables of an exports root with what was built from them."""

    root: Path
    tables: Sources
    registries: Registries
    features: FeatureSet


def recorded(root: Path, workplace: Path) -> Recorded:
    tables = recorded_tables(root)
    registries = recorded_registries(workplace, tables)
    return Recorded(root, tables, registries, build_features(tables, registries=registries))


@pytest.fixture(scope="module")
def training(some_hosts: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded(some_hosts, tmp_path_factory.mktemp("registries"))


@pytest.fixture(scope="module")
def existing(esper_exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded(esper_exports, tmp_path_factory.mktemp("registries"))


def test_every_key_is_there_and_every_mandatory_one_is_full(training: Recorded) -> None:
    keys = by_key(training.features)
    assert {row["key"] for row in keys.to_pylist()} == set(COVERAGE_KEYS)
    short = {row["key"]: row["ratio"] for row in keys.to_pylist() if row["mandatory"] and row["ratio"] != 1.0}
    assert not short
    # what an optimizer or a host does not have has no elements
    assert {row["key"] for row in keys.to_pylist() if not row["elements"]} <= {"parameter.momentum"}
    check_conservation(training.features, keys)
    to_batch(training.features).validate()


def test_replaying_serialized_packets_is_bit_equal_across_restarts(training: Recorded) -> None:
    features = training.features
    chosen = features.joined.states.runs[:RUNS]
    assert len(chosen) == RUNS
    packets = {}
    for data in serialized_packets(training.root):
        message = leyline_pb2.SystemStatePacket.FromString(data)
        packets[message.training_run_id, message.packet_id] = data
    seeds = training.tables["kasmina.seed_state"]
    exported = seeds.filter(pc.equal(seeds["source"], "export"))
    offline, metadata = to_batch(features), Metadata(training.tables)
    builder, before, replayed = GraphBuilder(metadata, training.registries), {}, 0
    for number, key in enumerate(features.keys().to_pylist()):
        run, now = key["training_run_id"], key["timestamp_ns"]
        if run not in chosen:
            continue
        times = exported["timestamp_ns"].to_numpy()
        own = np.asarray(pc.equal(exported["training_run_id"], run)) & (times <= now) & (times > before.get(run, -1))
        builder.admit_seeds(exported.filter(pa.array(own)))
        before[run] = now
        built = builder.build_packets([packets[run, key["packet_id"]]])
        assert_same(graph_of(offline, number), graph_of(built.batch, 0))
        replayed += 1
        if replayed % 37 == 0:
            saved, builder = builder.save(), GraphBuilder(metadata, training.registries)
            builder.restore(saved)
    assert replayed >= RUNS


def test_existing_exports_invent_nothing_and_name_who_to_ask(existing: Recorded) -> None:
    features = existing.features
    assert features.size == 240
    for name in ("layer", "activation", "parameter", "blueprint"):
        assert features.nodes[name].group.ptr[-1] == 0
    for relation in RELATIONS:
        expected = relation.short == "context_seed"
        assert bool(features.edges[relation.short].group.ptr[-1]) is expected, relation.short
    check_conservation(features, by_key(features))
    found = gaps(features).to_pylist()
    systems = {row["key"]: row["system"] for row in found}
    for relation in RELATIONS:
        if relation.short != "context_seed":
            assert {systems[relation.key(feature)] for feature in relation.features} <= {"urza", "tolaria"}
    assert {row["system"] for row in found if row["reason"].startswith("placeholder")} == {"tezzeret"}
    to_batch(features).validate()
