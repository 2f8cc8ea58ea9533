"""The existing system's own OonaClient on one Redis with `tamiyo serve`: each reads what the other publishes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnn.online.constraints import Route
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus, service
from tamiyo.live.service import Place, Service
from tests.compatibility.peer import RealVerifier, module
from tests.gnn.online.conftest import packet as state
from tests.tamiyo.live.conftest import client, oona, place  # noqa: F401 - fixtures
from tests.tamiyo.live.redis_server import RedisServer
from tests.tamiyo.live.stub import CONFIG, SECRET, StubPolicy, get, holder_with, landed, pending, running, wait_for


@pytest.fixture
def policy() -> StubPolicy:
    return StubPolicy()


@pytest.fixture
def serving(place: Place, client: Any, policy: StubPolicy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:  # noqa: F811
    module("oona.messaging")  # without it the test is skipped before anything starts
    monkeypatch.setattr(service, "Holder", holder_with(policy))
    with running(place, CONFIG.model_copy(update={"hub_s": 0.1})) as found:
        wait_for(lambda: get(f"{found.url}/readyz")[0] == 200)
        yield found


class Peer:
    """Its client in a group of its own. The protocol is that of the version of its Redis library."""

    def __init__(self, url: str, secret: bytes = SECRET) -> None:
        messaging, signing = module("oona.messaging"), module("security.signing")
        self.leyline = module("leyline").leyline_pb2
        config = messaging.StreamConfig(
            normal_stream=bus.NORMAL, emergency_stream=bus.EMERGENCY, telemetry_stream=bus.TELEMETRY,
            policy_stream=bus.POLICY, group="esper", consumer="peer", emergency_threshold=10**6,
        )  # fmt: skip
        self._make = lambda: messaging.OonaClient(
            f"{url}?protocol=2", config, signing_context=signing.SignatureContext(secret=secret)
        )

    def __call__(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run `work` with a connected client."""

        async def run() -> Any:
            found = self._make()
            try:
                await found.ensure_consumer_group()
                return await work(found)
            finally:
                await found.close()

        return asyncio.run(run())

    def read(self, stream: str) -> list[Any]:
        """What it takes from a stream; it drops what is not signed as it expects."""
        found: list[Any] = []

        async def work(one: Any) -> None:
            before = -1
            while before < len(found):
                before = len(found)
                await one.consume(found.append, stream=stream, count=100, block_ms=10)

        self(work)
        return found


@pytest.fixture
def peer(oona: RedisServer, serving: Service) -> Peer:  # noqa: F811
    found = Peer(oona.url)
    found(lambda one: asyncio.sleep(0))  # its group reads what comes from now on
    return found


def test_what_it_publishes_is_landed_and_answered(peer: Peer, place: Place, client: Any) -> None:  # noqa: F811
    theirs = peer.leyline
    packets = [theirs.SystemStatePacket.FromString(state(step).SerializeToString()) for step in range(5)]
    report = theirs.FieldReport(report_id="r", training_run_id="run-1", outcome=1)
    told = theirs.TelemetryPacket(packet_id="t", source_subsystem="weatherlight")
    sheet = theirs.BSDSIssued(bsds=theirs.BSDS(blueprint_id="b", risk_score=0.5))

    async def work(one: Any) -> list[bool]:
        sent = [await one.publish_state(packet) for packet in packets]
        return [
            *sent, await one.publish_field_report(report), await one.publish_telemetry(told),
            await one.publish_bsds_issued(sheet), await one.publish_policy_update(theirs.PolicyUpdate(policy_id="p")),
            await one.emit_metrics_telemetry(),
        ]  # fmt: skip

    assert all(peer(work))
    wait_for(lambda: landed(place.exports, "tolaria/system_state") and pending(client) == 0)
    wait_for(lambda: len(landed(place.exports, "tamiyo/field_report")) == 1)
    wait_for(lambda: len(landed(place.exports, "tolaria/system_state")) == 5)
    assert landed(place.exports, "tolaria/system_state") == [packet.SerializeToString() for packet in packets]
    wait_for(lambda: len(landed(place.exports, "urabrask/bsds")) == 1)
    wait_for(lambda: len(landed(place.exports, "weatherlight/telemetry")) == 1)
    assert not (place.home / "quarantine").exists()
    commands = wait_for(lambda: len(found := of_type(peer, [bus.NORMAL], "AdaptationCommand", kept)) >= 5 and found)
    assert [command.annotations["packet_id"] for command in commands] == [f"p-{step}" for step in range(5)]


