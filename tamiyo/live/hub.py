"""Gather telemetry: what all systems said in one cycle, in one taxonomy, and how each of their feeds is doing.

A metric is named `<system>.<area>.<metric>` and has a unit; its attributes say which run, step, seed or blueprint it belongs
to, and its level. Of several values of the same thing in one cycle, the newest in event time is kept.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gnn.online.telemetry import new_packet
from schemas.leyline import leyline_pb2 as pb

SOURCE: Final = "hub"
MOST: Final = 2000  # most metrics of one packet
FEEDS: Final = 64  # systems that are reported; what others send is counted as dropped
_LONGEST: Final = 200  # most letters of a name, a unit or an attribute
_ATTRIBUTES: Final = 16
_SILENT: Final = (10.0, 1.0)  # a feed has a gap if it is silent for that many of its mean intervals, and that many seconds
_UNITS: Final = {
    "loss": "nats",
    "validation_loss": "nats",
    "training_loss": "nats",
    "validation_accuracy": "ratio",
    "samples_per_s": "1/s",
    "hook_latency_ms": "ms",
    "latency_budget_ms": "ms",
    "cpu_util_percent": "percent",
    "gpu_util_percent": "percent",
    "utilization_percent": "percent",
    "temperature_celsius": "Celsius",
    "total_memory_gb": "GB",
    "available_memory_gb": "GB",
}
_BAND_LEVELS: Final = {pb.HAZARD_BAND_HIGH: "ERROR", pb.HAZARD_BAND_CRITICAL: "CRITICAL"}


@dataclass(frozen=True)
class Reading:
    """One value in the taxonomy. `of` names the run, step, seed or blueprint that it belongs to."""

    name: str
    value: float
    unit: str = ""
    level: str = "INFO"
    of: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The identity of the value: its name and what it belongs to, without the step."""
        return self.name, tuple(sorted((name, text) for name, text in self.of.items() if name != "step_index"))


def readings(message: Message) -> Iterator[Reading]:
    """Yield the values of one message; none if it holds none, or comes from the hub itself."""
    if isinstance(message, pb.SystemStatePacket):
        yield from _of_state(message)
    elif isinstance(message, pb.TelemetryPacket):
        yield from _of_telemetry(message)
    elif isinstance(message, pb.BSDSIssued):
        sheet = message.bsds
        level = _BAND_LEVELS.get(sheet.hazard_band, "INFO")
        yield Reading("urabrask.sheet.risk_score", sheet.risk_score, "ratio", level, {"blueprint_id": sheet.blueprint_id})
    elif isinstance(message, pb.BSDSFailed):
        of = {"blueprint_id": message.blueprint_id, "reason": message.reason}
        yield Reading("urabrask.sheet.failed", 1.0, "sheets", "WARNING", of)
    elif isinstance(message, pb.KernelCatalogUpdate):
        of = {"blueprint_id": message.blueprint_id}
        level = "WARNING" if message.status == pb.COMPILE_STATUS_FAILED else "INFO"
        yield Reading("tezzeret.kernel.compile_ms", message.compile_ms, "ms", level, of)
        yield Reading("tezzeret.kernel.prewarm_ms", message.prewarm_ms, "ms", level, of)
    elif isinstance(message, pb.FieldReport):
        of = {"training_run_id": message.training_run_id, "seed_id": message.seed_id, "blueprint_id": message.blueprint_id}
        level = "WARNING" if message.outcome == pb.FIELD_REPORT_OUTCOME_REGRESSION else "INFO"
        yield Reading("tamiyo.field_report.outcome", float(message.outcome), "outcome", level, of)
    elif isinstance(message, pb.AdaptationCommand):
        of = {"seed_id": message.target_seed_id, "reason": message.annotations.get("reason", "")}
        yield Reading("tamiyo.command.type", float(message.command_type), "type", "INFO", of)


def _of_state(packet: pb.SystemStatePacket) -> Iterator[Reading]:
    of = {"training_run_id": packet.training_run_id, "step_index": str(packet.global_step)}
    # a plain number of zero is a missing one
    plain = {name: getattr(packet, name) for name in ("training_loss", "validation_loss", "validation_accuracy")}
    measured = {name: value for name, value in plain.items() if value} | dict(packet.training_metrics)
    for name, value in measured.items():
        yield Reading(f"tolaria.training.{name}", value, _UNITS.get(name, ""), "INFO", of)
    hardware = packet.hardware_context
    for name in ("utilization_percent", "temperature_celsius", "available_memory_gb", "total_memory_gb"):
        if getattr(hardware, name):
            yield Reading(f"tolaria.hardware.{name}", getattr(hardware, name), _UNITS[name], "INFO", of)
    for seed in packet.seed_states:
        whose = of | {"seed_id": seed.seed_id}
        yield Reading("kasmina.seed.stage", float(seed.stage), "stage", "INFO", whose)
        for name in ("alpha", "activity_level", "success_rate", "risk_tolerance"):
            if seed.HasField(name):
                yield Reading(f"kasmina.seed.{name}", getattr(seed, name), "ratio", "INFO", whose)


