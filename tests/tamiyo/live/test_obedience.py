"""Hosts that train with a Tamiyo on the other end of Oona: what they send, what they obey, what they refuse and tell."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from recorder.runs.plan import RecordPlan
from schemas.errors import ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.obedience import Obedience
from tests.recorder.runs.test_orders import plan
from tests.tamiyo.live.redis_server import RedisServer
from tests.tamiyo.live.stub import SECRET, messages

KERNEL = "kernel-linear"


def small(root: Path, hosts: int = 2) -> RecordPlan:
    return plan(root, hosts=hosts, total_steps=110)


def graft(packet: pb.SystemStatePacket, name: str) -> pb.AdaptationCommand:
    found = pb.AdaptationCommand(command_id=name, command_type=pb.COMMAND_SEED, target_seed_id="seed-1", issued_by="tamiyo")
    found.seed_operation.operation = pb.SEED_OP_GERMINATE
    found.seed_operation.blueprint_id = KERNEL
    found.annotations.update({"training_run_id": packet.training_run_id, "packet_id": packet.packet_id})
    found.annotations["blending_method"] = "linear"
    found.issued_at.FromNanoseconds(time.time_ns())
    return found


class Tamiyo:
    """Answers the first packet of each run by a graft, and by commands that are to be refused."""

    def __init__(self, url: str, client: Any) -> None:
        self._client, self._oona = client, bus.Oona(url, "t", group="tamiyo")
        self._oona.ensure_groups()
        self.answered: set[str] = set()
        self.packets: list[pb.SystemStatePacket] = []

    def turn(self) -> None:
        for message in self._oona.read(block_ms=50):
            try:
                envelope = pb.BusEnvelope.FromString(message.payload or b"")
            except DecodeError:
                continue  # its own
            if envelope.message_type == pb.BUS_MESSAGE_TYPE_SYSTEM_STATE:
                packet = pb.SystemStatePacket.FromString(envelope.payload)
                self.packets.append(packet)
                if packet.training_run_id not in self.answered:
                    self.answered.add(packet.training_run_id)
                    self.answer(packet)

    def answer(self, packet: pb.SystemStatePacket) -> None:
        name = packet.packet_id
        good = bus.signed_command(graft(packet, name), SECRET)
        stale, future, stranger, nobody = (graft(packet, f"{name}-{more}") for more in range(4))
        stale.issued_at.FromNanoseconds(time.time_ns() - 61 * 10**9)
        future.issued_at.FromNanoseconds(time.time_ns() + 60 * 10**9)
        stranger.annotations["training_run_id"] = "run-of-another"
        del nobody.annotations["training_run_id"]
        for command in (good, good, *(bus.signed_command(bad, SECRET) for bad in (stale, future, stranger, nobody))):
            self.send(command, SECRET)
        self.send(bus.signed_command(graft(packet, f"{name}-forged"), b"another"), SECRET)
        self.send(bus.signed_command(graft(packet, f"{name}-outside"), SECRET), None)
        self._client.xadd(bus.NORMAL, {"payload": b"\xff\xff"})

    def send(self, command: pb.AdaptationCommand, secret: bytes | None) -> None:
        data = command.SerializeToString(deterministic=True)
        self._client.xadd(bus.EMERGENCY, bus.entry_of(pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, data, secret))


@contextmanager
def tamiyo(oona: RedisServer, client: Any) -> Iterator[Tamiyo]:
    found, stop = Tamiyo(oona.url, client), threading.Event()

    def run() -> None:
        while not stop.is_set():
            found.turn()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def test_hosts_send_train_obey_and_refuse(oona: RedisServer, client: Any, tmp_path: Path) -> None:
    with tamiyo(oona, client) as other:
        session = Obedience(small(tmp_path), oona.url, SECRET, rate=2.0, at_once=2)
        counts = session.train()
    states = messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE)
    assert (counts.hosts, counts.packets, len(states)) == (2, 14, 14)
    assert len(other.packets) == 14
    assert counts.grafts == 2
    expected = {"replayed", "stale", "from_the_future", "unknown_run", "unaddressed"}
    assert {reason: counts.refused[reason] for reason in expected} == dict.fromkeys(expected, 2)
    assert (counts.refused["bad_signature"], counts.refused["undecodable"]) == (4, 2)
    assert set(counts.refused) == expected | {"bad_signature", "undecodable"}
    assert counts.outcomes.total() == 2
    raws = messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_FIELD_REPORT)
    reports = [pb.FieldReport.FromString(raw) for raw in raws]
    own = [report for report in reports if report.command_id in {packet.packet_id for packet in other.packets}]
    assert Counter(report.metrics["horizon_steps"] for report in own) == {20.0: 2, 30.0: 2}
    told = [pb.TelemetryPacket.FromString(raw) for raw in messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)]
    events = [event for packet in told if packet.source_subsystem == "kasmina" for event in packet.events]
    reasons = Counter(event.attributes["reason"] for event in events if event.description == "command_refused")
    assert reasons == counts.refused
    assert sum(event.description == "command_obeyed" for event in events) == 2
    assert all(bus.is_signed(SECRET, fields[b"payload"], fields[b"signature"]) for _, fields in client.xrange(bus.TELEMETRY))
    assert [group["name"] for group in client.xinfo_groups(bus.NORMAL)] == [b"tamiyo"]  # the recorder's own is gone
    (record,) = (tmp_path / "urza" / "blueprint").glob("*0000.ndjson")
    assert record.name.startswith("live-")


def test_what_was_announced_is_not_said_again(oona: RedisServer, client: Any, tmp_path: Path) -> None:
    chosen = small(tmp_path, hosts=1)
    kinds = (pb.BUS_MESSAGE_TYPE_BSDS_ISSUED, pb.BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE)

    def said() -> list[int]:
        return [len(messages(client, bus.NORMAL, kind)) for kind in kinds]

    assert Obedience(chosen, oona.url, SECRET).announce() == 1
    assert said() == [1, 1]
    assert messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE) == []
    assert Obedience(chosen, oona.url, SECRET).announce() == 0
    Obedience(chosen, oona.url, SECRET, rate=0.0).train()
    assert said() == [1, 1]
    assert len(list((tmp_path / "urza" / "blueprint").iterdir())) == 1


def test_a_bus_that_goes_away_stops_no_training(oona: RedisServer, client: Any, tmp_path: Path) -> None:
    session = Obedience(small(tmp_path, hosts=1), oona.url, SECRET, rate=0.0, at_once=1)
    turn, turns = session._turn, []

    def stopped(host: Any) -> bool:
        turns.append(host.run.step)
        if len(turns) == 2:
            oona.stop()
        if len(turns) == 5:
            oona.start()
        return turn(host)

    session._turn = stopped  # type: ignore[method-assign]
    counts = session.train()
    states = [pb.SystemStatePacket.FromString(raw) for raw in messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE)]
    assert (counts.packets, [state.global_step for state in states]) == (7, [50, 60, 70, 80, 90, 100, 110])


def test_nobody_listens_is_told(tmp_path: Path) -> None:
    session = Obedience(small(tmp_path), "redis://127.0.0.1:1", SECRET)
    with pytest.raises(ServingError, match="expected a Redis that can be read"):
        session.train()


@pytest.mark.parametrize(
    ("arguments", "secret", "expected"),
    [
        ([], "secret", "expected --oona URL with it"),
        (["--oona", "redis://127.0.0.1:1"], "", "a command that nobody signed is not obeyed"),
    ],
)
def test_what_can_not_obey_is_refused(tmp_path: Path, arguments: list[str], secret: str, expected: str) -> None:
    command = [sys.executable, "-m", "tamiyo", "record", "--obey", "--hosts", "1", "--exports", str(tmp_path), *arguments]
    env = os.environ | {bus.SECRET: secret, "COLUMNS": "300"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_hosts_that_nobody_heard_of_are_announced_again(oona: RedisServer, client: Any, tmp_path: Path) -> None:
    oona.stop()
    with pytest.raises(ServingError, match="expected a Redis that takes messages"):
        Obedience(small(tmp_path, hosts=1), oona.url, SECRET).announce()
    assert not list(tmp_path.rglob("*.ndjson"))
    oona.start()
    assert Obedience(small(tmp_path, hosts=1), oona.url, SECRET).announce() == 1


def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="expected a URL like redis://"):
        Obedience(small(tmp_path), "nonsense", SECRET)
