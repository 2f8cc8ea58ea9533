"""The service with a policy that answers at once: landing, acknowledging, answering once, quarantine, endpoints."""

import base64
import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gnn.online.config import ServingConfig
from gnn.online.constraints import Route
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.errors import ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus, service
from tamiyo.live.landing import Landing
from tamiyo.live.service import Place, Service
from tests.tamiyo.live.redis_server import RedisServer
from tests.tamiyo.live.stub import (
    CONFIG,
    SECRET,
    StubPolicy,
    commands,
    get,
    get_json,
    holder_with,
    landed,
    messages,
    packet,
    pending,
    running,
    send,
    send_packet,
    started,
    wait_for,
)

STATES = "tolaria/system_state"
KILLS, SOAK_KILLS = 10, 100


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> StubPolicy:
    found = StubPolicy()
    monkeypatch.setattr(service, "Holder", holder_with(found))
    return found


def done(client: Any, count: int) -> bool:
    """Whether so many commands are there and nothing is unread or pending."""
    return len(commands(client)) >= count and pending(client) == 0


def test_a_packet_is_landed_and_answered_by_a_signed_command(place: Place, client: Any, policy: StubPolicy) -> None:
    client.xadd(bus.NORMAL, {"bootstrap": ""})
    with running(place, CONFIG):
        for number in range(5):
            send_packet(client, number)
        wait_for(lambda: done(client, 5))
    found = commands(client)
    assert [command.annotations["packet_id"] for command in found] == [f"p-{number}" for number in range(5)]
    for command in found:
        signature = command.annotations.pop("signature")
        assert signature == bus.signature_of(SECRET, command.SerializeToString(deterministic=True))
    for _, fields in client.xrange(bus.TELEMETRY):
        assert bus.is_signed(SECRET, fields[b"payload"], fields[b"signature"])
    assert landed(place.exports, STATES) == [packet(number).SerializeToString() for number in range(5)]
    told = [pb.TelemetryPacket.FromString(raw) for raw in messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)]
    assert sum(one.system_health.indicators.get("reason") == "policy" for one in told) == 5
    assert not list(place.exports.rglob("*.tmp"))


def test_every_message_lands_in_the_folder_of_its_contract(place: Place, client: Any, policy: StubPolicy) -> None:
    told = pb.TelemetryPacket(packet_id="t", source_subsystem="weatherlight")
    stranger = pb.TelemetryPacket(packet_id="t", source_subsystem="elsewhere")
    sent = [
        (pb.BUS_MESSAGE_TYPE_FIELD_REPORT, pb.FieldReport(report_id="f", outcome=2), "tamiyo/field_report"),
        (pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, pb.AdaptationCommand(command_id="c"), "tamiyo/command"),
        (pb.BUS_MESSAGE_TYPE_TELEMETRY, told, "weatherlight/telemetry"),
        (pb.BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE, pb.KernelCatalogUpdate(blueprint_id="b"), "tezzeret/kernel"),
        (pb.BUS_MESSAGE_TYPE_BSDS_ISSUED, pb.BSDSIssued(bsds=pb.BSDS(blueprint_id="b")), "urabrask/bsds"),
        (pb.BUS_MESSAGE_TYPE_BSDS_FAILED, pb.BSDSFailed(blueprint_id="b"), "urabrask/bsds_failure"),
    ]
    raw = [
        (kind, b"whatever") for kind in pb.BusMessageType.values() if 5 <= kind <= 8 or kind in (10, 22)
    ] + [(pb.BUS_MESSAGE_TYPE_TELEMETRY, stranger.SerializeToString())]  # fmt: skip
    with running(place, CONFIG) as found:
        for kind, message, _ in sent:
            send(client, kind, message.SerializeToString(), stream=bus.EMERGENCY)
        for kind, payload in raw:
            send(client, kind, payload, stream=bus.POLICY)
        wait_for(lambda: len(landed(place.exports, "oona/envelope")) == len(raw) and pending(client) == 0)
        wait_for(lambda: "tamiyo_oona_messages" in get(f"{found.url}/metrics")[1].decode())
    for _, message, folder in sent:
        assert landed(place.exports, folder) == [message.SerializeToString()]
    envelopes = [pb.BusEnvelope.FromString(record) for record in landed(place.exports, "oona/envelope")]
    assert [(envelope.message_type, envelope.payload) for envelope in envelopes] == raw
    counts = [pb.TelemetryPacket.FromString(one) for one in messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)]
    assert {"tamiyo.field_reports.neutral_total": 1.0}.items() <= {
        m.name: m.value for one in counts for m in one.metrics
    }.items()


