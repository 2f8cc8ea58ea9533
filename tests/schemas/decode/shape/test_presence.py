"""Contracts.md section 2: missing and zero differ."""

from pathlib import Path
from typing import Any

import pytest

from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import Result, binpb, decode, decode_lines

PACKET: dict[str, Any] = {"packet_id": "p", "training_run_id": "r", "timestamp_ns": 7}
SEED: dict[str, Any] = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 7}
STATES = "tolaria.system_state"
SEEDS = "kasmina.seed_state"


def both(root: Path, message: Any, folder: str, record: dict[str, Any]) -> list[Result]:
    """The same record as protobuf and as JSON."""
    return [decode(root, folder, "x.binpb", binpb([message.SerializeToString()])), decode_lines(root, folder, record)]


def test_a_zero_without_presence_is_missing_and_zero_ok_is_zero(tmp_path: Path) -> None:
    message = pb.SystemStatePacket(**PACKET, validation_loss=0.0, current_epoch=0, global_step=0)
    written = PACKET | {"validation_loss": 0.0, "current_epoch": 0, "global_step": "0", "experiment_name": ""}
    for result in both(tmp_path, message, "tolaria/system_state", written):
        row = result.row(STATES)
        assert row["validation_loss"] is None
        assert row["experiment_name"] is None
        assert row["hardware_context_total_memory_gb"] is None
        assert (row["current_epoch"], row["global_step"]) == (0, 0)
        assert row["training_metrics"] is None
        assert row["non_finite"] == []


def test_optional_fields_and_map_entries_are_present_when_sent_also_as_zero(tmp_path: Path) -> None:
    message = pb.SeedState(**SEED, alpha=0.0, quarantine_only=False, metrics={"loss": 0.0})
    written = SEED | {"alpha": 0, "quarantine_only": False, "metrics": {"loss": 0}}
    for result in both(tmp_path, message, "kasmina/seed_state", written):
        row = result.row(SEEDS)
        assert (row["alpha"], row["quarantine_only"], row["metrics"]) == (0.0, False, {"loss": 0.0})
        assert row["activity_level"] is None
        assert row["global_step"] is None
        assert row["age_epochs"] == 0


def test_lists_of_a_message_that_was_sent_are_known_and_bare_empty_lists_are_missing(tmp_path: Path) -> None:
    message = pb.SeedState(**SEED, capabilities=pb.SeedCapabilities())
    for result in both(tmp_path, message, "kasmina/seed_state", SEED | {"capabilities": {}, "monitored_layers": []}):
        row = result.row(SEEDS)
        assert row["capabilities_allowed_blending_methods"] == []
        assert row["capabilities_isolation_exemptions"] == []
        assert row["monitored_layers"] is None
    for result in both(tmp_path, pb.SeedState(**SEED), "kasmina/seed_state", SEED):
        assert result.row(SEEDS)["capabilities_allowed_blending_methods"] is None


def test_booleans_without_optional_are_zero_ok_once_their_message_was_sent(tmp_path: Path) -> None:
    with_descriptor = {"blueprint_id": "b", "descriptor": {"blueprint_id": "b"}}
    row = decode_lines(tmp_path, "urza/blueprint", with_descriptor).row("urza.blueprint")
    assert (row["descriptor_quarantine_only"], row["descriptor_risk"], row["descriptor_stage"]) == (False, 0.0, 0)
    bare = decode_lines(tmp_path, "urza/blueprint", {"blueprint_id": "b"}).row("urza.blueprint")
    assert (bare["descriptor_quarantine_only"], bare["descriptor_risk"], bare["descriptor_stage"]) == (None, None, None)


def test_plain_json_keys_that_are_written_are_present_also_zero(tmp_path: Path) -> None:
    record = {
        "blueprint_id": "b",
        "optimizer": {"family": "sgd", "learning_rate": 0, "momentum": 0.0},
        "extras": {"graph_metadata": {"layers": [{"layer_id": "l", "weight_norm": 0.0, "dropout_rate": 0}]}},
    }
    result = decode_lines(tmp_path, "urza/blueprint", record)
    assert result.row("urza.blueprint")["optimizer_learning_rate"] == 0.0
    assert result.row("urza.blueprint")["optimizer_gradient_variance"] is None
    layer = result.row("urza.layer")
    assert (layer["weight_norm"], layer["dropout_rate"], layer["gradient_norm"]) == (0.0, 0.0, None)


def test_the_field_comes_first_then_the_map_of_older_exports(tmp_path: Path) -> None:
    old = {"alpha": 0.25, "alpha_steps": 3.0, "alpha_total_steps": 20.0, "alpha_temperature": 2.0, "blend_allowed": 1.0}
    row = decode_lines(tmp_path, "kasmina/seed_state", SEED | {"metrics": old | {"risk_tolerance": 0.0}}).row(SEEDS)
    assert (row["alpha"], row["risk_tolerance"], row["alpha_schedule_total_steps"]) == (0.25, 0.0, 20)
    assert (row["alpha_schedule_temperature"], row["alpha_steps"], row["blend_allowed"]) == (2.0, 3, True)
    new = SEED | {"metrics": old, "alpha": 0.0, "alpha_schedule": {"method": "linear", "total_steps": 9, "temperature": 1.5}}
    row = decode_lines(tmp_path, "kasmina/seed_state", new).row(SEEDS)
    assert (row["alpha"], row["alpha_schedule_total_steps"], row["alpha_schedule_temperature"]) == (0.0, 9, 1.5)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_non_finite_numbers_are_missing_and_named(tmp_path: Path, value: str) -> None:
    record = PACKET | {"training_loss": value, "training_metrics": {"loss": value, "samples_per_s": 5}}
    message = pb.SystemStatePacket(
        **PACKET, training_loss=float(value), training_metrics={"loss": float(value), "samples_per_s": 5}
    )
    for result in both(tmp_path, message, "tolaria/system_state", record):
        row = result.row(STATES)
        assert row["training_loss"] is None
        assert row["training_metrics"] == {"samples_per_s": 5.0}
        assert row["non_finite"] == ["training_loss", "training_metrics.loss"]


def test_a_field_that_is_not_finite_does_not_fall_back_to_the_map(tmp_path: Path) -> None:
    row = decode_lines(tmp_path, "kasmina/seed_state", SEED | {"alpha": "NaN", "metrics": {"alpha": 0.5}}).row(SEEDS)
    assert (row["alpha"], row["non_finite"]) == (None, ["alpha"])


def test_completion_markers_are_flagged(tmp_path: Path) -> None:
    mark = PACKET | {"source_subsystem": "tolaria", "validation_accuracy": 1.0}
    others = [mark | {"validation_loss": 0.1}, mark | {"source_subsystem": "x"}, mark | {"validation_accuracy": 0.99}]
    flags = [row["is_completion"] for row in decode_lines(tmp_path, "tolaria/system_state", mark, *others).rows(STATES)]
    assert flags == [True, False, False, False]
