"""Entries of Oona made to break `tamiyo serve`: each is quarantined with its reason, and the service keeps deciding."""

import base64
import json
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from prometheus_client.parser import text_string_to_metric_families

from gnn.online.constraints import Route
from lake.alert_outbox import AlertOutbox
from lake.quarantine import FOLDER
from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus, hub, limits, service
from tamiyo.live.hub import Hub
from tamiyo.live.limits import PauseQuota
from tamiyo.live.service import Place, Service
from tamiyo.live.telemetry import Account
from tests.schemas.decoding import varint
from tests.tamiyo.live.conftest import client, oona, place  # noqa: F401 - fixtures
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
    wait_for,
)
from tests.webhook import Webhook

STATES = "tolaria/system_state"
MANY = 400


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> StubPolicy:
    found = StubPolicy()
    monkeypatch.setattr(service, "Holder", holder_with(found))
    return found


def envelope(kind: int, payload: bytes) -> bytes:
    return pb.BusEnvelope(message_type=kind, payload=payload).SerializeToString()  # type: ignore[arg-type]


def signed(payload: bytes, **more: Any) -> dict[Any, Any]:
    return {"payload": payload, "signature": bus.signature_of(SECRET, payload), **more}


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, a text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def nested(levels: int) -> bytes:
    """A command whose rollback is a list in a list in a list."""
    value = b""
    for _ in range(levels):
        value = field(6, field(1, value))  # Value.list_value, ListValue.values
    number = pb.AdaptationCommand.DESCRIPTOR.fields_by_name["rollback_payload"].number
    return field(number, field(1, field(1, b"a") + field(2, value)))  # Struct.fields: key and value


def quarantined(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((home / FOLDER).glob("*.ndjson")) for line in path.read_text().splitlines()]


def answered(client: Any) -> list[str]:  # noqa: F811
    """Ids of the packets that were answered by a command."""
    kind, found = pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, []
    for raw in (raw for stream in (bus.NORMAL, bus.EMERGENCY) for raw in messages(client, stream, kind)):
        with suppress(DecodeError):  # one that was made to break
            found.append(pb.AdaptationCommand.FromString(raw).annotations.get("packet_id", ""))
    return sorted(filter(None, found))


def settled(client: Any, count: int) -> bool:  # noqa: F811
    return len(answered(client)) >= count and pending(client) == 0