def test_what_was_landed_is_read_by_the_pipelines_decoder(place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG):
        for number in range(4):
            send_packet(client, number)
        wait_for(lambda: done(client, 4))
    for folder, rows in ((STATES, 4), ("tamiyo/command", None)):
        kept = 0
        for path in (place.exports / folder).glob("*"):
            file = path.relative_to(place.exports).as_posix()
            for decoded in decode_file(path, FOLDERS[folder], file=file, digest="d" * 64):
                assert not decoded.rejects
                kept += sum(table.num_rows for name, table in decoded.tables.items() if name == folder.replace("/", "."))
        assert rows is None or kept == rows


def test_nothing_is_acknowledged_before_it_is_durable(
    place: Place, client: Any, policy: StubPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, acknowledge, answer = Landing.sync, bus.Oona.acknowledge, bus.Oona.answer
    monkeypatch.setattr(Landing, "sync", lambda self: (order.append("sync"), sync(self))[1])
    monkeypatch.setattr(bus.Oona, "acknowledge", lambda self, found: (order.append("ack"), acknowledge(self, found))[1])
    monkeypatch.setattr(bus.Oona, "answer", lambda self, *args: (order.append("answer"), answer(self, *args))[1])
    for number in range(3):
        send_packet(client, number)
    send(client, pb.BUS_MESSAGE_TYPE_FIELD_REPORT, pb.FieldReport(report_id="f").SerializeToString())
    with running(place, CONFIG):
        wait_for(lambda: done(client, 3))
    told = [step for step, before in zip(order, ["", *order[:-1]], strict=True) if step != before]
    assert told[:3] == ["sync", "ack", "answer"]


def test_a_disk_that_refuses_costs_time_alone(
    place: Place, client: Any, policy: StubPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, write = threading.Event(), os.write
    full.set()

    def refuse(descriptor: int, data: bytes) -> int:
        if full.is_set() and len(data) > 8:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("tamiyo.live.landing.os.write", refuse)
    with running(place, CONFIG) as found:
        send_packet(client, 0)
        reasons = wait_for(lambda: [r for r in get_json(f"{found.url}/readyz")[1]["reasons"] if "No space" in r])
        assert get_json(f"{found.url}/readyz")[0] == 503
        assert reasons
        assert commands(client) == []
        full.clear()
        wait_for(lambda: done(client, 1))
    assert landed(place.exports, STATES) == [packet(0).SerializeToString()]


@pytest.mark.parametrize(
    ("payload", "signed", "reason"),
    [
        (pb.BusEnvelope(message_type=1, payload=packet(1).SerializeToString()).SerializeToString(), b"wrong", "bad_signature"),
        (pb.BusEnvelope(message_type=1, payload=packet(1).SerializeToString()).SerializeToString(), None, "bad_signature"),
        (pb.BusEnvelope(message_type=1, payload=b"\xff\xff").SerializeToString(), SECRET, "undecodable"),
        (b"\xff\xff", SECRET, "undecodable"),
        (b"\xf8\x06\x01", SECRET, "unknown_type"),
        (pb.BusEnvelope(message_type=99, payload=b"").SerializeToString(), SECRET, "unknown_type"),  # type: ignore[arg-type]
    ],
)
def test_what_no_pipeline_may_read_is_quarantined(
    place: Place, client: Any, policy: StubPolicy, payload: bytes, signed: bytes | None, reason: str
) -> None:
    with running(place, CONFIG) as found:
        fields = {"payload": payload} | ({"signature": bus.signature_of(signed, payload)} if signed is not None else {})
        client.xadd(bus.NORMAL, fields)
        send_packet(client, 2)
        wait_for(lambda: done(client, 1))
        metrics = get(f"{found.url}/metrics")[1].decode()
    assert f'tamiyo_oona_quarantined_total{{reason="{reason}"}} 1.0' in metrics
    (path,) = (place.home / "quarantine" / "oona").iterdir()
    (line,) = path.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["reason"], base64.b64decode(entry["payload"])) == (reason, payload)
    assert [command.annotations["packet_id"] for command in commands(client)] == ["p-2"]
    assert landed(place.exports, STATES) == [packet(2).SerializeToString()]
    told = [pb.TelemetryPacket.FromString(one) for one in messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)]
    assert [e.attributes["reasons"] for one in told for e in one.events if e.description == "oona_quarantine"] == [reason]


