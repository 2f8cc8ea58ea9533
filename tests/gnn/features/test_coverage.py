"""Coverage counts what the masks say, conserves elements, and every gap names its system."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.coverage.counts import by_family, per_packet
from gnn.encode.build import FeatureSet, build_features
from gnn.join.tables import feature_tables
from schemas.derived.features import feature_schema
from schemas.errors import FeatureError
from schemas.features import COVERAGE_KEYS, FAMILIES, GROUPS, Kind
from tests.gnn.coverage import by_key, check_conservation, gaps
from tests.gnn.graph.worlds import World, world_registries
from tests.gnn.tables import of_packet, packet, small_world, table, tables


def build(world) -> FeatureSet:
    return build_features(world, registries=world_registries())


def rows_of(table_, **wanted):
    return [row for row in table_.to_pylist() if all(row[name] == value for name, value in wanted.items())]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_conservation_on_random_worlds(seed: int) -> None:
    features = build(World(seed).tables())
    keys = by_key(features)
    check_conservation(features, keys)
    assert [row["key"] for row in keys.to_pylist()] == list(COVERAGE_KEYS) * len(features.joined.states.runs)
    missing: dict[tuple[str, str], int] = {}
    for row in gaps(features).to_pylist():
        assert row["system"]
        assert row["reason"]
        if row["key"] not in FAMILIES:
            place = (row["training_run_id"], row["key"])
            missing[place] = missing.get(place, 0) + row["missing"]
    for row in keys.to_pylist():
        assert row["measured"] + missing.get((row["training_run_id"], row["key"]), 0) == row["elements"]
        assert row["ratio"] == (row["measured"] / row["elements"] if row["elements"] else None)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_feature_tables_agree_with_coverage_and_their_masks(seed: int) -> None:
    features = build(World(seed).tables())
    found = feature_tables(features.joined)
    measured = {row["key"]: row["measured_sum"] for row in by_key(features).group_by("key").aggregate(
        [("measured", "sum")]).to_pylist()}  # fmt: skip
    for group in GROUPS:
        rows = found[group.table]
        assert rows.schema.equals(feature_schema(group))
        for feature in group.features:
            mask = rows.column(f"{feature.name}__mask").to_numpy()
            valid = rows.column(feature.name).is_valid().to_numpy()
            assert np.array_equal(mask == 1, valid), group.key(feature)
            assert int(mask.sum()) == measured.get(group.key(feature), 0), group.key(feature)


def test_a_mask_that_lies_is_found() -> None:
    features = build(small_world(2))
    keys = by_key(features)
    features.nodes["layer"].encoded.x[0, -1] = 1.0 - features.nodes["layer"].encoded.x[0, -1]
    with pytest.raises(FeatureError, match=r"layer\.latency_budget_utilisation: 4 measured of 4 elements, masks sum to 3"):
        check_conservation(features, keys)


def test_families_are_weighted_by_counts() -> None:
    keys = by_key(build(small_world(3)))
    for row in by_family(keys).to_pylist():
        own = rows_of(keys, family=row["family"])
        assert row["measured"] == sum(key["measured"] for key in own)
        assert row["elements"] == sum(key["elements"] for key in own)
    assert [row["family"] for row in by_family(keys).to_pylist()] == list(FAMILIES)


def test_a_run_without_layers_is_a_gap_of_urza_and_one_without_seeds_is_none() -> None:
    bare = tables(tolaria__system_state=[packet(0, blueprint_id=None)])
    keys, found = by_key(build(bare)), gaps(build(bare))
    assert rows_of(keys, key="layer.loss")[0]["ratio"] is None
    layer = rows_of(found, key="layer.layer_type")
    assert [(row["system"], row["elements"], row["missing"]) for row in layer] == [("urza", 0, 0)]
    assert layer[0]["reason"].startswith("no elements")
    assert {row["system"] for row in rows_of(found) if row["key"].startswith("edges.layer_connects.")} == {"urza"}
    assert not [row for row in found.to_pylist() if row["key"].startswith(("seed.", "edges.seed_", "edges.context_seed"))]


def test_links_inside_a_host_that_nobody_sent_are_a_gap_of_urza() -> None:
    world = small_world(2)
    for name in ("urza.layer", "urza.activation", "urza.parameter", "urza.connection", "urza.activation_parameter"):
        world.pop(name)
    found = gaps(build(world))
    activates = rows_of(found, key="edges.layer_activates.activation_frequency")
    assert [(row["system"], row["elements"]) for row in activates] == [("urza", 0)]
    assert {row["system"] for row in rows_of(found) if row["reason"].startswith("no elements")} == {"urza"}


def test_telemetry_that_was_not_sent_is_a_gap_of_tolaria_since_its_first_packet() -> None:
    world = small_world(3)
    sent = [row for row in world["tolaria.connection_telemetry"].to_pylist() if row["packet_id"] == "run-a-0"]
    found = gaps(build({**world, "tolaria.connection_telemetry": table("tolaria.connection_telemetry", sent)}))
    row = rows_of(found, key="edges.layer_connects.latency_ms")[0]
    assert (row["system"], row["missing"], row["elements"]) == ("tolaria", 2, 3)
    assert row["since_timestamp_ns"] == packet(1)["timestamp_ns"]
    assert "on 2 of 3 packets" in row["reason"]


def test_placeholders_are_a_gap_of_tezzeret() -> None:
    world = small_world(2)
    mocked = [{**row, "type": "guard_tensor", "is_placeholder": True} for row in world["urza.layer"].to_pylist()]
    found = gaps(build({**world, "urza.layer": table("urza.layer", mocked)}))
    row = rows_of(found, key="layer.loss")[0]
    assert (row["system"], row["missing"], row["elements"]) == ("tezzeret", 4, 4)
    unused = {**world, "urza.layer": table("urza.layer", mocked)}
    unused["tolaria.system_state"] = table("tolaria.system_state", [packet(0, blueprint_id=None)])
    unused.pop("tolaria.layer_telemetry")
    assert [row["system"] for row in rows_of(gaps(build(unused)), key="node.layer")] == ["tezzeret"]


def test_dangling_references_are_gaps_with_their_ids() -> None:
    world = small_world(2)
    ghost = of_packet(1, layer_id="ghost", loss=1.0)
    world["tolaria.layer_telemetry"] = table("tolaria.layer_telemetry", [*world["tolaria.layer_telemetry"].to_pylist(), ghost])
    lost = {"blueprint_id": "host", "source_layer_id": "fc1", "target_layer_id": "lost"}
    world["urza.connection"] = table("urza.connection", [*world["urza.connection"].to_pylist(), lost])
    found = gaps(build(world))
    layer = rows_of(found, key="node.layer")[0]
    assert (layer["system"], layer["missing"], layer["elements"]) == ("urza", 1, 5)
    assert layer["reason"] == "dangling: names what the graph lacks: ghost"
    assert layer["since_timestamp_ns"] == ghost["timestamp_ns"]
    assert "fc1 -> lost" in rows_of(found, key="edges.layer_connects")[0]["reason"]


def test_kinds_of_columns() -> None:
    seed = feature_tables(build(small_world(1)).joined)["features.seed"].to_pylist()[0]
    assert seed["quarantine_only"] is False
    assert seed["allowed_blending_methods"] == ["linear", "cosine"]
    assert seed["isolation_exemptions"] == []
    assert (seed["grafting_strategies"], seed["grafting_strategies__mask"]) == (None, 0)
    assert {feature.kind for group in GROUPS for feature in group.features} == set(Kind)


@pytest.mark.parametrize("ptr", [[0, 6], [0, 0], [1, 4], [0, 2, 2, 6], [2, 3, 5], [0]])
def test_marks_are_counted_between_the_bounds_of_each_packet(ptr: list[int]) -> None:
    marks = np.array([[1, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0] * 6, [1] * 6], dtype=np.bool_)
    found = per_packet(marks, np.array(ptr))
    assert found.dtype == np.int64
    assert found.tolist() == [[sum(row[a:b]) for a, b in pairwise(ptr)] for row in marks.tolist()]
