"""Features of small hand-made worlds, value by value, by the definitions of the design."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gnn.encode.build import Featured, FeatureSet, build_features
from schemas.features import GROUPS, Kind
from tests.gnn.tables import START, altered, of_packet, packet, registries, small_world, table

REGISTRIES = registries(
    layer_type=["linear"],
    activation_type=["relu", "none"],
    seed=["seed-1"],
    blueprint=["host", "kernel-linear"],
    parameter_target=["w"],
    grafting_strategy=[f"s{n}" for n in range(40)],
)


def build(world: dict[str, pa.Table]) -> FeatureSet:
    return build_features(world, registries=REGISTRIES)


def family(features: FeatureSet, name: str) -> Featured:
    return {f.declaration.family: f for f in features.groups}[name]


def channel(featured: Featured, name: str) -> np.ndarray:
    """Value channel(s) of a feature: [N] or [N, width]."""
    start = 0
    for feature in featured.declaration.valued:
        if feature.name == name:
            found = featured.encoded.x[:, start : start + feature.width]
            return found if feature.kind is Kind.MULTI_HOT else found[:, 0]
        start += feature.channels
    raise KeyError(name)


def mask(featured: Featured, name: str) -> np.ndarray:
    place = [f.name for f in featured.declaration.valued].index(name)
    return featured.encoded.x[:, featured.declaration.value_width + place]


def ids(featured: Featured, name: str) -> np.ndarray:
    return featured.encoded.ids[:, [f.name for f in featured.declaration.categorical].index(name)]


def extended(world: dict[str, pa.Table], name: str, *rows: dict[str, Any]) -> dict[str, pa.Table]:
    old = world.get(name)
    new = table(name, rows)
    return {**world, name: new if old is None else pa.concat_tables([old, new])}


def test_layer_falls_back_to_the_packets_metric_and_that_counts_as_measured() -> None:
    layer = family(build(small_world(1)), "node.layer")
    np.testing.assert_allclose(channel(layer, "samples_per_s"), (4000 - 4500) / math.sqrt(500**2 + 1e-6), rtol=1e-6)
    np.testing.assert_allclose(channel(layer, "loss"), (0.4 - 0.8) / math.sqrt(0.09 + 1e-6), rtol=1e-5)
    assert mask(layer, "samples_per_s").tolist() == [1.0, 1.0]


def test_second_packet_is_normalized_with_the_state_before_it() -> None:
    context = family(build(small_world(2)), "node.context")
    mean = 4500 + 0.1 * (4000 - 4500)
    var = 0.9 * (500**2 + 0.1 * 500**2)
    np.testing.assert_allclose(channel(context, "throughput")[1], (4000 - mean) / math.sqrt(var + 1e-6), rtol=1e-6)


def test_rolling_loss_is_the_first_loss_then_the_mean_before() -> None:
    rolled = channel(family(build(small_world(2)), "node.context"), "rolling_loss")
    np.testing.assert_allclose(rolled, [(0.5 - 0.8) / 0.3, (0.8 + 0.1 * (0.5 - 0.8) - 0.8) / 0.3], rtol=1e-5)


def test_gradient_instability_waits_for_an_earlier_gradient_norm() -> None:
    world = small_world(2)
    assert ids(family(build(world), "node.layer"), "gradient_instability").tolist() == [0, 0, 2, 2]
    noisy = altered(world, "tolaria.layer_telemetry", gradient_variance=4.0)
    assert ids(family(build(noisy), "node.layer"), "gradient_instability").tolist() == [0, 0, 3, 3]
    loud = altered(world, "tolaria.layer_telemetry", gradient_norm=50.0)
    assert ids(family(build(loud), "node.layer"), "gradient_instability").tolist() == [0, 0, 4, 4]
    faint = altered(world, "tolaria.layer_telemetry", gradient_norm=0.01)
    assert ids(family(build(faint), "node.layer"), "gradient_instability").tolist() == [0, 0, 1, 1]


def test_neutral_values_where_missing() -> None:
    seed = family(build(small_world(1)), "node.seed")
    for name in ("activity_level", "success_rate", "risk_tolerance"):
        assert (channel(seed, name)[0], mask(seed, name)[0]) == (0.5, 0.0)
    assert channel(seed, "alpha_total_steps")[0] == 0.0


def test_multi_hot_known_when_sent_empty_and_last_channel_for_what_does_not_fit() -> None:
    world = small_world(1)
    seed = family(build(world), "node.seed")
    assert channel(seed, "allowed_blending_methods")[0].nonzero()[0].tolist() == [0, 1]
    assert (channel(seed, "isolation_exemptions").sum(), mask(seed, "isolation_exemptions")[0]) == (0.0, 1.0)
    world = altered(world, "urabrask.bsds", grafting_strategies=["s0", "s30", "s35", "never heard of"])
    assert channel(family(build(world), "node.seed"), "grafting_strategies")[0].nonzero()[0].tolist() == [0, 30, 31]


def test_unknown_category_has_the_last_id_and_missing_has_zero() -> None:
    world = altered(small_world(1), "urza.layer", type="never heard of", activation_type=None)
    layer = family(build(world), "node.layer")
    assert ids(layer, "layer_type").tolist() == [1023, 1023]
    assert ids(layer, "activation_type").tolist() == [0, 0]


def test_extras_count_where_the_stream_has_no_sheet_yet() -> None:
    world = small_world(3)
    extra = {"blueprint_id": "host", "source": "urza", "risk_score": 0.7, "hazard_band": "LOW"}
    stream = {**extra, "source": "issued", "risk_score": 0.4, "issued_at_ns": START + 10**9}
    sheets = [{**extra, "issued_at_ns": START}, {**extra, "issued_at_ns": START + 2 * 10**9, "risk_score": 0.9}, stream]
    world["urabrask.bsds"] = table("urabrask.bsds", sheets)
    found = channel(family(build(world), "node.layer"), "bsds_risk_score")
    np.testing.assert_allclose(found, [0.7] * 2 + [0.4] * 4, rtol=1e-6)


def test_newest_sheet_by_time_and_stream_before_extras() -> None:
    world = small_world(3)
    late = {"blueprint_id": "host", "source": "bsds", "risk_score": 0.9, "hazard_band": "HIGH"}
    world = extended(
        world,
        "urabrask.bsds",
        {**late, "issued_at_ns": START + 2 * 10**9},
        {**late, "issued_at_ns": START + 2 * 10**9, "source": "urza", "risk_score": 0.7},
        {**late, "issued_at_ns": START + 60 * 10**9, "risk_score": 1.0},
    )
    np.testing.assert_allclose(channel(family(build(world), "node.layer"), "bsds_risk_score"), [0.2] * 4 + [0.9] * 2, rtol=1e-6)


def test_nothing_newer_than_a_packet_enters_its_graph() -> None:
    world = small_world(3)
    before = build(world)
    later = START + 100 * 10**9
    future = extended(world, "kasmina.seed_state", {"training_run_id": "run-a", "seed_id": "late", "timestamp_ns": later})
    future = extended(future, "tezzeret.kernel", {"blueprint_id": "host", "issued_at_ns": later, "status": "FAILED"})
    future = extended(future, "weatherlight.health", {"packet_id": "w1", "timestamp_ns": later, "status": "CRITICAL"})
    future = extended(future, "urabrask.bsds", {"blueprint_id": "host", "issued_at_ns": later, "risk_score": 1.0})
    future = extended(future, "telemetry.metric", {"timestamp_ns": later, "name": "tamiyo.conservative_mode", "value": 1.0})
    future = extended(future, "tolaria.system_state", packet(100))
    future = extended(future, "tolaria.layer_telemetry", of_packet(100, layer_id="fc1", loss=9.0))
    after = build(future)
    for old, new in zip(before.groups, after.groups, strict=True):
        rows = int(old.group.ptr[-1])
        assert np.array_equal(old.encoded.x, new.encoded.x[:rows]), old.declaration.family
        assert np.array_equal(old.encoded.ids, new.encoded.ids[:rows])


def test_conservative_mode_is_the_newest_of_weatherlight_and_tamiyo() -> None:
    world = extended(
        small_world(3),
        "telemetry.metric",
        {"packet_id": "t", "index": 0, "timestamp_ns": START + 10**9, "name": "tamiyo.conservative_mode", "value": 1.0},
    )
    assert channel(family(build(world), "node.context"), "conservative_mode").tolist() == [0.0, 1.0, 1.0]


def test_seed_export_beats_its_copy_in_a_packet_and_newest_per_seed_counts() -> None:
    state = {"training_run_id": "run-a", "seed_id": "seed-1", "stage": "BLENDING"}
    world = extended(
        small_world(3),
        "kasmina.seed_state",
        {**state, "timestamp_ns": START + 10**9, "source": "packet", "alpha": 0.1},
        {**state, "timestamp_ns": START + 10**9, "source": "export", "alpha": 0.75},
    )
    assert channel(family(build(world), "node.seed"), "alpha").tolist() == [0.25, 0.75, 0.75]


def test_placeholders_measure_nothing() -> None:
    world = altered(small_world(2), "urza.layer", is_placeholder=True, type="guard_tensor")
    layer = family(build(world), "node.layer")
    assert layer.group.placeholder is not None
    assert layer.group.placeholder.all()
    assert not layer.encoded.x[:, layer.declaration.value_width :].any()
    assert not layer.encoded.ids.any()


def test_telemetry_names_the_elements_where_urza_has_none() -> None:
    world = altered(small_world(2), "tolaria.system_state", blueprint_id=None)
    features = build(world)
    layer = family(features, "node.layer")
    assert layer.group.names is not None
    assert layer.group.names.arrow().to_pylist() == ["fc1", "fc2", "fc1", "fc2"]
    assert family(features, "node.blueprint").group.names.arrow().to_pylist() == ["kernel-linear"] * 2
    assert family(features, "edges.layer_connects").group.ptr.tolist() == [0, 1, 2]
    assert family(features, "edges.seed_monitors").group.ptr.tolist() == [0, 1, 2]
    assert mask(layer, "input_channels").sum() == 0


def test_dangling_references_make_no_edge_and_are_kept_with_their_ids() -> None:
    world = extended(small_world(1), "tolaria.layer_telemetry", of_packet(0, layer_id="ghost", loss=1.0))
    world = altered(world, "kasmina.seed_state", monitored_layers=["fc2", "lost"])
    world = extended(world, "tolaria.connection_telemetry", of_packet(0, source_layer_id="fc2", target_layer_id="nowhere"))
    found = {dangling.family: dangling.names for dangling in build(world).joined.dangling}
    assert found == {
        "node.layer": ("ghost",),
        "edges.seed_monitors": ("seed-1 -> lost",),
        "edges.layer_connects": ("fc2 -> nowhere",),
    }


def test_affects_goes_to_successors_or_stays_with_its_own_layer() -> None:
    affects = family(build(small_world(1)), "edges.activation_affects").group.edges
    assert affects is not None
    assert list(zip(affects.source.tolist(), affects.target.tolist(), strict=True)) == [(0, 1), (1, 1)]


def test_completion_markers_and_no_packets_make_no_graphs() -> None:
    world = altered(small_world(2), "tolaria.system_state", is_completion=True)
    assert build(world).size == 0
    assert build({}).size == 0


def test_equal_times_are_ordered_by_digest_whatever_the_order_of_the_rows() -> None:
    world = small_world(1)
    twins = [packet(0, packet_id=f"twin-{n}", training_metrics=[("loss", float(n))]) for n in range(4)]
    forth = build({**world, "tolaria.system_state": table("tolaria.system_state", twins)})
    back = build({**world, "tolaria.system_state": table("tolaria.system_state", twins[::-1])})
    assert forth.keys().equals(back.keys())


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.family)
def test_layout_follows_the_declaration(group: Any) -> None:
    featured = family(build(small_world(2)), group.family)
    assert featured.encoded.x.shape[1] == group.width
    assert featured.encoded.ids.shape[1] == len(group.categorical)
    assert featured.encoded.x.dtype == np.float32
    assert np.isfinite(featured.encoded.x).all()
