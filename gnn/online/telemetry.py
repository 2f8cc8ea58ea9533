"""Telemetry of decisions: packets in a bounded queue, handed out once each."""

import threading
import uuid
from collections import deque
from collections.abc import Mapping

from gnn.online.compiling import Compiled
from gnn.online.config import ServingConfig
from gnn.online.coverage import GraphCoverage
from schemas.leyline import leyline_pb2 as pb


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
    """Make the packet of one decision: the signals of its coverage, inference latency and compile status."""
    packet = new_packet(at_ns)
    for signal in coverage.signals(config):
        if signal.level is None:
            packet.metrics.add(name=signal.name, value=signal.value, unit=signal.unit)
        else:
            packet.level = pb.TelemetryLevel.Value(f"TELEMETRY_LEVEL_{signal.level}")
            means = {"mandatory_coverage": f"{signal.value:.6f}", "feature_coverage": f"{coverage.figures.mean:.6f}"}
            event(packet, signal.name, packet.level, signal.attributes | means)
    packet.metrics.add(name="tamiyo.gnn.inference_latency_ms", value=latency_ms, unit="ms")
    packet.metrics.add(
        name="tamiyo.gnn.compile_status", value=float(compiling.status == "COMPILED"), attributes={"status": compiling.status}
    )
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
