"""Telemetry of decisions: packets in a bounded queue, handed out once each."""

import threading
import uuid
from collections import deque
from collections.abc import Mapping

from gnn.online.compiling import Compiled
from gnn.online.config import ServingConfig
from gnn.online.coverage import GraphCoverage
from schemas.leyline import leyline_pb2 as pb

COVERAGE = "tamiyo.gnn.feature_coverage"


class TelemetryQueue:
    """At most `limit` packets; when it is full the oldest is dropped and counted. Safe between threads."""

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
        """All packets so far, oldest first, each once; the first carries how many were dropped before it, if any."""
        with self._lock:
            found, dropped = list(self._packets), self._dropped
            self._packets.clear()
            self._dropped = 0
        if found and dropped:
            found[0].metrics.add(name="tamiyo.telemetry.dropped_total", value=float(dropped), unit="packets")
        return found


def new_packet(at_ns: int) -> pb.TelemetryPacket:
    """An empty packet of source tamiyo at that time."""
    packet = pb.TelemetryPacket(packet_id=f"tamiyo-{uuid.uuid4()}", source_subsystem="tamiyo", level=pb.TELEMETRY_LEVEL_INFO)
    packet.timestamp.FromNanoseconds(at_ns)
    return packet


def decision_packet(
    coverage: GraphCoverage, latency_ms: float, compiling: Compiled, config: ServingConfig, at_ns: int
) -> pb.TelemetryPacket:
    """Coverage, missing sheets, inference latency and compile status of one decision; `degraded_inputs` where it is low."""
    packet = new_packet(at_ns)
    values = {COVERAGE: coverage.mean} | {f"{COVERAGE}.{family}": ratio for family, ratio in coverage.families.items()}
    for name, ratio in values.items():
        packet.metrics.add(name=name, value=ratio, unit="ratio")
    packet.metrics.add(name="tamiyo.gnn.bsds_missing", value=float(coverage.bsds_missing), unit="blueprints")
    packet.metrics.add(name="tamiyo.gnn.bsds_partial", value=float(coverage.bsds_partial), unit="blueprints")
    packet.metrics.add(name="tamiyo.gnn.inference_latency_ms", value=latency_ms, unit="ms")
    packet.metrics.add(
        name="tamiyo.gnn.compile_status", value=float(compiling.status == "COMPILED"), attributes={"status": compiling.status}
    )
    if coverage.mean < config.warn_coverage:
        critical = coverage.mean <= config.critical_coverage
        level = pb.TELEMETRY_LEVEL_CRITICAL if critical else pb.TELEMETRY_LEVEL_WARNING
        packet.level = level
        event(packet, "degraded_inputs", level, {"feature_coverage": f"{coverage.mean:.6f}"})
    return packet


def compile_packet(compiling: Compiled, build_id: str, at_ns: int) -> pb.TelemetryPacket:
    """The one report of how a model version compiled."""
    packet = new_packet(at_ns)
    failed = compiling.error is not None
    level = pb.TELEMETRY_LEVEL_WARNING if failed else pb.TELEMETRY_LEVEL_INFO
    packet.level = level
    attributes = {"build_id": build_id, "status": compiling.status} | ({"error": compiling.error} if compiling.error else {})
    event(packet, "tamiyo.gnn.compile_failed" if failed else "tamiyo.gnn.compile_succeeded", level, attributes)
    return packet


def event(packet: pb.TelemetryPacket, description: str, level: "pb.TelemetryLevel", attributes: Mapping[str, str]) -> None:
    """Add an event with an id of its own."""
    packet.events.add(event_id=str(uuid.uuid4()), description=description, level=level, attributes=attributes)
