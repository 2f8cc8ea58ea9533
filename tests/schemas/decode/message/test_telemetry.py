"""Telemetry packets of any source, Weatherlight's health, Tezzeret's events, bus envelopes, Simic snapshots."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.contracts.telemetry import SYSTEMS
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import binpb, decode, decode_lines

PACKET: dict[str, Any] = {"packet_id": "p", "timestamp": "2026-01-01T00:00:00Z", "source_subsystem": "tolaria"}
NS = 1767225600000000000


def test_every_part_becomes_a_row_with_its_index(tmp_path: Path) -> None:
    record = PACKET | {
        "metrics": [
            {"name": "a", "value": 1.5, "unit": "ms", "attributes": {"k": "v"}},
            {"name": "b"},
            {"name": "c", "value": "NaN"},
        ],
        "events": [{"event_id": "e", "description": "d", "level": "TELEMETRY_LEVEL_WARNING"}],
        "spans": [{"span_id": "s", "name": "n", "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z"}],
    }
    result = decode_lines(tmp_path, "tolaria/telemetry", record)
    metrics = result.rows("telemetry.metric")
    assert [(row["index"], row["name"], row["value"], row["non_finite"]) for row in metrics] == [
        (0, "a", 1.5, []),
        (1, "b", 0.0, []),
        (2, "c", None, ["value"]),
    ]
    assert (metrics[0]["attributes"], metrics[1]["attributes"], metrics[0]["timestamp_ns"], metrics[0]["source"]) == (
        {"k": "v"},
        None,
        NS,
        "tolaria",
    )
    assert result.row("telemetry.event")["level"] == "WARNING"
    span = result.row("telemetry.span")
    assert span["end_time_ns"] - span["start_time_ns"] == 1_000_000_000
    assert result.balanced()


@pytest.mark.parametrize("system", SYSTEMS)
def test_telemetry_of_every_source_becomes_metrics_and_events(tmp_path: Path, system: str) -> None:
    record = PACKET | {"source_subsystem": system, "metrics": [{"name": "m"}], "events": [{"description": "e"}]}
    result = decode_lines(tmp_path, f"{system}/telemetry", record)
    assert [result.row(name)["source"] for name in ("telemetry.metric", "telemetry.event")] == [system] * 2


def test_a_packet_without_an_id_is_one_reject(tmp_path: Path) -> None:
    result = decode_lines(
        tmp_path, "tamiyo/telemetry", {"metrics": [{"name": "a"}, {"name": "b"}]}, PACKET | {"metrics": [{"name": "a"}]}
    )
    assert (result.reasons, len(result.rows("telemetry.metric"))) == (["missing_id"], 1)
    assert list(result.rejects) == ["rejects.tamiyo_telemetry"]
    assert result.balanced()


def test_weatherlight_health(tmp_path: Path) -> None:
    names = {"slo.a.breaches_total": 2, "slo.b.breaches_total": 1, "weatherlight.sla.breaches_total": 4, "slo.breaches": 9}
    names |= {"weatherlight.cpu_util_percent": 50, "weatherlight.gpu_util_percent": 25, "tamiyo.conservative_mode": 1}
    health = {
        "status": "HEALTH_STATUS_DEGRADED",
        "indicators": {"a": "OK", "b": "true", "c": "down", "d": "1", "e": "operational", "f": "0"},
    }
    record = PACKET | {
        "source_subsystem": "weatherlight",
        "metrics": [{"name": k, "value": v} for k, v in names.items()],
        "system_health": health,
    }
    row = decode_lines(tmp_path, "weatherlight/telemetry", record).row("weatherlight.health")
    assert (row["status"], row["unhealthy_indicators"], row["sla_breaches"]) == ("DEGRADED", 2, 7.0)
    assert (row["cpu_utilisation"], row["gpu_utilisation"], row["conservative_mode"]) == (50.0, 25.0, True)
    bare = decode_lines(tmp_path, "weatherlight/telemetry", PACKET | {"source_subsystem": "weatherlight"}).row(
        "weatherlight.health"
    )
    assert {
        bare[name] for name in ("status", "unhealthy_indicators", "sla_breaches", "cpu_utilisation", "conservative_mode")
    } == {None}
    assert decode_lines(tmp_path, "weatherlight/telemetry", PACKET).rows("weatherlight.health") == []


def test_tezzeret_events_become_kernels(tmp_path: Path) -> None:
    def event(name: str, **attributes: str) -> dict[str, Any]:
        return {"description": name, "attributes": {"blueprint_id": "b"} | attributes}

    events = [
        event("tezzeret.compile_started"),
        event("tezzeret.compile_succeeded", strategy="eager", prewarm_ms="17.5", compile_ms="0.00"),
        event("tezzeret.compile_succeeded", strategy="standard"),
        event("tezzeret.compile_failed", strategy="eager"),
        event("tezzeret.compile_failed", blueprint_id=""),
    ]
    result = decode_lines(tmp_path, "tezzeret/telemetry", PACKET | {"events": events})
    rows = result.rows("tezzeret.kernel")
    assert [row["status"] for row in rows] == ["EAGER_FALLBACK", "COMPILED", "FAILED"]
    assert (rows[0]["prewarm_ms"], rows[0]["compile_ms"], rows[0]["issued_at_ns"], rows[0]["source"]) == (
        17.5,
        None,
        NS,
        "event",
    )
    assert result.reasons == ["missing_id"]
    assert result.balanced()


def envelope(kind: int, payload: bytes) -> bytes:
    return bytes(pb.BusEnvelope(message_type=kind, payload=payload).SerializeToString())


def test_envelopes_are_routed_by_message_type(tmp_path: Path) -> None:
    packet = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=7).SerializeToString()
    sheet = pb.BSDS(blueprint_id="b")
    sheet.issued_at.seconds = 5
    issued = pb.BSDSIssued(bsds=sheet).SerializeToString()
    telemetry = pb.TelemetryPacket(packet_id="t", metrics=[pb.MetricPoint(name="m")]).SerializeToString()
    data = [
        envelope(1, packet),
        envelope(20, issued),
        envelope(4, telemetry),
        envelope(5, b"x"),
        envelope(1, b"\xff"),
        b"\xff",
        envelope(1, b""),
    ]
    result = decode(tmp_path, "oona/envelope", "x.wal", b"".join(len(one).to_bytes(4, "little") + one for one in data))
    assert result.row("tolaria.system_state")["packet_id"] == "p"
    assert result.row("urabrask.bsds")["source"] == "issued"
    assert len(result.rows("telemetry.metric")) == 1
    assert result.rejects["rejects.oona_envelope"][0]["reason"] == "unrouted_message_type"
    assert sorted(row["reason"] for row in result.rejects["rejects.tolaria_system_state"]) == [
        "invalid_protobuf",
        "missing_training_run_id",
    ]
    assert result.balanced()


def test_both_messages_of_the_sheet_folder(tmp_path: Path) -> None:
    sheet = pb.BSDS(version=1, blueprint_id="b")
    sheet.issued_at.seconds = 5
    other = pb.BSDS(blueprint_id="c")
    other.issued_at.seconds = 5
    data = binpb([sheet.SerializeToString(), pb.BSDSIssued(bsds=sheet).SerializeToString(), other.SerializeToString()])
    rows = decode(tmp_path, "urabrask/bsds", "x.binpb", data).rows("urabrask.bsds")
    assert sorted((row["blueprint_id"], row["source"]) for row in rows) == [("b", "bsds"), ("b", "issued"), ("c", "bsds")]
    plain = {"blueprint_id": "b", "issued_at": "1970-01-01T00:00:05Z"}
    rows = decode_lines(tmp_path, "urabrask/bsds", plain, {"bsds": plain}).rows("urabrask.bsds")
    assert sorted(row["source"] for row in rows) == ["bsds", "issued"]


def test_failures_are_known_by_their_content(tmp_path: Path) -> None:
    result = decode_lines(
        tmp_path,
        "urabrask/bsds_failure",
        {"blueprint_id": "b", "reason": "x"},
        {"blueprint_id": "b", "reason": "x"},
        {"blueprint_id": "b"},
    )
    assert len({row["digest"] for row in result.rows("urabrask.bsds_failure")}) == 2


def test_a_rollback_is_kept_as_json(tmp_path: Path) -> None:
    record = {"command_id": "c", "rollback_payload": {"b": [1, {"c": None}], "a": "x"}}
    row = decode_lines(tmp_path, "tamiyo/command", record).row("tamiyo.command")
    assert (row["payload"], row["rollback_payload"]) == ("rollback_payload", '{"a":"x","b":[1.0,{"c":null}]}')
    seed = {"command_id": "c", "seed_operation": {}, "command_type": "COMMAND_SEED"}
    row = decode_lines(tmp_path, "tamiyo/command", seed).row("tamiyo.command")
    assert (row["payload"], row["seed_operation_operation"], row["command_type"]) == ("seed_operation", None, "SEED")


def simic(root: Path, text: str, name: str = "seed_registry.json") -> Any:
    return decode(root, "simic/registry_snapshot", name, text.encode())


def test_simic_snapshots(tmp_path: Path) -> None:
    rows = simic(tmp_path, '{"a": 1, "unknown": 2}').rows("simic.registry_snapshot")
    assert [(row["registry"], row["key"], row["index"]) for row in rows] == [("seed", "a", 1), ("seed", "unknown", 2)]
    assert simic(tmp_path, "{}").rows_read == {}


def test_bad_snapshots_and_bad_entries(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"a": 1}x', "[" * 100_000):
        assert simic(tmp_path, text).reasons == ["invalid_json"], text[:9]
    assert simic(tmp_path, "{}", "seed.json").reasons == ["unreadable_file"]
    entries = {"a": 1, "b": "2", "c": True, "d": 1.5, "e": 2**70, "f": 0, "g": {"x": 1}}
    result = simic(tmp_path, json.dumps(entries)[:-1] + ', "a": 3}')
    assert [row["key"] for row in result.rows("simic.registry_snapshot")] == ["a"]
    assert result.reasons == ["bad_value"] * 5 + ["duplicate_key", "out_of_range"]
    assert result.balanced()
