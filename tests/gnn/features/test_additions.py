"""What is derived of losses and of the layers' order, on real exports, against plain Python over the rows; and odd graphs."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.encode.build import build_features
from gnn.encode.transforms import ln_chance
from gnn.graph.builder import GraphBuilder
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.order import topological_positions
from gnn.join.sites import Sites
from gnn.join.tables import feature_tables
from gnn.registry.refresh import Registries
from schemas.features import node_type
from tests.gnn.graph.reference import topological
from tests.gnn.graph.replay import packet_tables
from tests.gnn.recorded import recorded_registries, recorded_tables
from tests.gnn.tables import START, Row, altered, of_packet, registries, small_world, table

SHARES = "layer_type_shares"
LOSSES = ("validation_loss", "training_loss")


class Oracle:
    """The additions of every packet of some contract tables with one Urza record a host."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self.layers, self.edges = defaultdict(list), defaultdict(set)
        for row in sorted(tables["urza.layer"].to_pylist(), key=lambda row: (row["index"], row["layer_id"])):
            self.layers[row["blueprint_id"]].append(row)
        for row in tables["urza.connection"].to_pylist():
            self.edges[row["blueprint_id"]].add((row["source_layer_id"], row["target_layer_id"]))
        self.seeds: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(
            tables["kasmina.seed_state"].to_pylist(), key=lambda row: (row["timestamp_ns"], row["source"] == "export")
        ):
            self.seeds[row["training_run_id"]].append(row)
        self.packets = defaultdict(list)
        for row in sorted(tables["tolaria.system_state"].to_pylist(), key=lambda row: row["timestamp_ns"]):
            if not row["is_completion"]:
                self.packets[row["training_run_id"]].append(row)
        self.order = {host: self._order(host) for host in self.layers}

    def _order(self, host: str) -> list[str]:
        names = [layer["layer_id"] for layer in self.layers[host]]
        ends = [(names.index(a), names.index(b)) for a, b in self.edges[host] if a in names and b in names]
        return [names[place] for place in topological(ends, len(names))]

    def context(self, packet: Row, before: Row | None) -> Row:
        now, then = losses(packet), losses(before)
        host = packet["blueprint_id"]
        layers = {row["layer_id"]: row for row in self.layers.get(host, ())}
        types = [row["type"] for row in layers.values() if not row["is_placeholder"]]
        found = {name: now[name] if now[name] is None or now[name] > 0 else None for name in LOSSES}
        found |= {f"{name}_change": ratio(now[name], then[name]) for name in LOSSES}
        found["generalisation_gap"] = ratio(now["validation_loss"], now["training_loss"])
        found["validation_accuracy"] = packet["validation_accuracy"]
        found["epoch"] = None if packet["current_epoch"] is None else float(packet["current_epoch"])
        channels = layers[self.order[host][-1]]["output_channels"] if layers else None
        return found | {"output_classes": channels, SHARES: sorted(types) or None}

    def places(self, packet: Row) -> dict[str, Row]:
        newest = {
            row["seed_id"]: row
            for row in self.seeds[packet["training_run_id"]]
            if row["timestamp_ns"] <= packet["timestamp_ns"]
        }
        host = packet["blueprint_id"]
        layers, order = {row["layer_id"]: row for row in self.layers.get(host, ())}, self.order.get(host, [])
        sites = {
            seed: sorted((n for n in row["monitored_layers"] or () if n in layers), key=order.index)
            for seed, row in newest.items()
        }
        depth = {seed: sum(map(order.index, site)) / len(site) / len(order) if site else None for seed, site in sites.items()}
        known = [value for value in depth.values() if value is not None]
        return {
            seed: {
                "relative_depth": depth[seed],
                "sites_before": sum(other < depth[seed] for other in known) if site else None,
                "sites_after": sum(other > depth[seed] for other in known) if site else None,
                "is_first": depth[seed] == min(known) if site else None,
                "is_last": depth[seed] == max(known) if site else None,
                "has_norm": any("norm" in layers[name]["type"].lower() for name in site) if site else None,
                "site_channels": layers[site[-1]]["output_channels"] if site else None,
                "layer_depth": newest[seed]["layer_depth"],
            }
            for seed, site in sites.items()
        }


def losses(packet: Row | None) -> dict[str, float | None]:
    if packet is None:
        return dict.fromkeys(LOSSES)
    training = packet["training_loss"]
    if training is None:
        training = dict(packet["training_metrics"] or []).get("loss")
    return {"validation_loss": packet["validation_loss"], "training_loss": training}


def ratio(value: float | None, other: float | None) -> float | None:
    return math.log(value / other) if value and other and value > 0 and other > 0 else None


