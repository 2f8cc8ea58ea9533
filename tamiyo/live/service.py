"""Run `tamiyo serve`: read Oona, land every message, answer the packets, report what is done, until it is stopped."""

import fcntl
import hashlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from redis import ResponseError

from gnn.online.config import ServingConfig
from gnn.online.constraints import URGENT
from lake import quarantine
from lake.alert_outbox import AlertOutbox
from lake.durable.publish import ensure_dir
from schemas.decode import Limits
from schemas.errors import ServingError, TamiyoError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.bus import Message, Oona
from tamiyo.live.decider import Answer, Decider
from tamiyo.live.endpoints import Endpoints, Page
from tamiyo.live.holder import Holder
from tamiyo.live.hub import Hub
from tamiyo.live.intake import Admitted, Refused, admit, kept
from tamiyo.live.landing import Landing
from tamiyo.live.metrics import CONTENT_TYPE, Metrics
from tamiyo.live.telemetry import Account, policy_update, swap_packet

_LOG = logging.getLogger(__name__)
LOCK: Final = ".serve.lock"
PANEL: Final = "panel.html"
METRICS_FILE: Final = "metrics.prom"
_CLAIM_EVERY_S: Final = 10.0
_ALERTS_EVERY_S: Final = 5.0
_LONGEST_WAIT_S: Final = 2.0
_ALIVE_S: Final = 30.0  # a loop that has not turned for so long hangs
_TOLD_AT_MOST: Final = 4096
Entry = tuple[str, dict[str, bytes | str]]


@dataclass(frozen=True)
class Place:
    """Where a service works: the bus, the home, the exports that it lands in, and where its pages are."""

    redis: str
    home: Path
    exports: Path
    host: str = "127.0.0.1"
    port: int = 0


