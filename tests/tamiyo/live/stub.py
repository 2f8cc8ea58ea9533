"""A service with a policy that answers at once, in a process of its own that can be killed, or in a thread."""

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from google.protobuf.message import DecodeError

from gnn.online.command import blank_command
from gnn.online.config import ServingConfig
from gnn.online.constraints import Route
from gnn.online.telemetry import indicate, new_packet
from schemas.errors import ContractError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus, service
from tamiyo.live.decider import Serving
from tamiyo.live.holder import Holder
from tamiyo.live.service import Place, Service

CONFIG = ServingConfig(budget_ms=60_000, segment_s=0.2, swap_s=0.05)
SECRET = b"secret"


class StubPolicy:
    """Grafts for each packet, unless `act` says otherwise: it may return a route, raise, or take long."""

    def __init__(self, act: Callable[[pb.SystemStatePacket], Route] = lambda packet: Route.GRAFT) -> None:
        self.act, self.asked, self.fallbacks = act, 0, 0
        self.bundle = SimpleNamespace(build_id="b" * 64)

    def evaluate(self, data: bytes, snapshot: Any) -> Any:
        self.asked += 1
        packet = pb.SystemStatePacket.FromString(data)
        if not packet.packet_id:
            raise ContractError("a packet without id")
        route = self.act(packet)
        notes = {"reason": "policy", "priority": "NORMAL", "packet_id": packet.packet_id}
        kind = pb.COMMAND_SEED if route is Route.GRAFT else pb.COMMAND_PAUSE
        told = new_packet(time.time_ns())
        indicate(told, reason="policy", priority="NORMAL", step=packet.global_step, config=CONFIG)
        return SimpleNamespace(
            choice=SimpleNamespace(reason="policy", priority="NORMAL", route=route),
            command=blank_command(kind, notes, CONFIG, time.time_ns()),
            publishes=route is not Route.NO_OP,
            telemetry=told,
            stages_ms={"network": 1.0},
        )

    def drain_telemetry(self) -> list[pb.TelemetryPacket]:
        return []

    def forget(self, run: str) -> None:
        """Nothing is kept."""


class StubHolder(Holder):
    """Serves a stub at once."""

    policy_of: Callable[[], Any] = StubPolicy

    def start(self) -> None:
        self._stub = type(self).policy_of()

    def serving(self) -> Serving | None:
        snapshot: Any = SimpleNamespace(taken_at_ns=time.time_ns())
        return None if self._stub is None else (self._stub, snapshot)

    @property
    def policy(self) -> Any:
        return getattr(self, "_stub", None)

    @property
    def why_not(self) -> str | None:
        return None if self.policy is not None else "no bundle serves"

    def close(self) -> None:
        """There is nothing to close."""


def holder_with(policy: Any) -> type[StubHolder]:
    return type("OneStub", (StubHolder,), {"policy_of": staticmethod(lambda: policy)})


@contextmanager
def running(place: Place, config: ServingConfig, secret: bytes | None = SECRET) -> Iterator[Service]:
    """A service in a thread."""
    found = Service(place, config, secret)
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        found.stop()
        thread.join()


def _child(place: Place) -> None:
    service.Holder = StubHolder  # type: ignore[misc]
    Service(place, CONFIG, SECRET).run()


def started(place: Place) -> BaseProcess:
    """The same in a process of its own."""
    found = multiprocessing.get_context("fork").Process(target=_child, args=(place,))
    found.start()
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `condition` gives once it is true; a test that waits for ever ends with what it waits for."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("the condition did not come true")


def get(url: str) -> tuple[int, bytes]:
    try:
        with urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def get_json(url: str) -> tuple[int, Any]:
    status, body = get(url)
    return status, json.loads(body)


def packet(number: int, run: str = "run-1", **more: Any) -> pb.SystemStatePacket:
    metrics = {"loss": 0.5}
    return pb.SystemStatePacket(
        version=1, packet_id=f"p-{number}", training_run_id=run, timestamp_ns=10**18 + number, training_metrics=metrics, **more
    )


def send(client: Any, kind: int, payload: bytes, secret: bytes | None = SECRET, stream: str = bus.NORMAL) -> str:
    return str(client.xadd(stream, bus.entry_of(kind, payload, secret)).decode())


def send_packet(client: Any, number: int, secret: bytes | None = SECRET, **more: Any) -> str:
    return send(client, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE, packet(number, **more).SerializeToString(), secret)


def messages(client: Any, stream: str, kind: int) -> list[bytes]:
    """Payloads of that type on a stream, in order."""
    found = []
    for _, fields in client.xrange(stream):
        with suppress(DecodeError):
            envelope = pb.BusEnvelope.FromString(fields.get(b"payload", b""))
            found += [envelope.payload] if envelope.message_type == kind else []
    return found


def commands(client: Any) -> list[pb.AdaptationCommand]:
    """Commands on both streams."""
    kind = pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND
    raws = [raw for stream in (bus.NORMAL, bus.EMERGENCY) for raw in messages(client, stream, kind)]
    return [pb.AdaptationCommand.FromString(raw) for raw in raws]


def pending(client: Any) -> int:
    """Entries that were read and not acknowledged."""
    return sum(client.xpending(stream, bus.GROUP)["pending"] for stream in bus.STREAMS)


def landed(exports: Path, folder: str) -> list[bytes]:
    """Records of the closed segments of a folder, in order."""
    found = []
    for path in sorted((exports / folder).glob("*.wal")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "little")
            found.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        assert place == len(data)
    return found