def same(found: Any, expected: Any) -> bool:
    if expected is None or found is None:
        return found is expected
    return bool(math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12))


def check(tables: Mapping[str, pa.Table]) -> Counter[str]:
    """Compare every value; return how many of each feature were measured."""
    oracle = Oracle(tables)
    found = feature_tables(join(Metadata(tables), tables, {})[0])
    context = {(row["training_run_id"], row["packet_id"]): row for row in found["features.context"].to_pylist()}
    seeds = {(row["training_run_id"], row["packet_id"], row["seed_id"]): row for row in found["features.seed"].to_pylist()}
    measured: Counter[str] = Counter()
    for run, packets in oracle.packets.items():
        for packet, before in zip(packets, [None, *packets[:-1]], strict=True):
            row = context[run, packet["packet_id"]]
            expected = oracle.context(packet, before)
            assert sorted(row.pop(SHARES) or ()) == (expected.pop(SHARES) or [])
            pairs = [(row, expected)]
            pairs += [(seeds[run, packet["packet_id"], seed], values) for seed, values in oracle.places(packet).items()]
            for one, values in pairs:
                for name, value in values.items():
                    assert same(one[name], value), (run, packet["packet_id"], name, one[name], value)
                    assert one[f"{name}__mask"] == (value is not None)
                    measured[name] += value is not None
    return measured


def test_recorded_training_is_as_its_rows_say(some_hosts: Path) -> None:
    measured = check(recorded_tables(some_hosts))
    assert all(measured.values())
    assert measured["epoch"] - measured["validation_loss_change"] > 0  # the first packet of each run


def test_exports_of_the_existing_system_are_as_their_rows_say(esper_exports: Path) -> None:
    measured = check(recorded_tables(esper_exports))
    assert measured["training_loss"]
    assert not any(measured[name] for name in ("relative_depth", "is_first", "has_norm", "output_classes"))


@given(
    st.integers(0, 7).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2), max_size=12))
    )
)
def test_positions_are_those_of_the_plain_definition(graph: tuple[int, list[tuple[int, int]]]) -> None:
    size, edges = graph[0], graph[1] if graph[0] else []
    source, target = (np.array([edge[end] for edge in edges], dtype=np.int64) for end in (0, 1))
    # a second graph before it shows that nodes and edges are counted through
    ptr, edge_ptr = np.array([0, 2, 2 + size]), np.array([0, 1, 1 + len(edges)])
    found = topological_positions(ptr, np.append(1, source + 2), np.append(0, target + 2), edge_ptr)
    assert found[:2].tolist() == [1, 0]
    assert np.argsort(found[2:]).tolist() == topological(edges, size)


def test_a_cycle_is_broken_at_the_lowest_index() -> None:
    def order(*edges: tuple[int, int]) -> list[int]:
        ends = np.array(edges)
        return topological_positions(np.array([0, 4]), ends[:, 0], ends[:, 1], np.array([0, len(edges)])).tolist()

    assert order((1, 0), (0, 1), (1, 2), (2, 3)) == [0, 1, 2, 3]
    assert order((1, 0), (0, 1), (3, 2)) == [2, 3, 1, 0]  # what waits for nobody comes first
    assert order((2, 2), (1, 0)) == [1, 0, 2, 3]


def test_sites_at_one_depth_are_neither_before_nor_after_each_other() -> None:
    packet = np.array([0, 0, 0, 0, 1])
    sites = Sites.of(packet, np.array([0, 1, 3, 4]), np.array([2, 2, 0, 3]), np.array([0, 1, 2, 0]), np.array([3, 3, 3, 3, 1]))
    assert sites.before.tolist()[:2] + sites.before.tolist()[3:] == [1.0, 1.0, 0.0, 0.0]
    assert sites.after.tolist()[:2] + sites.after.tolist()[3:] == [0.0, 0.0, 2.0, 0.0]
    assert math.isnan(sites.before[2])
    assert sites.last.tolist() == [2, 2, -1, 0, 3]


def seed_row(world: dict[str, pa.Table]) -> Row:
    return dict(feature_tables(join(Metadata(world), world, {})[0])["features.seed"].to_pylist()[0])


def test_a_seed_of_guard_tensors_or_of_nothing_has_no_place() -> None:
    world = small_world(1)
    assert (seed_row(world)["relative_depth"], seed_row(world)["is_first"], seed_row(world)["is_last"]) == (0.5, True, True)
    for hollow in (
        altered(world, "urza.layer", is_placeholder=True),
        altered(world, "kasmina.seed_state", monitored_layers=["lost"]),
    ):
        row = seed_row(hollow)
        names = ("relative_depth", "sites_before", "sites_after", "is_first", "is_last", "has_norm", "site_channels")
        assert [(row[name], row[f"{name}__mask"]) for name in names] == [(None, 0)] * 7


