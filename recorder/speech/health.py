"""Make Weatherlight's and Tamiyo's telemetry, measured from the recorder's own process and machine."""

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil

from recorder.speech.clock import stamp
from schemas.leyline import leyline_pb2 as pb

LATENCY_BUDGET_MS = 25.0  # what one measured step may cost
_GIB = 2.0**30
CPU_SECONDS = "weatherlight.cpu_seconds_total"  # CPU seconds of the process since its present host began


class Machine:
    """Reads the machine that the recorder runs on. CPU use is since the last reading."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        psutil.cpu_percent(None)
        self._process.cpu_percent(None)
        self.cpu_percent = 0.0

    def hardware(self) -> pb.HardwareContext:
        """Return the CPU as a HardwareContext; what the machine does not report (a temperature in a container) is left out."""
        memory = psutil.virtual_memory()
        self.cpu_percent = psutil.cpu_percent(None) or self.cpu_percent
        context = pb.HardwareContext(
            device_type="cpu",
            device_id="cpu:0",
            total_memory_gb=memory.total / _GIB,
            available_memory_gb=memory.available / _GIB,
            utilization_percent=self.cpu_percent,
        )
        sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
        readings = [reading.current for group in sensors.values() for reading in group]
        if readings:
            context.temperature_celsius = max(readings)
        return context

    def memory_mb(self) -> float:
        """Return the resident memory of the process in MB."""
        return float(self._process.memory_info().rss) / 2**20


class Health:
    """Counts what goes wrong while recording, and reports it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._count = 0
        self._started = time.process_time()
        self.breaches = 0
        self.conservative = False
        self._spans: list[pb.TraceSpan] = []

    def span(self, name: str, about: str, started_ns: int, ended_ns: int) -> None:
        """Keep a span of work for the next health report."""
        span = pb.TraceSpan(span_id=f"{name}-{about}", name=name, start_time=stamp(started_ns), end_time=stamp(ended_ns))
        self._spans.append(span)

    def observe_latency(self, hook_latency_ms: float) -> None:
        """Count a breach of the recorder's own service level if a measured step cost more than its budget."""
        self.breaches += hook_latency_ms > LATENCY_BUDGET_MS

    def _indicators(self, losses_finite: bool) -> Mapping[str, str]:
        memory = psutil.virtual_memory()
        return {
            "memory": "ok" if memory.percent < 90 else "low",
            "disk": "ok" if psutil.disk_usage(str(os.curdir)).percent < 95 else "low",
            "loss": "ok" if losses_finite else "non_finite",
            "latency": "ok" if self.breaches == 0 else "over_budget",
        }

    def weatherlight(self, run_id: str, now_ns: int, *, losses_finite: bool) -> pb.TelemetryPacket:
        """Return one health report of the recorder's process."""
        self._count += 1
        self._machine.hardware()
        indicators = self._indicators(losses_finite)
        bad = sum(value != "ok" for value in indicators.values())
        status = pb.HEALTH_STATUS_HEALTHY if not bad else pb.HEALTH_STATUS_DEGRADED
        packet = pb.TelemetryPacket(
            packet_id=f"weatherlight-{run_id}-{self._count:04d}",
            timestamp=stamp(now_ns),
            source_subsystem="weatherlight",
            level=pb.TELEMETRY_LEVEL_WARNING if bad else pb.TELEMETRY_LEVEL_INFO,
            system_health=pb.SystemHealth(
                status=pb.HEALTH_STATUS_UNHEALTHY if not losses_finite else status,
                summary="recording" if not bad else "degraded",
                indicators=indicators,
            ),
        )
        metrics = (
            ("weatherlight.tasks.running", 1.0, "count"),
            ("weatherlight.tasks.backing_off", 0.0, "count"),
            ("weatherlight.restarts_total", 0.0, "count"),
            ("weatherlight.cpu_util_percent", self._machine.cpu_percent, "percent"),
            ("slo.hook_latency.breaches_total", float(self.breaches), "count"),
            ("weatherlight.memory_mb", self._machine.memory_mb(), "MB"),
            (CPU_SECONDS, time.process_time() - self._started, "s"),
            ("tamiyo.conservative_mode", float(self.conservative), "bool"),
        )
        for name, value, unit in metrics:
            packet.metrics.add(name=name, value=value, unit=unit)
        packet.spans.extend(self._spans)
        self._spans.clear()
        return packet

    def tamiyo(self, run_id: str, now_ns: int, reason: str) -> pb.TelemetryPacket:
        """Return Tamiyo's report on conservative mode: on after a seed was culled, off after one held."""
        self._count += 1
        packet = pb.TelemetryPacket(
            packet_id=f"tamiyo-{run_id}-{self._count:04d}",
            timestamp=stamp(now_ns),
            source_subsystem="tamiyo",
            level=pb.TELEMETRY_LEVEL_INFO,
        )
        packet.metrics.add(name="tamiyo.conservative_mode", value=float(self.conservative), unit="bool")
        packet.events.add(event_id=f"{packet.packet_id}-event", description=reason, level=pb.TELEMETRY_LEVEL_INFO)
        return packet
