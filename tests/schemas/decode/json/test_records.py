"""Contracts.md sections 1 and 3: spellings, enums, limits of 64 bits, keys, and what a reject says."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from schemas.contracts import REASONS, REJECT_SCHEMA, Reason
from schemas.decode.message.undeclared import SAMPLED
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import DIGEST, binpb, decode, decode_lines

PACKET: dict[str, Any] = {"packet_id": "p", "training_run_id": "r", "timestamp_ns": "7"}
SEED: dict[str, Any] = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 7}
STATES = "tolaria.system_state"
SEEDS = "kasmina.seed_state"


def test_both_spellings_of_keys_and_64_bit_integers_as_strings_or_numbers(tmp_path: Path) -> None:
    camel = {
        "packetId": "p",
        "trainingRunId": "r",
        "timestampNs": "1795412056434071096",
        "hardwareContext": {"deviceType": "cpu"},
    }
    snake = {
        "packet_id": "p",
        "training_run_id": "r",
        "timestamp_ns": 1795412056434071096,
        "hardware_context": {"device_type": "cpu"},
    }
    first, second = decode_lines(tmp_path, "tolaria/system_state", camel, snake).rows(STATES)
    assert first | {"position": 0} == second | {"position": 0}
    assert first["timestamp_ns"] == 1795412056434071096
    assert first["hardware_context_device_type"] == "cpu"


@pytest.mark.parametrize("stage", ["SEED_STAGE_TRAINING", "TRAINING", "training", 3, "3"])
def test_every_spelling_of_an_enum_gives_its_short_name(tmp_path: Path, stage: Any) -> None:
    assert decode_lines(tmp_path, "kasmina/seed_state", SEED | {"stage": stage}).row(SEEDS)["stage"] == "TRAINING"


def test_an_unknown_enum_number_is_kept_and_counted_and_zero_is_missing(tmp_path: Path) -> None:
    result = decode_lines(tmp_path, "kasmina/seed_state", SEED | {"stage": 77}, SEED | {"stage": "SEED_STAGE_UNKNOWN"})
    assert [row["stage"] for row in result.rows(SEEDS)] == ["77", None]
    assert result.unknown_fields == {"SeedLifecycleStage=77": 1}
    wire = decode(tmp_path, "kasmina/seed_state", "x.binpb", binpb([pb.SeedState(**SEED, stage=77).SerializeToString()]))
    assert (wire.row(SEEDS)["stage"], wire.unknown_fields) == ("77", {"SeedLifecycleStage=77": 1})


def test_an_unknown_enum_name_is_a_reject_that_says_so(tmp_path: Path) -> None:
    result = decode_lines(tmp_path, "kasmina/seed_state", SEED | {"stage": "SEED_STAGE_SLEEPING"})
    assert result.reasons == ["unknown_enum_name"]
    assert "SEED_STAGE_SLEEPING" in result.rejects["rejects.kasmina_seed_state"][0]["message"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"seed_id": "s"}, "missing_training_run_id"),
        ({"training_run_id": "r", "timestamp_ns": 7}, "missing_id"),
        ({"training_run_id": "r", "seed_id": ""}, "missing_id"),
        ({"training_run_id": "r", "seed_id": "s"}, "missing_time"),
        (SEED | {"timestamp_ns": 2**63}, "time_out_of_range"),
        (SEED | {"timestamp_ns": str(2**64 - 1)}, "time_out_of_range"),
        (SEED | {"timestamp_ns": 2**64}, "bad_value"),
        (SEED | {"timestamp_ns": -1}, "time_out_of_range"),
        (SEED | {"global_step": str(2**63)}, "integer_too_large"),
        (SEED | {"layer_depth": 1.5}, "bad_value"),
        (SEED | {"alpha": "much"}, "bad_value"),
        (SEED | {"alpha": 1e300}, "bad_value"),
        (SEED | {"blueprint_id": 5}, "bad_value"),
        (SEED | {"monitored_layers": "a"}, "bad_value"),
        (SEED | {"monitored_layers": [None]}, "bad_value"),
        (SEED | {"metrics": {"a": None}}, "bad_value"),
        (SEED | {"metrics": []}, "bad_value"),
        (SEED | {"capabilities": 3}, "bad_value"),
        (SEED | {"seedId": "s"}, "duplicate_key"),
        ('{"seed_id": "s", "seed_id": "t"}', "duplicate_key"),
        ("[]", "invalid_json"),
        ("nonsense", "invalid_json"),
        ('{"seed_id": "s"', "invalid_json"),
        ('{"alpha": NaN}', "invalid_json"),
        ('{"seed_id": "\\ud800"}', "bad_value"),
        ("[" * 100_000, "limit_exceeded"),
    ],
)
def test_a_bad_record_costs_only_itself(tmp_path: Path, record: Any, reason: str) -> None:
    result = decode_lines(tmp_path, "kasmina/seed_state", SEED, record, SEED | {"seed_id": "t"})
    assert [row["seed_id"] for row in result.rows(SEEDS)] == ["s", "t"]
    assert result.reasons == [reason]
    assert result.balanced()


def test_a_reject_says_where_it_lies_and_why_and_keeps_the_bytes(tmp_path: Path) -> None:
    line = json.dumps({"seed_id": "s"})
    reject = decode_lines(tmp_path, "kasmina/seed_state", SEED, "", line).rejects["rejects.kasmina_seed_state"][0]
    assert list(reject) == REJECT_SCHEMA.names
    assert (reject["export_digest"], reject["file"], reject["position"]) == (DIGEST, "kasmina/seed_state/x.ndjson", 3)
    assert reject["raw"] == line.encode()
    assert "training_run_id" in reject["message"]


def test_bytes_that_are_no_message_are_rejected_at_their_offset(tmp_path: Path) -> None:
    good = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    result = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb([good, b"\xff\xff\xff", good]))
    assert len(result.rows(STATES)) == 2
    reject = result.rejects["rejects.tolaria_system_state"][0]
    assert (reject["reason"], reject["position"], reject["raw"]) == ("invalid_protobuf", len(good) + 1, b"\xff\xff\xff")


def test_undeclared_fields_are_ignored_and_counted(tmp_path: Path) -> None:
    drifted = PACKET | {"colour": 1, "hardware_context": {"fans": 2}, "seed_states": [{"seed_id": "s", "mood": 1}]}
    result = decode_lines(tmp_path, "tolaria/system_state", drifted, drifted)
    assert result.unknown_fields == {"SystemStatePacket.colour": 2, "HardwareContext.fans": 2, "SeedState.mood": 2}
    message = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    drifted_bytes = message + b"\xc0\x0c\x01" + b"\xca\x0c\x03abc" + b"\xc5\x0c1234" + b"\xc0\x0c\xff\xff\x03"
    wire = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb([drifted_bytes, message]))
    assert len(wire.rows(STATES)) == 2
    assert wire.unknown_fields == {"SystemStatePacket.200": 3, "SystemStatePacket.201": 1}
    late = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb([*[message] * 3000, drifted_bytes]))
    assert late.unknown_fields == wire.unknown_fields


def test_undeclared_fields_of_nested_messages_are_counted_in_a_sample(tmp_path: Path) -> None:
    seed = pb.SeedState(seed_id="s", stage=1).SerializeToString() + b"\xc0\x0c\x01" + b"\xca\x0c\x03abc"
    message = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    drifted = message + b"\x42" + bytes([len(seed)]) + seed + b"\x42" + bytes([len(seed)]) + seed
    few = decode(tmp_path, "tolaria/system_state", "few.binpb", binpb([drifted, message, drifted]))
    assert few.unknown_fields == {"SeedState.200 (in a sample)": 4, "SeedState.201 (in a sample)": 4}
    many = decode(tmp_path, "tolaria/system_state", "many.binpb", binpb([drifted] * 1_000))
    assert many.unknown_fields == {f"SeedState.{number} (in a sample)": 2 * SAMPLED for number in (200, 201)}


def test_bytes_that_only_one_of_the_parsers_takes_cost_nothing(tmp_path: Path) -> None:
    message = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    overlong_tag, mismatched_group = message + b"\xc0\x8c\x80\x80\x80\x00\x01", message + b"\xc3\x0c\x08\x01\xcc\x0c"
    for odd in (overlong_tag, mismatched_group):
        with pytest.raises(DecodeError):
            pb.SystemStatePacket.FromString(odd)
    result = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb([overlong_tag, message, mismatched_group]))
    assert result.balanced()
    assert len(result.rows(STATES)) + len(result.reasons) == 3
    assert set(result.reasons) <= {"invalid_protobuf"}


def test_the_last_of_a_repeated_map_key_counts_and_entries_are_sorted(tmp_path: Path) -> None:
    def entry(key: bytes, value: bytes) -> bytes:
        inner = b"\x0a" + bytes([len(key)]) + key + b"\x15" + value
        return b"\x3a" + bytes([len(inner)]) + inner

    message = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    entries = entry(b"b", b"\0\0\x80?") + entry(b"a", b"\0\0\0@") + entry(b"b", b"\0\0@@")
    result = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb([message + entries]))
    assert list(result.row(STATES)["training_metrics"].items()) == [("a", 2.0), ("b", 3.0)]
    assert dict(pb.SystemStatePacket.FromString(message + entries).training_metrics) == {"a": 2.0, "b": 3.0}


def test_stated_ranges_reject_and_unstated_ones_do_not(tmp_path: Path) -> None:
    sheet = {"blueprint_id": "b", "issued_at": "2026-01-01T00:00:00Z", "risk_score": 0.5}
    result = decode_lines(tmp_path, "urabrask/bsds", sheet, sheet | {"risk_score": 1.5}, sheet | {"risk_score": -0.1})
    assert (len(result.rows("urabrask.bsds")), result.reasons) == (1, ["out_of_range"] * 2)
    layers = [{"layer_id": "a", "update_frequency": 2.0}, {"layer_id": "b", "update_frequency": 1.0, "loss": -9.0}]
    result = decode_lines(tmp_path, "tolaria/system_state", PACKET | {"layers": layers})
    assert [row["layer_id"] for row in result.rows("tolaria.layer_telemetry")] == ["b"]
    assert list(result.rejects) == ["rejects.tolaria_layer_telemetry"]
    assert result.balanced()


def test_times_that_do_not_fit_are_rejects(tmp_path: Path) -> None:
    sheet = {"blueprint_id": "b", "issued_at": "9999-01-01T00:00:00Z"}
    assert decode_lines(tmp_path, "urabrask/bsds", sheet).reasons == ["time_out_of_range"]
    sheet = {"blueprint_id": "b", "issued_at": "2026-01-01T00:00:00.123456789+01:00"}
    assert decode_lines(tmp_path, "urabrask/bsds", sheet).row("urabrask.bsds")["issued_at_ns"] == 1767222000123456789


def test_every_reason_is_documented() -> None:
    assert set(REASONS) == set(Reason)


def test_half_a_surrogate_pair_is_spelled_out_wherever_it_stands(tmp_path: Path) -> None:
    lines = ['{"metrics": "\\ud800"}', '{"stage": "\\udfff"}', '{"\\ud800": 1}', '{"seed_id": "s", "seed_id": "\\ud800"}']
    result = decode_lines(tmp_path, "kasmina/seed_state", *lines)
    assert (len(result.reasons), result.balanced()) == (4, True)
    assert result.unknown_fields == {"SeedState.\\ud800": 1}
    urza = '{"blueprint_id": "b", "\\ud800": 1, "extras": {"graph_metadata": {"layers": [{"layer_id": "\\ud800"}]}}}'
    found = decode_lines(tmp_path, "urza/blueprint", urza)
    assert (found.reasons, len(found.rows("urza.blueprint"))) == (["bad_value"], 1)
    snapshot = decode(tmp_path, "simic/registry_snapshot", "a_registry.json", b'{"\\ud800": 1, "b": "\\udfff"}')
    assert snapshot.reasons == ["bad_value", "bad_value"]
