"""Contracts.md section 6: Urza records and everything inside them."""

from pathlib import Path
from typing import Any

from tests.schemas.decoding import Result, decode_lines

GRAPH: dict[str, Any] = {
    "layers": [
        {"layer_id": "l0", "type": "Linear", "depth": 0, "input_channels": 4, "output_channels": 8, "activation": "relu"},
        {"layer_id": "l1", "type": "Linear", "activation_type": "none", "parameter_count": 72},
        {"layer_id": "l2", "type": "guard_tensor"},
    ],
    "activations": [
        {"activation_id": "a0", "type": "relu", "layer_id": "l0", "gradient_flow": 1},
        {"activation_id": "a1", "layer_id": "l2"},
        {"activation_id": "a2"},
    ],
    "parameters": [{"parameter_id": "p0", "layer_ids": ["l0", "l1"], "min": 0, "target": "weights"}, {"name": "scale"}],
    "adjacency": {"layer": [[0, 1], [1, 2, 0.5], {"source": 0, "target": 2, "connection_strength": 2, "residual": True}]},
    "activation_parameters": [{"activation_id": "a0", "parameter_id": "p0", "influence": 0.5, "effect": -1}],
    "monitors": {"by_seed_id": {"s0": ["l0", 1]}, "by_seed_index": [["l1"]], "thresholds": {"s0": 0.25}},
    "monitored_layers": [["s1", "l2", 0.75], ["s2", 0]],
    "capabilities": {"allowed_blending_methods": []},
}


def urza(root: Path, **fields: Any) -> Result:
    return decode_lines(root, "urza/blueprint", {"blueprint_id": "b"} | fields)


def with_graph(root: Path, **changes: Any) -> Result:
    return urza(root, extras={"graph_metadata": GRAPH | changes})


def test_the_graph_becomes_rows(tmp_path: Path) -> None:
    result = with_graph(tmp_path)
    assert result.balanced()
    assert result.reasons == []
    layers = result.rows("urza.layer")
    assert [(row["index"], row["layer_id"], row["activation_type"]) for row in layers] == [
        (0, "l0", "relu"),
        (1, "l1", "none"),
        (2, "l2", None),
    ]
    assert [row["is_placeholder"] for row in layers] == [False, False, True]
    assert [row["is_placeholder"] for row in result.rows("urza.activation")] == [False, True, True]
    assert [row["parameter_id"] for row in result.rows("urza.parameter")] == ["p0", "scale"]
    assert result.rows("urza.parameter")[0]["layer_ids"] == ["l0", "l1"]
    edges = [
        (row["source_layer_id"], row["target_layer_id"], row["connection_strength"], row["residual_flag"])
        for row in result.rows("urza.connection")
    ]
    assert edges == [("l0", "l1", None, None), ("l1", "l2", 0.5, None), ("l0", "l2", 2.0, True)]
    influence = result.row("urza.activation_parameter")
    assert (influence["influence"], influence["magnitude"], influence["effect"]) == (0.5, None, -1.0)


def test_a_layer_without_an_activation_has_none_where_the_record_speaks_of_activations(tmp_path: Path) -> None:
    def types(name: str, **graph: Any) -> list[str | None]:
        (tmp_path / name).mkdir()
        result = urza(tmp_path / name, extras={"graph_metadata": graph})
        return [row["activation_type"] for row in result.rows("urza.layer")]

    silent = {"layer_id": "l1", "type": "Linear"}
    relu = {"activation_id": "a0", "type": "relu", "layer_id": "l1"}
    assert types("beside", layers=[{"layer_id": "l0", "activation": "relu"}, silent]) == ["relu", "none"]
    assert types("listed", layers=[silent], activations=[relu]) == ["relu"]
    assert types("no-type", layers=[silent], activations=[{"activation_id": "a0", "layer_id": "l1"}]) == [None]
    assert types("empty", layers=[silent], activations=[]) == ["none"]
    assert types("nothing", layers=[silent]) == [None]


def test_monitors_in_every_spelling(tmp_path: Path) -> None:
    row = with_graph(tmp_path).row("urza.blueprint")
    found = [(one["seed"], one["layer_id"], one["weight"]) for one in row["monitors"]]
    assert found == [("0", "l1", None), ("s0", "l0", None), ("s0", "l1", None), ("s1", "l2", 0.75), ("s2", "l0", None)]
    assert row["monitor_thresholds"] == {"s0": 0.25}
    assert row["capabilities_allowed_blending_methods"] == []
    bare = urza(tmp_path).row("urza.blueprint")
    assert (bare["monitors"], bare["monitor_thresholds"], bare["capabilities_allowed_blending_methods"]) == (None, None, None)


def test_an_index_out_of_range_is_rejected_with_its_position(tmp_path: Path) -> None:
    result = with_graph(tmp_path, adjacency={"layer": [[0, 1], [0, 3], [-1, 0], ["x"], [0, True]]})
    assert len(result.rows("urza.connection")) == 1
    rejects = result.rejects["rejects.urza_connection"]
    assert [row["reason"] for row in rejects] == ["bad_index", "bad_index", "bad_value", "bad_value"]
    assert "layer[1].target" in rejects[0]["message"]
    assert len(result.rows("urza.layer")) == 3
    assert result.balanced()