class Service:
    """One service of a home."""

    def __init__(
        self,
        place: Place,
        config: ServingConfig,
        secret: bytes | None,
        limits: Limits | None = None,
        alerts: AlertOutbox | None = None,
    ) -> None:
        """Take the home's lock and listen; nothing is read before `run`.

        `alerts` takes alerts about refused messages, which are delivered from there even if no daemon of the pipeline runs.
        Raises ServingError if another service works in the home.
        """
        self._place, self._config, self._secret, self._limits = place, config, secret, limits or Limits()
        self._lock = _sole_service(place.home)
        self._oona = Oona(place.redis, _consumer(place.home))
        self._landing = Landing(place.exports, self._oona.group, config)
        self._holder = Holder(place.home, config, self._announce)
        self._decider = Decider(config, self._holder.serving, self._holder.breaker)
        self._metrics, self._account, self._hub = Metrics(), Account(), Hub()
        self._hub_told = time.monotonic()
        self._outgoing: deque[Entry] = deque(maxlen=_TOLD_AT_MOST)
        self._stop = threading.Event()
        self._alerts = alerts
        self._left = True  # entries that were delivered to us before and not acknowledged come first
        self._claimed = 0.0
        self._turned = time.monotonic()
        self._fault: str | None = "Oona was not reached yet"
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics_page, "/panel": self._panel}
        self._endpoints = Endpoints(place.host, place.port, pages)

    @property
    def url(self) -> str:
        """Where the pages are."""
        return self._endpoints.url

    def stop(self) -> None:
        """End `run` after the present decision; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Serve until `stop`, then close the segments and publish the rest."""
        recovered = self._landing.recover()
        self._metrics.segments.inc(len(recovered))
        self._holder.start()
        if self._alerts is not None:
            threading.Thread(target=self._watch_quarantine, args=(self._alerts,), name="tamiyo-alerts", daemon=True).start()
        wait = 0.05
        while not self._stop.is_set():
            self._turned = time.monotonic()
            try:
                self._cycle()
            except bus.BUS_FAULTS as fault:
                self._failed(fault)
                self._stop.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT_S)
            else:
                self._fault, wait = None, 0.05
        self._close()

    def _watch_quarantine(self, alerts: AlertOutbox) -> None:
        """Alert about refused messages for as long as they come, and post what is due; the loop never waits for a webhook."""
        while not self._stop.is_set():
            try:
                alerts.observe([quarantine.look(alerts.home, alerts.clock())])
                alerts.deliver()
            except (TamiyoError, OSError) as fault:
                _LOG.warning("alerts of the quarantine can't be told: %s", fault)
            self._stop.wait(_ALERTS_EVERY_S)

    def _failed(self, fault: Exception) -> None:
        """Handle a failure of Redis or the disk: what was not acknowledged comes again."""
        if isinstance(fault, ResponseError) and not str(fault).startswith("NOGROUP"):
            _LOG.error("Oona refuses: %s", fault)
        self._metrics.bus_faults.inc()
        self._left = True
        if self._fault is None:
            _LOG.warning("Oona or the exports can't be used: %s", fault)
        self._fault = f"{type(fault).__name__}: {fault}"

    def _cycle(self) -> None:
        if self._fault is not None:
            self._oona.ensure_groups()
        messages = self._oona.read(left=self._left)
        self._left = self._left and bool(messages)
        if time.monotonic() - self._claimed >= _CLAIM_EVERY_S:
            messages += self._oona.claim(self._config.claim_s)
            self._claimed = time.monotonic()
            for stream, lag in self._oona.lag().items():
                self._metrics.lag.labels(stream=stream).set(lag)
        self._handle(messages)
        self._metrics.segments.inc(len(self._landing.rotate()))
        self._tell()

    def _handle(self, messages: Sequence[Message]) -> None:
        """Land messages, acknowledge those without an answer, answer the packets."""
        started = time.perf_counter()
        done: list[Message] = []
        refused: list[tuple[Message, Refused]] = []
        packets: list[tuple[Message, Admitted]] = []
        for message in messages:
            found = self._take(message)
            if isinstance(found, Refused):
                refused.append((message, found))
            if isinstance(found, Admitted) and isinstance(found.message, pb.SystemStatePacket):
                packets.append((message, found))
            else:
                done.append(message)
        self._landing.sync()
        if refused:
            quarantine.keep(self._place.home, [kept(*pair) for pair in refused], datetime.now(UTC))
        if done:
            self._oona.acknowledge(done)
        if messages:
            self._metrics.latency.labels(stage="land").observe((time.perf_counter() - started) * 1e3)
        for message, admitted in packets:
            if self._stop.is_set():
                return  # the rest stays pending, for the next process
            self._answer(message, admitted.payload, admitted.message)

    def _take(self, message: Message) -> Admitted | Refused | None:
        """Land one message, or count why it is refused; None for one that only made a group."""
        found = admit(message, self._secret, self._limits)
        kind = found.kind if isinstance(found, Admitted) else "none"
        if isinstance(found, Refused):
            self._account.quarantine(found.reason)
            self._metrics.quarantined.labels(reason=found.reason).inc()
            _LOG.warning("%s %s: quarantined: %s (%s)", message.stream, message.entry, found.reason, found.found)
        elif found is not None:
            self._landing.add(found.folder, found.payload)
            if found.message is not None:
                self._hub.observe(found.message)
            if isinstance(found.message, pb.FieldReport):
                self._account.report(found.message)
        outcome = "landed" if isinstance(found, Admitted) else "bootstrap" if found is None else "quarantined"
        self._metrics.messages.labels(stream=message.stream, type=kind, outcome=outcome).inc()
        return found

    def _answer(self, message: Message, payload: bytes, packet: Any) -> None:
        """Answer one packet, unless it was answered before."""
        mark = bus.mark_of(packet)
        if not _matches(packet.training_run_id, self._config.runs):
            self._oona.acknowledge([message])
            return
        if self._oona.is_answered(mark):
            self._metrics.duplicates.inc()
            self._oona.acknowledge([message])
            return
        answer = self._decider.answer(payload, packet)
        started = time.perf_counter()
        outgoing = self._entries(answer)
        if not self._oona.answer(message, mark, outgoing, self._config.answered_s):
            self._metrics.duplicates.inc()
            return
        self._metrics.answered(answer)
        self._metrics.latency.labels(stage="publish").observe((time.perf_counter() - started) * 1e3)
        for stream, _ in outgoing:
            self._metrics.published.labels(stream=stream).inc()
        if answer.telemetry is not None:
            self._queue(answer.telemetry)

    def _entries(self, answer: Answer) -> list[Entry]:
        if answer.command is None:
            return []
        command = bus.signed_command(answer.command, self._secret).SerializeToString(deterministic=True)
        stream = bus.EMERGENCY if answer.urgent else bus.NORMAL
        return [(stream, bus.entry_of(pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, command, self._secret))]

    def _queue(self, packet: pb.TelemetryPacket) -> None:
        """Queue telemetry for this cycle; the oldest packets are dropped if Oona is away for long."""
        urgent = packet.system_health.indicators.get("priority", "") in URGENT
        fields = bus.entry_of(pb.BUS_MESSAGE_TYPE_TELEMETRY, packet.SerializeToString(), self._secret)
        self._outgoing.append((bus.EMERGENCY if urgent else bus.TELEMETRY, fields))

    def _announce(self, name: str, build_id: str | None, reason: str | None) -> None:
        """Announce that a bundle serves now, or was refused; called by the holder's thread."""
        self._metrics.swaps.labels(outcome="refused" if build_id is None else "taken").inc()
        self._queue(swap_packet(name, reason))
        if build_id is not None:
            self._metrics.bundle.clear()
            self._metrics.bundle.labels(build_id=build_id).set(1)
            update = policy_update(build_id).SerializeToString()
            self._outgoing.append((bus.POLICY, bus.entry_of(pb.BUS_MESSAGE_TYPE_POLICY_UPDATE, update, self._secret)))

    def _tell(self) -> None:
        """Publish the telemetry so far; what can't be published is kept for the next cycle."""
        policy = self._holder.policy
        for packet in policy.drain_telemetry() if policy is not None else ():
            self._queue(packet)
        counts = self._account.packet(conservative=self._decider.conservative)
        if counts is not None:
            self._queue(counts)
        if time.monotonic() - self._hub_told >= self._config.hub_s:
            self._hub_told = time.monotonic()
            view = self._hub.packet()
            if view is not None:
                self._queue(view)
        told = [self._outgoing[place] for place in range(len(self._outgoing))]
        if told:
            self._oona.publish(told)
            for stream, _ in told:
                self._outgoing.popleft()
                self._metrics.published.labels(stream=stream).inc()

    def _close(self) -> None:
        """Close everything; a bus that is away must not keep the exports from being closed."""
        self._metrics.segments.inc(len(self._landing.rotate(everything=True)))
        try:
            self._tell()
        except bus.BUS_FAULTS as fault:
            _LOG.warning("telemetry of the last cycle was not told: %s", fault)
        self._holder.close()
        self._decider.close()
        self._endpoints.close()
        self._oona.close()
        os.close(self._lock)

    def _reasons(self) -> list[str]:
        """Return why the service is not ready."""
        reasons = [self._holder.why_not, None if self._fault is None else f"Oona: {self._fault}"]
        return [reason for reason in reasons if reason is not None]

    def _healthz(self) -> Page:
        silent = time.monotonic() - self._turned
        return Page.json({"alive": silent < _ALIVE_S, "seconds_since_last_turn": round(silent, 3)}, good=silent < _ALIVE_S)

    def _readyz(self) -> Page:
        reasons, policy = self._reasons(), self._holder.policy
        told: dict[str, Any] = {
            "ready": not reasons,
            "reasons": reasons,
            "build_id": policy.bundle.build_id if policy is not None else None,
            "refused": self._holder.refused,
            "conservative": self._decider.conservative,
            "breakers": {"inference": self._decider.inference.state, "metadata": self._holder.breaker.state},
        }
        return Page.json(told, good=not reasons)

    def _metrics_page(self) -> Page:
        metrics, serving = self._metrics, self._holder.serving()
        metrics.ready.set(not self._reasons())
        metrics.set_breaker("inference", self._decider.inference.state)
        metrics.set_breaker("metadata", self._holder.breaker.state)
        if serving is not None:
            metrics.metadata_age.set((time.time_ns() - serving[1].taken_at_ns) / 1e9)
            metrics.fallbacks.set(serving[0].fallbacks)
        return Page(metrics.text() + self._of_home(), CONTENT_TYPE)

    def _of_home(self) -> bytes:
        """Return what the pipeline measured last: coverage, gaps, checks, alerts of the home."""
        try:
            return (self._place.home / METRICS_FILE).read_bytes()
        except OSError:
            return b""

    def _panel(self) -> Page:
        path = self._place.home / PANEL
        try:
            return Page(path.read_bytes(), "text/html; charset=utf-8")
        except OSError:
            return Page.json({"expected": str(path), "found": "no panel yet; `tamiyo run` makes it"}, good=False)


def _matches(run: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(run, pattern)


def _consumer(home: Path) -> str:
    """Return a name that the next process of this home has too, so that it gets back what this one leaves."""
    return f"{socket.gethostname()}-{hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:12]}"


def _sole_service(home: Path) -> int:
    """Return the lock of a home's service, as an open descriptor."""
    ensure_dir(home)
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ServingError(
            f"home {home}: expected no other service there, found one that runs; stop it, or serve another --home"
        ) from None
    return descriptor
