"""Run `tamiyo record --oona URL --obey`: hosts train, send their packets over Oona, and obey the commands that come back.

Several hosts take turns, one packet at a time, so that a command finds its host where it was when the packet left. Records that
have no message type on Oona, which are Urza's, are written as exports. Every refusal is reported with its reason.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from recorder.exports import Records, encode, read_table, write_whole
from recorder.runs.firstphase import known_kernels
from recorder.runs.live import LiveHost
from recorder.runs.plan import RecordPlan, target_hosts
from recorder.runs.record import prepare
from recorder.speech.clock import Clock, stamp
from schemas.errors import ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.traffic import KINDS, entry_for
from tamiyo.live.verifier import Verifier

_LOG = logging.getLogger(__name__)
_URZA: Final = "urza/blueprint"
_ANNOUNCED: Final = frozenset({_URZA, "urabrask/bsds", "tezzeret/kernel"})
_LAST_WORD_MS: Final = 500
_LONGEST_WAIT_S: Final = 1.0  # well under the bus's own patience
_KEPT: Final = 20_000  # entries that wait for a bus that is away
_COMMAND: Final = pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND
Entry = tuple[str, dict[str, bytes | str]]
UNADDRESSED: Final = {
    "unaddressed": "its annotation `training_run_id` is missing",
    "unknown_run": "this recorder trains no run of that id",
}


@dataclass
class Counts:
    """What a session did. `refused` counts by reason, `outcomes` by what a graft came to at the longest horizon."""

    hosts: int = 0
    packets: int = 0
    commands: int = 0
    grafts: int = 0
    pauses: int = 0
    others: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        numbers = {name: getattr(self, name) for name in ("hosts", "packets", "commands", "grafts", "pauses", "others")}
        return numbers | {"refused": dict(sorted(self.refused.items())), "outcomes": dict(sorted(self.outcomes.items()))}

    def __str__(self) -> str:
        """Return one line of text."""
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items())) or "none"
        return (
            f"{self.hosts} hosts, {self.packets} packets, {self.commands} commands: "
            f"{self.grafts} grafts, {self.pauses} pauses, {self.others} others obeyed; refused: {refused}"
        )


class Obedience:
    """One session of live hosts on one Oona."""

    def __init__(
        self,
        plan: RecordPlan,
        url: str,
        secret: bytes,
        *,
        rate: float = 10.0,
        at_once: int = 4,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Plan a session that sends `rate` packets a second, 0 for as fast as hosts train, of `at_once` hosts at a time."""
        self._plan, self._secret, self._rate, self._at_once, self._told = plan, secret, rate, at_once, told
        streams = (bus.EMERGENCY, bus.NORMAL)
        self._oona = bus.Oona(url, f"recorder-s{plan.seed}", group=f"recorder-s{plan.seed}", streams=streams)
        self._verifier, self._clock = Verifier(secret), Clock()
        self._hosts: dict[str, LiveHost | None] = {}  # None once its run is over
        self._outgoing: deque[Entry] = deque(maxlen=_KEPT)
        self._own: set[str] = set()  # ids of the commands by which the recorder tells of a seed's stages
        self._away = False
        self._turns = 0
        self.counts = Counts()

    def announce(self) -> int:
        """Warm the hosts up and publish descriptions of those that have none yet; return how many."""
        prepare()
        known, written, told = _described(self._plan), Records(), 0
        risks = known_kernels(self._plan.exports).risks
        for index in range(target_hosts(self._plan) or 0):
            if self._plan.host(index).blueprint_id not in known:
                host = LiveHost(self._plan, self._plan.host(index), risks, self._clock)
                host.close()
                for folder, items in host.take().items():
                    if folder == _URZA:
                        written.setdefault(folder, []).extend(items)
                    elif folder in _ANNOUNCED:
                        self._queue({folder: items})
                self._send()
                told += 1
                self._told(f"{host.run.spec.blueprint_id} announced")
        self._oona.close()
        if self._outgoing:
            raise ServingError("Oona: expected a Redis that takes messages, found none; start it first")
        if written:  # written last: whoever finds it takes the hosts for announced
            name = f"live-s{self._plan.seed}-{len(known):06d}.ndjson"
            write_whole(self._plan.exports / _URZA / name, encode(written[_URZA], "ndjson"))
        return told

    def train(self) -> Counts:
        """Train every host to its end, obeying what comes back."""
        prepare()
        try:
            self._oona.ensure_groups("$")
        except bus.BUS_FAULTS as fault:
            raise ServingError(f"Oona: expected a Redis that can be read, found: {fault}; start it first") from None
        known, risks = _described(self._plan), known_kernels(self._plan.exports).risks
        indices = iter(range(target_hosts(self._plan) or 0))
        active: deque[LiveHost] = deque()
        started = time.monotonic()
        try:
            while True:
                while len(active) < self._at_once and (index := next(indices, None)) is not None:
                    active.append(self._begin(index, risks, known))
                if not active:
                    self._listen(_LAST_WORD_MS)
                    self._send()
                    return self.counts
                host = active.popleft()
                self._wait(started)
                if self._turn(host):
                    active.append(host)
        finally:
            for host in active:
                host.close()
            self._leave()

    def _begin(self, index: int, risks: Mapping[str, float], known: frozenset[str]) -> LiveHost:
        host = LiveHost(self._plan, self._plan.host(index), risks, self._clock)
        spec = host.run.spec
        self._hosts[spec.run_id] = host
        self.counts.hosts += 1
        records = host.take()
        if spec.blueprint_id in known:
            records = Records({folder: items for folder, items in records.items() if folder not in _ANNOUNCED})
        elif _URZA in records:
            name = f"live-s{self._plan.seed}-host-{spec.index:06d}.ndjson"
            write_whole(self._plan.exports / _URZA / name, encode(records.pop(_URZA), "ndjson"))
        self._queue(records)
        return host

    def _turn(self, host: LiveHost) -> bool:
        """Handle one packet of one host; return whether it goes on after it."""
        before = len(host.run.packet_ids)
        host.go_on()
        self._turns += 1
        self.counts.packets += len(host.run.packet_ids) - before
        self._queue(host.take())
        if host.is_over:
            host.close()
            self._hosts[host.run.spec.run_id] = None
            self._told(f"{host.run.spec.run_id} is over; {self.counts}")
        self._send()
        return not host.is_over

    def _wait(self, started: float) -> None:
        """Listen until the next turn is due; a host that was told to pause lets its turn pass."""
        due = started + self._turns / self._rate if self._rate else 0.0
        self._listen(0)
        while (left := due - time.monotonic()) > 0:
            self._listen(max(1, int(min(left, _LONGEST_WAIT_S) * 1000)))

    def _listen(self, block_ms: int) -> None:
        try:
            if self._away:
                self._oona.ensure_groups("$")
            messages = self._oona.read(block_ms=block_ms)
            for message in messages:
                self._hear(message)
            self._oona.acknowledge(messages)
        except bus.BUS_FAULTS as fault:
            self._failed(fault)
            time.sleep(min(block_ms, 50) / 1e3)
        self._send()

    def _hear(self, message: bus.Message) -> None:
        """Handle one message; ignore it if it is no command."""
        payload = message.payload
        if payload is None:
            return
        try:
            envelope = pb.BusEnvelope.FromString(payload)
            order = pb.AdaptationCommand.FromString(envelope.payload) if envelope.message_type == _COMMAND else None
        except DecodeError:
            self._refuse(pb.AdaptationCommand(), "undecodable")
            return
        if order is None or order.command_id in self._own:
            return
        self.counts.commands += 1
        signed = bus.is_signed(self._secret, payload, message.signature)
        reason = self._verifier.refusal(order) if signed else "bad_signature"
        if reason is None:
            self._obey(order)
        else:
            self._refuse(order, reason)

    def _obey(self, order: pb.AdaptationCommand) -> None:
        run = order.annotations.get("training_run_id")
        if run is None or run not in self._hosts:
            self._refuse(order, "unaddressed" if run is None else "unknown_run")
            return
        host = self._hosts[run]
        if host is None:
            self._refuse(order, "run_over")
            return
        reason, outcomes = host.obey(order)
        if reason is not None:
            self._refuse(order, reason)
            return
        self._queue(host.take())
        self.counts.grafts += bool(outcomes)
        self.counts.pauses += order.command_type == pb.COMMAND_PAUSE
        self.counts.others += order.command_type != pb.COMMAND_PAUSE and not outcomes
        longest = max((outcome.horizon for outcome in outcomes), default=0)
        for outcome in outcomes:
            if outcome.horizon == longest:
                self.counts.outcomes["better" if outcome.uplift > 0 else "not better"] += 1
        self._tell(order, "command_obeyed", pb.TELEMETRY_LEVEL_INFO, {})

    def _refuse(self, order: pb.AdaptationCommand, reason: str) -> None:
        self.counts.refused[reason] += 1
        _LOG.warning("command %r is refused: %s", order.command_id, reason)
        self._tell(order, "command_refused", pb.TELEMETRY_LEVEL_WARNING, {"reason": reason})

    def _tell(self, order: pb.AdaptationCommand, what: str, level: "pb.TelemetryLevel", more: Mapping[str, str]) -> None:
        """Report what became of a command."""
        number = self.counts.commands
        packet = pb.TelemetryPacket(
            packet_id=f"kasmina-s{self._plan.seed}-{self._clock.now()}-{number}",
            timestamp=stamp(self._clock.now()),
            source_subsystem="kasmina",
            level=level,
        )
        packet.metrics.add(name="kasmina.commands.refused_total", value=float(self.counts.refused.total()), unit="count")
        packet.metrics.add(name="kasmina.commands.received_total", value=float(number), unit="count")
        event = packet.events.add(event_id=f"{packet.packet_id}-event", description=what, level=level)
        attributes = {"command_id": order.command_id, "seed_id": order.target_seed_id}
        attributes["training_run_id"] = order.annotations.get("training_run_id", "")
        for name, value in (attributes | dict(more)).items():
            event.attributes[name] = value
        self._outgoing.append(entry_for(packet, self._secret))

    def _queue(self, records: Records) -> None:
        """Queue the records that Oona has a message type for."""
        for message in _messages(records):
            if isinstance(message, pb.AdaptationCommand):
                self._own.add(message.command_id)
            self._outgoing.append(entry_for(message, self._secret))

    def _send(self) -> None:
        """Publish what is queued; if the bus is away, the queue is kept, and training goes on."""
        told = list(self._outgoing)
        if not told:
            return
        try:
            self._oona.publish(told)
        except bus.BUS_FAULTS as fault:
            self._failed(fault)
            return
        self._outgoing.clear()
        self._away = False

    def _failed(self, fault: Exception) -> None:
        if not self._away:
            _LOG.warning("Oona can't be used; the hosts train on: %s", fault)
        self._away = True

    def _leave(self) -> None:
        try:
            self._oona.leave()
        except bus.BUS_FAULTS as fault:
            self._failed(fault)
        self._oona.close()


def _messages(records: Records) -> Iterator[Message]:
    for items in records.values():
        for item in items:
            if isinstance(item, Message) and item.DESCRIPTOR.name in KINDS:
                yield item


def _described(plan: RecordPlan) -> frozenset[str]:
    """Return blueprints that Urza's records under the plan's root describe."""
    return frozenset(read_table(plan.exports, _URZA, "urza.blueprint").column("blueprint_id").to_pylist())
