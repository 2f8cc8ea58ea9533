"""Urza's records join as of `exported_at`: nothing from the future enters a graph through them."""

import pytest

from gnn.encode.build import FeatureSet, build_features
from tests.gnn.tables import packet, registries, small_world, table

FIRST, SECOND = packet(0)["timestamp_ns"], packet(1)["timestamp_ns"]


def with_records(*times: int | None) -> FeatureSet:
    """Two packets, whose host has a record a time: record n has n + 1 layers and learning rate (n + 1) / 100."""
    world = small_world(2)
    for name in ("urza.connection", "urza.activation", "urza.activation_parameter", "tolaria.layer_telemetry"):
        world.pop(name)
    world.pop("tolaria.parameter_telemetry")
    host = next(row for row in world["urza.blueprint"].to_pylist() if row["blueprint_id"] == "host")
    layer, parameter = world["urza.layer"].to_pylist()[0], world["urza.parameter"].to_pylist()[0]
    records, layers, parameters = [], [], []
    for number, time in enumerate(times):
        stamp = {"exported_at_ns": time, "arrival": number}
        records.append({**host, **stamp, "optimizer_learning_rate": (number + 1) / 100})
        layers += [{**layer, **stamp, "layer_id": f"fc{place}", "index": place} for place in range(number + 1)]
        parameters.append({**parameter, **stamp, "layer_ids": ["fc0"]})
    world["urza.blueprint"] = table("urza.blueprint", records)
    world |= {"urza.layer": table("urza.layer", layers), "urza.parameter": table("urza.parameter", parameters)}
    return build_features(world, registries=registries())


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((FIRST,), [1, 1]),
        ((FIRST, SECOND), [1, 2]),
        ((FIRST - 1, SECOND + 1), [1, 1]),
        ((None, SECOND), [1, 2]),  # one without a time is known from the start
        ((SECOND,), [0, 1]),  # not known yet
        ((FIRST - 2, FIRST - 1), [2, 2]),
    ],
)
def test_a_packet_sees_the_newest_record_that_is_not_newer(times: tuple[int | None, ...], expected: list[int]) -> None:
    features = with_records(*times)
    layers, parameter = features.nodes["layer"].group, features.nodes["parameter"].group
    assert (layers.ptr[1:] - layers.ptr[:-1]).tolist() == expected
    rates = parameter.columns.numbers["learning_rate"]
    assert rates.tolist() == pytest.approx([number / 100 for number in expected if number])
    assert features.edges["parameter_tunes"].group.size == sum(number > 0 for number in expected)


def test_a_blueprint_that_has_no_record_yet_is_named() -> None:
    dangling = {one.family: one for one in with_records(SECOND).joined.dangling}
    assert (dangling["node.blueprint"].packet[0], dangling["node.blueprint"].names[0]) == (0, "host")
