"""Make the telemetry of the process about itself, beside that of its decisions."""

import time
from collections import Counter
from typing import Final

from gnn.online.telemetry import event, new_packet
from schemas.configuration import MODEL_NAME
from schemas.leyline import leyline_pb2 as pb

_OUTCOME: Final = "FIELD_REPORT_OUTCOME_"


def swap_packet(name: str, reason: str | None) -> pb.TelemetryPacket:
    """Make the packet that says that a bundle serves now, or was refused for `reason`."""
    packet = new_packet(time.time_ns())
    packet.level = pb.TELEMETRY_LEVEL_INFO if reason is None else pb.TELEMETRY_LEVEL_WARNING
    attributes = {"build_id": name} | ({"reason": reason[:500]} if reason is not None else {})
    event(packet, "tamiyo.bundle.serves" if reason is None else "tamiyo.bundle.refused", packet.level, attributes)
    return packet


def policy_update(build_id: str) -> pb.PolicyUpdate:
    """Return the message that announces the serving bundle; it has no weights, which fit no other system's network."""
    update = pb.PolicyUpdate(version=1, policy_id=build_id, tamiyo_policy_version=MODEL_NAME)
    update.issued_at.FromNanoseconds(time.time_ns())
    return update


class Account:
    """Counts since the start that are published each cycle: field reports by outcome, quarantined messages by reason."""

    def __init__(self) -> None:
        self._reports: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._told = (0, 0, False)

    def report(self, report: pb.FieldReport) -> None:
        """Count a field report."""
        outcome = report.outcome
        known = outcome in pb.FieldReportOutcome.values()
        name = pb.FieldReportOutcome.Name(outcome).removeprefix(_OUTCOME) if known else "unknown"
        self._reports[name.lower()] += 1

    def quarantine(self, reason: str) -> None:
        """Count a message that was quarantined."""
        self._quarantined[reason] += 1

    def packet(self, *, conservative: bool) -> pb.TelemetryPacket | None:
        """Return the counts if one of them, or the mode, has changed since they were last reported; else None."""
        now = (self._reports.total(), self._quarantined.total(), conservative)
        if now == self._told:
            return None
        packet = new_packet(time.time_ns())
        packet.metrics.add(name="tamiyo.conservative_mode", value=float(conservative), unit="flag")
        packet.metrics.add(name="tamiyo.field_reports_total", value=float(now[0]), unit="reports")
        for name, count in sorted(self._reports.items()):
            packet.metrics.add(name=f"tamiyo.field_reports.{name}_total", value=float(count), unit="reports")
        for reason, count in sorted(self._quarantined.items()):
            packet.metrics.add(name=f"tamiyo.oona.quarantined.{reason}_total", value=float(count), unit="messages")
        if now[1] > self._told[1]:
            packet.level = pb.TELEMETRY_LEVEL_WARNING
            fresh = str(now[1] - self._told[1])
            event(packet, "oona_quarantine", packet.level, {"messages": fresh, "reasons": ", ".join(sorted(self._quarantined))})
        self._told = now
        return packet