def test_a_packet_is_answered_once_however_often_it_comes(place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG):
        for _ in range(3):
            for number in range(4):
                send_packet(client, number)
        wait_for(lambda: done(client, 4))
    with running(place, CONFIG):  # a replay, after a restart
        for number in (*range(4), 9):
            send_packet(client, number)
        wait_for(lambda: done(client, 5))
    assert sorted(command.annotations["packet_id"] for command in commands(client)) == ["p-0", "p-1", "p-2", "p-3", "p-9"]
    assert len(landed(place.exports, STATES)) == 17


def kill_often(place: Place, client: Any, kills: int) -> None:
    chance, sent = random.Random(5), 0
    for _ in range(kills):
        process = started(place)
        ends = time.monotonic() + chance.uniform(0.05, 1.0)
        while time.monotonic() < ends:
            send_packet(client, sent)
            sent += 1
            time.sleep(chance.uniform(0.0, 0.01))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    process = started(place)
    try:
        wait_for(lambda: done(client, sent))
    finally:
        process.terminate() if process.pid is None else os.kill(process.pid, signal.SIGKILL)
        process.join()
    with running(place, CONFIG, SECRET) as found:  # closes what the last one left open
        wait_for(lambda: get(f"{found.url}/healthz")[0] == 200)
    answered = [command.annotations["packet_id"] for command in commands(client) if "packet_id" in command.annotations]
    assert len(answered) == len(set(answered)) == sent
    assert {pb.SystemStatePacket.FromString(raw).packet_id for raw in landed(place.exports, STATES)} == set(answered)
    assert not list(place.exports.rglob("*.tmp"))


def test_kill_9_loses_no_packet_and_sends_no_command_twice(place: Place, client: Any) -> None:
    kill_often(place, client, KILLS)


@pytest.mark.soak
def test_a_hundred_kills_lose_no_packet_and_send_no_command_twice(place: Place, client: Any) -> None:
    kill_often(place, client, SOAK_KILLS)


def test_a_torn_record_of_a_killed_process_is_cut_off(place: Place, tmp_path: Path) -> None:
    folder = place.exports / STATES
    folder.mkdir(parents=True)
    whole = b"\x03\x00\x00\x00abc"
    (folder / ".oona-tamiyo-00000001.tmp").write_bytes(whole + b"\x09\x00\x00\x00ab")
    (folder / ".oona-tamiyo-00000002.tmp").write_bytes(b"\x09\x00")
    (folder / ".oona-other-00000001.tmp").write_bytes(whole)
    landing = Landing(place.exports, "tamiyo", CONFIG)
    assert [path.name for path in landing.recover()] == ["oona-tamiyo-00000001.wal"]
    landing.add(STATES, b"next")
    assert landing.recover() == []  # an open segment of a living process is left alone
    landing.sync()
    landing.rotate(everything=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".oona-other-00000001.tmp", "oona-tamiyo-00000001.wal", "oona-tamiyo-00000002.wal"
    ]  # fmt: skip
    assert landed(place.exports, STATES) == [b"abc", b"next"]


def test_segments_close_by_size_and_age(place: Place) -> None:
    now = [0.0]
    landing = Landing(place.exports, "tamiyo", ServingConfig(segment_bytes=20, segment_s=30.0), lambda: now[0])
    landing.add(STATES, b"x" * 8)
    landing.sync()
    assert landing.rotate() == []
    landing.add(STATES, b"x" * 8)
    assert len(landing.rotate()) == 1
    landing.add(STATES, b"y")
    now[0] = 29.0
    assert landing.rotate() == []
    now[0] = 30.0
    assert len(landing.rotate()) == 1


def test_a_redis_that_goes_away_and_comes_back(oona: RedisServer, place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG) as found:
        for number in range(3):
            send_packet(client, number)
        wait_for(lambda: done(client, 3))
        oona.stop()
        _, body = wait_for(lambda: (answer := get_json(f"{found.url}/readyz"))[0] == 503 and answer)
        assert body["reasons"][0].startswith("Oona: ")
        assert get(f"{found.url}/healthz")[0] == 200
        oona.start()
        client = oona.client()
        for number in range(3, 6):
            send_packet(client, number)
        wait_for(lambda: done(client, 6))
        wait_for(lambda: get(f"{found.url}/readyz")[0] == 200)
    assert sorted(command.annotations["packet_id"] for command in commands(client)) == [f"p-{n}" for n in range(6)]