def test_layers_that_telemetry_names_are_ordered_by_its_connections() -> None:
    world = altered(small_world(2), "tolaria.system_state", blueprint_id=None)
    rows = [
        of_packet(0, source_layer_id="fc2", target_layer_id="fc1"),
        of_packet(1, source_layer_id="fc1", target_layer_id="fc2"),
    ]
    world["tolaria.connection_telemetry"] = table("tolaria.connection_telemetry", rows)
    found = feature_tables(join(Metadata(world), world, {})[0])
    assert found["features.seed"].column("relative_depth").to_pylist() == [0.0, 0.5]
    assert found["features.context"].column(SHARES).to_pylist() == [None, None]


def shares(world: dict[str, pa.Table], vocabulary: Registries) -> tuple[list[float], float]:
    """The channels of the first packet and their mask."""
    encoded = build_features(world, registries=vocabulary).nodes["context"].encoded.x[0]
    group = node_type("context")
    place = [feature.name for feature in group.valued].index(SHARES)
    start = sum(feature.channels for feature in group.valued[:place])
    return encoded[start : start + 32].tolist(), float(encoded[group.value_width + place])


def test_shares_sum_to_one_and_the_last_channel_takes_the_rest() -> None:
    world, known = small_world(1), registries(layer_type=[f"t{n}" for n in range(40)])
    types = ["t0", "t0", "t31", "t39", "never heard of", None, "t30", "t1"]
    layer = world["urza.layer"].to_pylist()[0]
    world["urza.layer"] = table(
        "urza.layer", [{**layer, "index": place, "layer_id": f"l{place}", "type": name} for place, name in enumerate(types)]
    )
    channels, mask = shares(world, known)
    assert (channels[:2], channels[30:], sum(channels), mask) == ([0.25, 0.125], [0.125, 0.5], 1.0, 1.0)
    channels, mask = shares(altered(world, "urza.layer", type=None), known)
    assert (sum(channels), mask) == (0.0, 0.0)


def test_a_loss_is_measured_against_chance() -> None:
    found = ln_chance(np.array([math.log(10), 2.0, 2.0, 1e-9, 1e9, np.nan]), np.array([10.0, np.nan, 1.0, 2.0, 2.0, 2.0]))
    np.testing.assert_allclose(found, [0.0, math.log(2), math.log(2), -8.0, 4.0, np.nan])


@pytest.mark.parametrize("restored", [False, True])
def test_losses_change_against_the_runs_packet_before_also_online(restored: bool) -> None:
    steps = [(1.0, 2.0), (0.5, None), (None, 1.0), (0.25, 1.0)]
    world = small_world(len(steps))
    rows = [
        {**row, "validation_loss": validation, "training_loss": training, "training_metrics": []}
        for row, (validation, training) in zip(world["tolaria.system_state"].to_pylist(), steps, strict=True)
    ]
    world["tolaria.system_state"] = table("tolaria.system_state", rows)
    offline = build_features(world, registries=registries())
    numbers = offline.nodes["context"].group.columns.numbers
    np.testing.assert_allclose(numbers["validation_loss_change"], [np.nan, math.log(0.5), np.nan, np.nan])
    np.testing.assert_allclose(numbers["training_loss_change"], [np.nan, np.nan, np.nan, 0.0])
    builder = GraphBuilder(Metadata(world), registries())
    for number, tables in enumerate(packet_tables(world, offline)):
        seeds = table(
            "kasmina.seed_state", [{"training_run_id": "run-a", "seed_id": "s", "timestamp_ns": START, "source": "export"}]
        )
        builder.admit_seeds(seeds)  # what comes between two packets does not forget the losses
        found = builder.build(tables).features.nodes["context"].encoded.x[0]
        assert np.array_equal(found, offline.nodes["context"].encoded.x[number])
        if restored:
            saved, builder = builder.save(), GraphBuilder(Metadata(world), registries())
            builder.restore(saved)


def test_recorded_shares_survive_the_tables(some_hosts: Path, tmp_path: Path) -> None:
    tables = recorded_tables(some_hosts)
    features = build_features(tables, registries=recorded_registries(tmp_path, tables))
    group = node_type("context")
    place = [feature.name for feature in group.valued].index(SHARES)
    start = sum(feature.channels for feature in group.valued[:place])
    channels = features.nodes["context"].encoded.x[:, start : start + 32]
    np.testing.assert_allclose(channels.sum(1), 1.0, rtol=1e-6)