STATE = envelope(pb.BUS_MESSAGE_TYPE_SYSTEM_STATE, packet(7).SerializeToString())
RIGHT = bus.signature_of(SECRET, STATE)
HOSTILE: dict[str, tuple[dict[Any, Any], str]] = {
    "no signature": ({"payload": STATE}, "bad_signature"),
    "an empty signature": ({"payload": STATE, "signature": b""}, "bad_signature"),
    "a signature of another secret": ({"payload": STATE, "signature": bus.signature_of(b"x", STATE)}, "bad_signature"),
    "a signature of another payload": ({"payload": STATE, "signature": bus.signature_of(SECRET, b"x")}, "bad_signature"),
    "a signature without its padding": ({"payload": STATE, "signature": RIGHT.rstrip("=")}, "bad_signature"),
    "a signature with more behind it": ({"payload": STATE, "signature": RIGHT + "\n"}, "bad_signature"),
    "a signature in hex": ({"payload": STATE, "signature": base64.b64decode(RIGHT).hex()}, "bad_signature"),
    "a signature that is no ASCII": ({"payload": STATE, "signature": b"\xff" * 44}, "bad_signature"),
    "a signature of a megabyte": ({"payload": STATE, "signature": b"A" * (1 << 20)}, "bad_signature"),
    "one byte of the payload changed": ({"payload": STATE[:-1] + b"\x01", "signature": RIGHT}, "bad_signature"),
    "the payload under another name": ({"data": STATE, "signature": RIGHT}, "no_payload"),
    "a signature alone": ({"signature": RIGHT}, "no_payload"),
    "a name that is no text": ({b"\xff\x00\x1b": b"x"}, "no_payload"),
    "an empty payload": (signed(b""), "unknown_type"),
    "a type of zero": (signed(envelope(0, b"x")), "unknown_type"),
    "a type that nobody knows": (signed(envelope(23, b"x")), "unknown_type"),
    "a negative type": (signed(envelope(-1, b"x")), "unknown_type"),
    "text": (signed(b'{"message_type": 1}'), "undecodable"),
    "a torn message": (signed(STATE[:-3]), "undecodable"),
    "a packet that is none": (signed(envelope(1, b"\xff" * 50)), "undecodable"),
    "a packet with text that is no UTF-8": (signed(envelope(1, b"\x4a\x02\xc3\x28")), "undecodable"),
    "a rollback in a rollback": (
        signed(envelope(pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, nested(3000))), "undecodable"
    ),
    "groups without an end": (signed(b"\x0b" * 10_000), "undecodable"),
    "a length beyond the message": (signed(b"\x12\xff\xff\xff\xff\x07x"), "undecodable"),
    "a varint without an end": (signed(b"\x08" + b"\xff" * 20), "undecodable"),
    "a gzip bomb": (signed(b"\x1f\x8b\x08" + bytes(200)), "undecodable"),
    "a zstd frame": (signed(b"\x28\xb5\x2f\xfd" + bytes(200)), "undecodable"),
    "a pickle": (signed(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93."), "undecodable"),
}  # fmt: skip


def test_hostile_entries_are_quarantined_by_reason_and_cost_no_neighbour(place: Place, client: Any) -> None:  # noqa: F811
    with running(place, CONFIG) as found:
        for number, (fields, _) in enumerate(HOSTILE.values()):
            client.xadd(bus.STREAMS[number % len(bus.STREAMS)], fields)
            send_packet(client, 100 + number)
        wait_for(lambda: settled(client, len(HOSTILE)))
        assert get_json(f"{found.url}/readyz")[0] == 200
        metrics = {m.name: m for m in text_string_to_metric_families(get(f"{found.url}/metrics")[1].decode())}
    assert answered(client) == [f"p-{100 + number}" for number in range(len(HOSTILE))]
    assert len(landed(place.exports, STATES)) == len(HOSTILE)
    kept = quarantined(place.home)
    expected = sorted(reason for _, reason in HOSTILE.values())
    assert sorted(entry["reason"] for entry in kept) == expected
    counted = {
        one.labels["reason"]: one.value for one in metrics["tamiyo_oona_quarantined"].samples if one.name.endswith("_total")
    }
    assert counted == {reason: expected.count(reason) for reason in set(expected)}
    payloads = {base64.b64decode(entry["payload"]) for entry in kept}
    assert {fields["payload"] for fields, _ in HOSTILE.values() if "payload" in fields} <= payloads
    assert all(len(entry["signature"]) <= 256 for entry in kept)


def test_a_message_above_the_limit_is_not_decoded_and_not_kept_whole(place: Place, client: Any) -> None:  # noqa: F811
    found = Service(place, CONFIG, SECRET, Limits(record_bytes=100_000))
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        large = envelope(1, packet(1, blueprint_id="x" * 5_000_000).SerializeToString())
        client.xadd(bus.NORMAL, signed(large))
        send_packet(client, 2)
        wait_for(lambda: settled(client, 1))
    finally:
        found.stop()
        thread.join()
    (entry,) = quarantined(place.home)
    assert (entry["reason"], entry["bytes"]) == ("too_large", len(large))
    assert len(base64.b64decode(entry["payload"])) == 64 << 10
    assert answered(client) == ["p-2"]


def test_signed_entries_that_are_sent_again_are_answered_once(place: Place, client: Any) -> None:  # noqa: F811
    """Whoever reads the bus can send what was signed again: as it was, on another stream, with other fields beside it."""
    again = signed(STATE)
    with running(place, CONFIG):
        for stream in (bus.NORMAL, bus.NORMAL, bus.EMERGENCY, bus.POLICY, bus.TELEMETRY):
            client.xadd(stream, again)
            client.xadd(stream, again | {"bootstrap": "", "note": "again"})
        send_packet(client, 8)
        wait_for(lambda: settled(client, 2))
    assert answered(client) == ["p-7", "p-8"]
    assert quarantined(place.home) == []


def test_commands_of_others_are_landed_and_never_obeyed_or_sent_on(place: Place, client: Any) -> None:  # noqa: F811
    forged = pb.AdaptationCommand(command_id="forged", command_type=pb.COMMAND_SEED, issued_by="tamiyo")
    with running(place, CONFIG):
        send(client, pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, forged.SerializeToString())
        send(client, pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, forged.SerializeToString(), secret=b"another")
        send(
            client, pb.BUS_MESSAGE_TYPE_POLICY_UPDATE, pb.PolicyUpdate(policy_id="x", payload=b"\x80\x04.").SerializeToString()
        )
        send_packet(client, 1)
        wait_for(lambda: any(command.annotations.get("packet_id") == "p-1" for command in commands(client)))
        wait_for(lambda: pending(client) == 0)
    assert sum(command.command_id == "forged" for command in commands(client)) == 2  # those that were sent, no more
    assert [entry["reason"] for entry in quarantined(place.home)] == ["bad_signature"]


def test_without_a_secret_nothing_is_checked_but_all_is_decoded(place: Place, client: Any) -> None:  # noqa: F811
    with running(place, CONFIG, None):
        client.xadd(bus.NORMAL, {"payload": b"\xff\xff"})
        client.xadd(bus.NORMAL, {"payload": STATE, "signature": b"\xff"})
        wait_for(lambda: settled(client, 1))
    assert [entry["reason"] for entry in quarantined(place.home)] == ["undecodable"]
    assert "signature" not in commands(client)[0].annotations


@pytest.mark.parametrize("seed", range(3))
def test_mutated_entries_among_good_ones(place: Place, client: Any, seed: int) -> None:  # noqa: F811
    """Random damage to signed packets, half of it signed anew: what is not decoded is quarantined; no good packet is lost."""
    chance, damaged = random.Random(seed), 0
    with running(place, CONFIG) as found:
        for number in range(MANY):
            if chance.random() < 0.5:
                send_packet(client, number)
                continue
            damaged += 1
            data = bytearray(envelope(chance.choice(pb.BusMessageType.values()), packet(10_000 + number).SerializeToString()))
            for _ in range(chance.choice((1, 2, 8))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            fields = signed(bytes(data)) if chance.random() < 0.5 else {"payload": bytes(data), "signature": RIGHT}
            client.xadd(chance.choice(bus.STREAMS), fields)
        wait_for(lambda: settled(client, MANY - damaged) and not any(unread(client)))
        assert get(f"{found.url}/healthz")[0] == 200
    good = {name for name in answered(client) if name[2:].isdigit() and int(name[2:]) < MANY}
    assert len(good) == MANY - damaged
    assert {entry["reason"] for entry in quarantined(place.home)} <= {"bad_signature", "undecodable", "unknown_type"}


def unread(client: Any) -> list[int]:  # noqa: F811
    """Entries that the group has not read, by stream."""
    return [int(group["lag"] or 0) for stream in bus.STREAMS for group in client.xinfo_groups(stream)]


def test_quarantine_is_told_by_an_alert_once(place: Place, client: Any, webhook: Webhook) -> None:  # noqa: F811
    found = Service(place, CONFIG, SECRET, alerts=AlertOutbox(place.home, webhook.address))
    thread = threading.Thread(target=found.run)
    service._ALERTS_EVERY_S, before = 0.05, service._ALERTS_EVERY_S  # type: ignore[misc]
    thread.start()
    try:
        for _ in range(3):
            client.xadd(bus.NORMAL, {"payload": STATE})
        client.xadd(bus.NORMAL, signed(b"\xff"))
        wait_for(lambda: len(webhook.posts) == 2)
        client.xadd(bus.NORMAL, {"payload": STATE})
        send_packet(client, 1)
        wait_for(lambda: settled(client, 1))
        wait_for(lambda: len(quarantined(place.home)) == 5)
    finally:
        found.stop()
        thread.join()
        service._ALERTS_EVERY_S = before  # type: ignore[misc]
    assert sorted((post["problem"], post["state"]) for post in webhook.posts) == [
        ("bad_signature", "open"), ("undecodable", "open")
    ]  # fmt: skip


def test_a_webhook_that_hangs_holds_up_no_decision(place: Place, client: Any, webhook: Webhook) -> None:  # noqa: F811
    webhook.hangs = True
    found = Service(place, CONFIG, SECRET, alerts=AlertOutbox(place.home, webhook.address))
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        client.xadd(bus.NORMAL, {"payload": STATE})
        wait_for(lambda: webhook.keys)
        send_packet(client, 1)
        wait_for(lambda: settled(client, 1))
    finally:
        found.stop()
        thread.join()
    assert AlertOutbox(place.home, None).read().undelivered()


# what grows with what others send


def test_the_hub_keeps_only_so_much_of_what_anybody_says() -> None:
    found = Hub()
    for number in range(500):
        told = pb.TelemetryPacket(packet_id="t", source_subsystem=f"system{number}")
        told.metrics.add(name="x" * 5000, value=1.0, unit="u" * 5000, attributes={f"{n}" * 400: "t" * 5000 for n in range(100)})
        found.observe(told)
    for number in range(3000):
        told = pb.TelemetryPacket(packet_id="t", source_subsystem="tolaria")
        told.metrics.add(name=f"tolaria.x.y{number}", value=float("nan"))
        found.observe(told)
    said = found.packet()
    assert said is not None
    assert len(said.metrics) <= hub.MOST + 6 * hub.FEEDS
    assert said.ByteSize() < 4 << 20
    assert {metric.attributes["feed"] for metric in said.metrics if metric.name.startswith("hub.feed.")} <= {
        f"system{number}" for number in range(hub.FEEDS)
    } | {"tolaria"}
    assert next(metric.value for metric in said.metrics if metric.name == "hub.cycle.dropped_total") > 0


def test_a_quota_remembers_a_bounded_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_RUNS", 3)
    quota = PauseQuota(10)
    for run in "abcd":
        quota.paused(run)
        quota.note(run, Route.PAUSE)
    assert [quota.paused(run) for run in "abcd"] == [0, 1, 1, 1]
    quota.note("b", Route.GRAFT)
    quota.note("e", Route.PAUSE)
    assert [quota.paused(run) for run in "bcde"] == [1, 0, 1, 1]


def test_outcomes_that_nobody_knows_are_counted_as_one() -> None:
    account = Account()
    for number in range(100, 400):
        account.report(pb.FieldReport(report_id="f", outcome=number))  # type: ignore[arg-type]
    told = account.packet(conservative=False)
    assert told is not None
    assert {m.name: m.value for m in told.metrics if ".field_reports." in m.name} == {
        "tamiyo.field_reports.unknown_total": 300.0
    }


def test_a_nested_message_is_refused_by_the_decoder_itself() -> None:
    pb.AdaptationCommand.FromString(nested(20))
    for levels in (100, 100_000):
        with pytest.raises(DecodeError):
            pb.AdaptationCommand.FromString(nested(levels))


def test_times_far_away_and_numbers_that_are_none_are_answered(place: Place, client: Any) -> None:  # noqa: F811
    strange = [
        packet(1, training_loss=float("nan")), packet(2, training_loss=float("inf")), packet(3, global_step=2**63 - 1),
        packet(4, run="\x1b[31m\n" * 100), packet(5, run="é" * 10_000),
    ]  # fmt: skip
    strange[1].training_metrics["loss"] = float("-inf")
    for number, at in enumerate((0, 1, 2**63 - 1)):
        odd = packet(6 + number)
        odd.timestamp_ns = at
        strange.append(odd)
    sheet = pb.BSDSIssued(bsds=pb.BSDS(blueprint_id="b", risk_score=float("nan")))
    sheet.bsds.issued_at.seconds = 2**62
    with running(place, CONFIG.model_copy(update={"hub_s": 0.05})) as found:
        send(client, pb.BUS_MESSAGE_TYPE_BSDS_ISSUED, sheet.SerializeToString())
        for one in strange:
            send(client, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE, one.SerializeToString())
        wait_for(lambda: settled(client, len(strange)))
        wait_for(lambda: any(pb.TelemetryPacket.FromString(raw).source_subsystem == "hub" for raw in telemetry(client)))
        assert get_json(f"{found.url}/readyz")[0] == 200
    assert quarantined(place.home) == []


def telemetry(client: Any) -> list[bytes]:  # noqa: F811
    return messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)