kept: dict[str, list[Any]] = {}


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    kept.clear()


KINDS = {"AdaptationCommand": pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, "TelemetryPacket": pb.BUS_MESSAGE_TYPE_TELEMETRY}


def of_type(peer: Peer, streams: list[str], name: str, so_far: dict[str, list[Any]]) -> list[Any]:
    """Messages of a type that it has read from streams so far, as its own protobuf classes."""
    for stream in streams:
        so_far.setdefault(stream, []).extend(peer.read(stream))
    found = [message for stream in streams for message in so_far[stream]]
    return [getattr(peer.leyline, name).FromString(m.payload) for m in found if m.message_type == KINDS[name]]


def test_it_reads_our_commands_and_its_verifier_takes_them_once(peer: Peer, client: Any) -> None:  # noqa: F811
    theirs = peer.leyline
    packets = [theirs.SystemStatePacket.FromString(state(step).SerializeToString()) for step in range(3)]
    for packet in packets:
        assert peer(lambda one, packet=packet: one.publish_state(packet))
    commands = wait_for(lambda: len(found := of_type(peer, [bus.NORMAL], "AdaptationCommand", kept)) >= 3 and found)
    verifier = RealVerifier(SECRET, time.monotonic)
    assert [verifier.verify(command.SerializeToString()).reason for command in commands] == ["ok"] * 3
    assert [verifier.verify(command.SerializeToString()).reason for command in commands] == ["nonce_replayed"] * 3


def test_urgent_commands_and_telemetry_come_on_its_emergency_stream(peer: Peer, policy: StubPolicy) -> None:
    def broken(_: pb.SystemStatePacket) -> Route:
        raise RuntimeError("the network broke")

    policy.act = broken
    packet = peer.leyline.SystemStatePacket.FromString(state(1).SerializeToString())
    assert peer(lambda one: one.publish_state(packet, emergency=True))
    (command,) = wait_for(lambda: of_type(peer, [bus.EMERGENCY], "AdaptationCommand", kept))
    assert (command.annotations["reason"], command.command_type) == ("inference_failed", peer.leyline.COMMAND_PAUSE)
    told = wait_for(lambda: of_type(peer, [bus.EMERGENCY], "TelemetryPacket", kept))
    assert told[0].system_health.indicators["reason"] == "inference_failed"


def test_it_reads_our_telemetry_and_that_of_the_hub(peer: Peer) -> None:
    packet = peer.leyline.SystemStatePacket.FromString(state(1).SerializeToString())
    assert peer(lambda one: one.publish_state(packet))
    sources = wait_for(
        lambda: {one.source_subsystem for one in of_type(peer, [bus.TELEMETRY], "TelemetryPacket", kept)} >= {"tamiyo", "hub"}
    )
    assert sources


def test_neither_takes_what_another_secret_signed(oona: RedisServer, peer: Peer, place: Place, client: Any) -> None:  # noqa: F811
    stranger = Peer(oona.url, b"another secret")
    packet = peer.leyline.SystemStatePacket.FromString(state(1).SerializeToString())
    assert stranger(lambda one: one.publish_state(packet))
    wait_for(lambda: list((place.home / "quarantine" / "oona").glob("*.ndjson")) and pending(client) == 0)
    assert landed_at_stop(place) == []
    assert peer(lambda one: one.publish_state(packet))
    wait_for(lambda: len(of_type(peer, [bus.NORMAL], "AdaptationCommand", kept)) == 1)
    assert stranger.read(bus.NORMAL) == []


def landed_at_stop(place: Place) -> list[Path]:  # noqa: F811
    """Exports of packets, open segments too."""
    return list((place.exports / "tolaria" / "system_state").glob("*"))