def test_an_answer_whose_reply_was_lost_is_not_sent_again(
    place: Place, client: Any, policy: StubPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, lost = bus.Oona.answer, [True]

    def torn(self: bus.Oona, *args: Any) -> bool:
        found = answer(self, *args)
        if lost and lost.pop():
            raise bus.redis.ConnectionError("the connection went away after the transaction")
        return found

    monkeypatch.setattr(bus.Oona, "answer", torn)
    with running(place, CONFIG):
        send_packet(client, 0)
        send_packet(client, 1)
        wait_for(lambda: done(client, 2))
    assert [command.annotations["packet_id"] for command in commands(client)] == ["p-0", "p-1"]


def test_what_another_reader_left_is_taken_over(place: Place, client: Any, policy: StubPolicy) -> None:
    for stream in bus.STREAMS:
        client.xgroup_create(stream, bus.GROUP, id="0", mkstream=True)
    send_packet(client, 0)
    client.xreadgroup(bus.GROUP, "a-reader-that-died", {bus.NORMAL: ">"})
    with running(place, CONFIG.model_copy(update={"claim_s": 0.01})):
        wait_for(lambda: done(client, 1))


def test_a_no_op_sends_nothing_and_tells_why(place: Place, client: Any, policy: StubPolicy) -> None:
    policy.act = lambda found: Route.NO_OP
    with running(place, CONFIG) as found:
        send_packet(client, 0)
        wait_for(lambda: 'tamiyo_answers_total{reason="policy",route="no_op"} 1.0' in get(f"{found.url}/metrics")[1].decode())
        wait_for(lambda: pending(client) == 0)
    assert commands(client) == []
    assert messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)


def test_only_the_runs_that_are_served_are_answered(place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG.model_copy(update={"runs": "run-[ab]*"})):
        for run in ("run-a1", "run-c1", "run-b2"):
            send_packet(client, 0, run=run)
        wait_for(lambda: done(client, 2))
    assert len(commands(client)) == 2
    assert len(landed(place.exports, STATES)) == 3


def test_endpoints(place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG) as found:
        wait_for(lambda: get(f"{found.url}/readyz")[0] == 200)
        send_packet(client, 0)
        wait_for(lambda: done(client, 1))
        (place.home / "metrics.prom").write_text("# HELP of_the_home A measure.\n# TYPE of_the_home gauge\nof_the_home 0.5\n")
        families = {f.name: f for f in text_string_to_metric_families(get(f"{found.url}/metrics")[1].decode())}
        assert families["tamiyo_latency_ms"].type == "histogram"
        assert families["of_the_home"].samples[0].value == 0.5
        assert all(family.documentation for family in families.values())
        stages = {sample.labels["stage"] for sample in families["tamiyo_latency_ms"].samples}
        assert {"land", "answer", "publish", "network"} <= stages
        assert get(f"{found.url}/panel")[0] == 503
        (place.home / "panel.html").write_text("<p>panel</p>")
        assert get(f"{found.url}/panel") == (200, b"<p>panel</p>")
        assert get(f"{found.url}/else")[0] == 404
        host, port = found.url.removeprefix("http://").split(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(8)]
        for one in slow:
            one.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert get(f"{found.url}/healthz")[0] == 200
        for one in slow:
            one.close()


def test_a_home_has_one_service(place: Place, client: Any, policy: StubPolicy) -> None:
    with running(place, CONFIG), pytest.raises(ServingError, match="expected no other service"):
        Service(place, CONFIG, SECRET)


def test_without_a_bundle_messages_land_and_it_says_why(place: Place, client: Any) -> None:
    with running(place, CONFIG) as found:
        send_packet(client, 0)
        wait_for(lambda: landed(place.exports, STATES))
        wait_for(lambda: pending(client) == 0)
        status, body = get_json(f"{found.url}/readyz")
        assert status == 503
        assert not body["ready"]
        assert "no bundle serves" in body["reasons"][0]
        assert get(f"{found.url}/healthz")[0] == 200
        urgent = wait_for(lambda: messages(client, bus.EMERGENCY, pb.BUS_MESSAGE_TYPE_TELEMETRY))
    assert pb.TelemetryPacket.FromString(urgent[0]).system_health.indicators["reason"] == "no_bundle"
    assert commands(client) == []