def test_one_bad_element_costs_only_itself(tmp_path: Path) -> None:
    layers = [{"layer_id": "l0", "depth": "deep"}, 5, {"type": "Linear"}, {"layer_id": "l3"}]
    result = with_graph(tmp_path, layers=layers, adjacency={}, monitors={}, monitored_layers=[])
    assert [row["layer_id"] for row in result.rows("urza.layer")] == ["l3"]
    assert result.reasons == ["bad_value", "bad_value", "missing_id"]
    assert len(result.rows("urza.blueprint")) == 1
    assert result.balanced()


def test_a_bad_head_costs_the_record_and_not_its_neighbours(tmp_path: Path) -> None:
    bad = [
        {"descriptor": {}},
        {"blueprint_id": 5},
        {"blueprint_id": "x", "extras": []},
        {"blueprint_id": "x", "descriptor": {"tier": "?"}},
    ]
    result = decode_lines(tmp_path, "urza/blueprint", {"blueprint_id": "a"}, *bad, {"blueprint_id": "z"})
    assert [row["blueprint_id"] for row in result.rows("urza.blueprint")] == ["a", "z"]
    assert result.reasons == ["bad_value", "bad_value", "missing_id", "unknown_enum_name"]
    assert result.balanced()


def test_numbers_that_are_not_finite_are_missing_and_named(tmp_path: Path) -> None:
    result = with_graph(
        tmp_path,
        layers=[{"layer_id": "l", "weight_norm": "NaN", "latency_ms": "Infinity"}],
        adjacency={},
        monitors={},
        monitored_layers=[],
    )
    row = result.row("urza.layer")
    assert (row["weight_norm"], row["non_finite"]) == (None, ["latency_ms", "weight_norm"])
    result = urza(tmp_path, optimizer={"learning_rate": "NaN"}, compile_ms="Infinity", eager_fallback=False)
    assert result.row("urza.blueprint")["non_finite"] == ["compile_ms", "optimizer_learning_rate"]


def test_short_spellings_of_the_sheet_mean_the_same_values(tmp_path: Path) -> None:
    sheet = {
        "risk_score": 0.0,
        "hazard_band": "LOW",
        "handling_class": "standard",
        "resource_profile": "mixed",
        "provenance": "URABRASK",
        "issued_at": "2026-11-23T05:33:55.848910Z",
        "hazards": {},
    }
    result = urza(tmp_path, extras={"bsds": sheet}, resource_tier="memory_heavy")
    row = result.row("urabrask.bsds")
    assert (row["blueprint_id"], row["source"], row["risk_score"]) == ("b", "urza", 0.0)
    assert (row["hazard_band"], row["handling_class"], row["resource_profile"]) == ("LOW", "STANDARD", "MIXED")
    assert result.row("urza.blueprint")["resource_tier"] == "MEMORY_HEAVY"
    assert result.unknown_fields == {"BSDS.hazards": 1}


def test_a_bad_sheet_costs_only_itself(tmp_path: Path) -> None:
    result = urza(tmp_path, extras={"bsds": {"hazard_band": "AWFUL", "issued_at": "2026-01-01T00:00:00Z"}})
    assert (result.reasons, list(result.rejects)) == (["unknown_enum_name"], ["rejects.urabrask_bsds"])
    assert urza(tmp_path, extras={"bsds": {"risk_score": 0.5}}).reasons == ["missing_time"]
    assert len(result.rows("urza.blueprint")) == 1


def test_kernels_from_urza_records(tmp_path: Path) -> None:
    def status(**fields: Any) -> Any:
        return [(row["status"], row["source"]) for row in urza(tmp_path, **fields).rows("tezzeret.kernel")]

    assert status(eager_fallback=True, compile_ms=0.0) == [("EAGER_FALLBACK", "urza")]
    assert status(eager_fallback=False) == [("COMPILED", "urza")]
    assert status(compile_strategy="eager") == [("EAGER_FALLBACK", "urza")]
    assert status(compile_ms=3.5) == [("COMPILED", "urza")]
    assert status(prewarm_ms=3.5) == [(None, "urza")]
    assert status() == []


def test_undeclared_fields_are_counted_by_place(tmp_path: Path) -> None:
    result = with_graph(
        tmp_path,
        source="tezzeret",
        layers=[{"layer_id": "l", "colour": 1}],
        adjacency={"other": []},
        monitors={},
        monitored_layers=[],
    )
    assert result.unknown_fields == {
        "UrzaRecord.extras.graph_metadata.source": 1,
        "UrzaRecord.extras.graph_metadata.layers.colour": 1,
        "UrzaRecord.extras.graph_metadata.adjacency.other": 1,
    }


def test_exported_at_in_every_spelling(tmp_path: Path) -> None:
    for spelling in ("2026-11-23T05:33:55.5Z", 1795412035500000000, "1795412035500000000"):
        assert urza(tmp_path, exported_at=spelling).row("urza.blueprint")["exported_at_ns"] == 1795412035500000000
    assert urza(tmp_path, exported_at="yesterday").reasons == ["bad_value"]
    assert urza(tmp_path, exported_at=2**70).reasons == ["time_out_of_range"]