def _of_telemetry(packet: pb.TelemetryPacket) -> Iterator[Reading]:
    source = packet.source_subsystem
    if source == SOURCE or not source:
        return
    known = packet.level in pb.TelemetryLevel.values()
    level = pb.TelemetryLevel.Name(packet.level).removeprefix("TELEMETRY_LEVEL_") if known else "UNSPECIFIED"
    for metric in packet.metrics:
        yield Reading(named(source, metric.name), metric.value, metric.unit, level, dict(metric.attributes))


def _bounded(reading: Reading) -> Reading:
    """Return the reading with texts and attributes cut to the limits: others send them, and they are kept and sent on."""
    of = {name[:_LONGEST]: text[:_LONGEST] for name, text in sorted(reading.of.items())[:_ATTRIBUTES]}
    return replace(reading, name=reading.name[:_LONGEST], unit=reading.unit[:_LONGEST], of=of)


def named(source: str, name: str) -> str:
    """Return a metric's name in the taxonomy: unchanged if it has a system and an area, else with those of its source."""
    parts = name.split(".")
    if len(parts) >= 3 and parts[0] == source:
        return name
    if len(parts) == 2 and parts[0] == source:
        return f"{source}.state.{parts[1]}"
    return f"{source}.{name}" if len(parts) >= 2 else f"{source}.state.{name}"


@dataclass
class _Feed:
    """The state of one system's feed: counts since the start, times in seconds of the hub's clock."""

    first: float
    seen: float
    newest_ns: int = 0
    messages: int = 0
    gaps: int = 0


class Hub:
    """Gathers one cycle after the other. For use by one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Begin a cycle; `clock` gives seconds that never go back, `now_ns` the time of day."""
        self._clock, self._now_ns = clock, now_ns
        self._readings: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[int, Reading]] = {}
        self._feeds: dict[str, _Feed] = {}
        self._dropped = 0

    def observe(self, message: Message) -> None:
        """Take one message as it passes."""
        at_ns = event_time(message)
        heard: set[str] = set()
        for reading in map(_bounded, readings(message)):
            system = reading.name.partition(".")[0]
            if system not in self._feeds and len(self._feeds) >= FEEDS:
                self._dropped += 1
                continue
            heard.add(system)
            self._saw(system, at_ns)
            held = self._readings.get(reading.key)
            if held is None and len(self._readings) >= MOST:
                self._dropped += 1
            elif held is None or at_ns >= held[0]:
                self._readings[reading.key] = at_ns, reading
        for system in heard:
            self._feeds[system].messages += 1

    def packet(self) -> pb.TelemetryPacket | None:
        """Return what was observed since the last packet, and the state of every feed; None if nothing was."""
        if not self._readings:
            return None
        packet = new_packet(self._now_ns())
        packet.source_subsystem, packet.packet_id = SOURCE, packet.packet_id.replace("tamiyo-", "hub-", 1)
        for _, reading in sorted(self._readings.values(), key=lambda pair: pair[1].key):
            attributes = {name: text for name, text in reading.of.items() if text} | {"level": reading.level}
            packet.metrics.add(name=reading.name, value=reading.value, unit=reading.unit, attributes=attributes)
        for system, feed in sorted(self._feeds.items()):
            for name, value, unit in self._state(feed):
                packet.metrics.add(name=f"hub.feed.{name}", value=value, unit=unit, attributes={"feed": system})
        packet.metrics.add(name="hub.cycle.dropped_total", value=float(self._dropped), unit="metrics")
        self._readings.clear()
        return packet

    def _saw(self, system: str, at_ns: int) -> None:
        now = self._clock()
        feed = self._feeds.setdefault(system, _Feed(now, now))
        mean = (feed.seen - feed.first) / max(feed.messages - 1, 1)
        feed.gaps += feed.messages > 1 and now - feed.seen > max(_SILENT[0] * mean, _SILENT[1])
        feed.seen, feed.newest_ns = now, max(feed.newest_ns, at_ns)

    def _state(self, feed: _Feed) -> Iterator[tuple[str, float, str]]:
        now = self._clock()
        yield "last_seen_s", now - feed.seen, "s"
        yield "messages_total", float(feed.messages), "messages"
        yield "rate", feed.messages / max(now - feed.first, 1.0), "1/s"
        if feed.newest_ns:
            yield "lag_s", max(0, self._now_ns() - feed.newest_ns) / 1e9, "s"
        yield "gaps_total", float(feed.gaps), "gaps"


def event_time(message: Message) -> int:
    """Return the event time of a message in ns, 0 if it has none, or one outside of the years 1 to 9999."""
    if isinstance(message, pb.SystemStatePacket):
        return message.timestamp_ns
    if isinstance(message, pb.TelemetryPacket):
        return _nanoseconds(message.timestamp)
    if isinstance(message, pb.BSDSIssued):
        return _nanoseconds(message.bsds.issued_at)
    if isinstance(message, pb.BSDS | pb.KernelCatalogUpdate | pb.FieldReport | pb.AdaptationCommand):
        return _nanoseconds(message.issued_at)
    return 0


def _nanoseconds(stamp: Timestamp) -> int:
    try:
        return int(stamp.ToNanoseconds())
    except ValueError:
        return 0
