"""Build the telemetry of decisions, and queue it within a limit; each packet is returned once."""

import threading
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Final

from gnn.coverage.signals import COVERAGE
from gnn.online.choice import Choice
from gnn.online.command import ELEVATED_RISK, Sheets
from gnn.online.compiling import Compiled, Outcome
from gnn.online.config import ServingConfig
from gnn.online.constraints import CRITICAL, HIGH, NORMAL
from gnn.online.coverage import GraphCoverage
from schemas.configuration import MODEL_NAME
from schemas.leyline import leyline_pb2 as pb

# names that the readers of this telemetry use for our families
_FAMILIES: Final = {"node.context": "node.global"}
_LEVELS: Final = {CRITICAL: pb.TELEMETRY_LEVEL_CRITICAL, HIGH: pb.TELEMETRY_LEVEL_ERROR}


class TelemetryQueue:
    """A queue of at most `limit` packets; if it is full, the oldest is dropped and counted. It is thread-safe."""

    def __init__(self, limit: int) -> None:
        self._packets: deque[pb.TelemetryPacket] = deque(maxlen=limit)
        self._dropped = 0
        self._lock = threading.Lock()

    def put(self, packet: pb.TelemetryPacket) -> None:
        """Add one packet."""
        with self._lock:
            self._dropped += len(self._packets) == self._packets.maxlen
            self._packets.append(packet)

    def drain(self) -> list[pb.TelemetryPacket]:
        """Return all queued packets, oldest first, and empty the queue; the first packet carries the number dropped, if any."""
        with self._lock:
            found, dropped = list(self._packets), self._dropped
            self._packets.clear()
            self._dropped = 0
        if found and dropped:
            found[0].metrics.add(name="tamiyo.telemetry.dropped_total", value=float(dropped), unit="packets")
        return found


def new_packet(at_ns: int) -> pb.TelemetryPacket:
    """Return an empty packet with source tamiyo and that time."""
    packet = pb.TelemetryPacket(packet_id=f"tamiyo-{uuid.uuid4()}", source_subsystem="tamiyo", level=pb.TELEMETRY_LEVEL_INFO)
    packet.timestamp.FromNanoseconds(at_ns)
    return packet


def decision_packet(
    coverage: GraphCoverage,
    choice: Choice,
    sheets: Sheets,
    latency_ms: float,
    network: Compiled,
    config: ServingConfig,
    step: int,
    at_ns: int,
) -> pb.TelemetryPacket:
    """Build the packet of one decision: its coverage, hazards, latency, how the network runs, and the reason."""
    packet = new_packet(at_ns)
    priority = _coverage(packet, coverage, config)
    _hazards(packet, sheets, choice)
    outcome = network.outcome
    numbers = (
        ("latency_ms", latency_ms, "ms"),
        ("compile_enabled", float(outcome.status == "COMPILED"), "flag"),
        ("compile_fallback_total", float(network.fallbacks), "count"),
        ("compile_warm_ms", outcome.warm_ms, "ms"),
    )
    for name, value, unit in numbers:
        packet.metrics.add(name=f"tamiyo.gnn.inference.{name}", value=value, unit=unit)
    indicate(packet, reason=choice.reason, priority=max(priority, choice.priority, key=_rank), step=step, config=config)
    return packet


def indicate(packet: pb.TelemetryPacket, *, reason: str, priority: str, step: int, config: ServingConfig) -> None:
    """Set the packet's indicators for the decision, and raise its level to that of the priority."""
    packet.level = max(packet.level, _LEVELS.get(priority, pb.TELEMETRY_LEVEL_INFO))
    health = packet.system_health
    health.status = pb.HEALTH_STATUS_DEGRADED if _rank(priority) else pb.HEALTH_STATUS_HEALTHY
    health.summary = reason
    told = {
        "reason": reason,
        "priority": priority,
        "step_index": str(step),
        "policy": MODEL_NAME,
        "timeout_budget_ms": f"{config.budget_ms:g}",
    }
    for name, text in told.items():
        health.indicators[name] = text


def _rank(priority: str) -> int:
    return {HIGH: 1, CRITICAL: 2}.get(priority, 0)


def _coverage(packet: pb.TelemetryPacket, coverage: GraphCoverage, config: ServingConfig) -> str:
    """Add the coverage signals, and return their priority: CRITICAL if coverage is that low, else NORMAL."""
    priority = NORMAL
    for signal in coverage.signals(config):
        if signal.level is None:
            family = signal.name.removeprefix(f"{COVERAGE}.")
            name = signal.name if family not in _FAMILIES else f"{COVERAGE}.{_FAMILIES[family]}"
            packet.metrics.add(name=name, value=signal.value, unit=signal.unit)
        else:
            packet.level = pb.TelemetryLevel.Value(f"TELEMETRY_LEVEL_{signal.level}")
            means = {"mandatory_coverage": f"{signal.value:.6f}", "feature_coverage": f"{coverage.figures.mean:.6f}"}
            event(packet, signal.name, packet.level, signal.attributes | means)
            priority = CRITICAL if signal.level == CRITICAL else NORMAL
    return priority


def _hazards(packet: pb.TelemetryPacket, sheets: Sheets, choice: Choice) -> None:
    """Add the risk in the sheets, and a signal and an event for each hazard."""
    risk = sheets.risk
    if risk is not None:
        packet.metrics.add(name="tamiyo.blueprint.risk", value=risk, unit="ratio")
    flags = {
        "hazard_critical_signal": sheets.says("CRITICAL"),
        "hazard_high_signal": sheets.says("HIGH"),
        "elevated_risk_flag": risk is not None and risk >= ELEVATED_RISK,
    }
    for name, flag in flags.items():
        packet.metrics.add(name=f"tamiyo.bsds.{name}", value=float(flag), unit="flag")
    for band, level in (("CRITICAL", pb.TELEMETRY_LEVEL_CRITICAL), ("HIGH", pb.TELEMETRY_LEVEL_ERROR)):
        if sheets.says(band):
            packet.level = max(packet.level, level)
            event(packet, f"bsds_hazard_{band.lower()}", level, {"kernel": choice.kernel or "", "reason": choice.reason})


def compile_packet(outcome: Outcome, build_id: str, at_ns: int) -> pb.TelemetryPacket:
    """Return the report of how a bundle's network compiled."""
    packet = new_packet(at_ns)
    failed = outcome.error is not None
    packet.level = pb.TELEMETRY_LEVEL_WARNING if failed else pb.TELEMETRY_LEVEL_INFO
    attributes = {"build_id": build_id, "status": outcome.status} | ({"error": outcome.error} if outcome.error else {})
    event(packet, "tamiyo.gnn.compile_failed" if failed else "tamiyo.gnn.compile_succeeded", packet.level, attributes)
    return packet


def event(packet: pb.TelemetryPacket, description: str, level: "pb.TelemetryLevel", attributes: Mapping[str, str]) -> None:
    """Add an event with an id of its own."""
    packet.events.add(event_id=str(uuid.uuid4()), description=description, level=level, attributes=attributes)
