"""Declare the telemetry tables of every system: metrics, events, spans, and Weatherlight's health, which derives from them."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import ATTRIBUTES, Column, Folder, Presence, Table

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F64: Final = pa.float64()
_DERIVED: Final = Presence.DERIVED

SYSTEMS: Final = ("tolaria", "kasmina", "urza", "urabrask", "simic", "tezzeret", "weatherlight", "tamiyo")


def _of_packet() -> tuple[Column, ...]:
    """Return the columns that the rows of a telemetry packet take from the packet itself."""
    return (
        Column("packet_id", _TEXT, "The telemetry packet.", presence=_DERIVED, nullable=False),
        Column("index", _INT, "Position in the packet's list.", presence=_DERIVED, nullable=False),
        Column("timestamp_ns", _INT, "The packet's time.", "ns since 1970", _DERIVED),
        Column("source", _TEXT, "source_subsystem of the packet.", presence=_DERIVED),
    )


def _table(short: str, description: str, message: str, columns: tuple[Column, ...]) -> Table:
    """Return the table of one kind of row in a telemetry packet."""
    return Table(
        name=f"telemetry.{short}",
        description=description,
        key=("packet_id", "index"),
        event_time="timestamp_ns",
        message=message,
        columns=(*_of_packet(), *columns),
    )


METRIC: Final = _table(
    "metric",
    "One row a metric point.",
    "MetricPoint",
    (
        Column("name", _TEXT, "Name of the metric."),
        Column("value", _F64, "Value, in `unit`.", presence=Presence.ZERO_OK),
        Column("unit", _TEXT, "Unit, as sent."),
        Column("attributes", ATTRIBUTES, "Attributes by name."),
    ),
)

EVENT: Final = _table(
    "event",
    "One row an event.",
    "TelemetryEvent",
    (
        Column("event_id", _TEXT, "The event, as its producer numbers it."),
        Column("description", _TEXT, "What happened."),
        Column("level", _TEXT, "Severity.", enum="TelemetryLevel"),
        Column("attributes", ATTRIBUTES, "Attributes by name."),
    ),
)

SPAN: Final = _table(
    "span",
    "One row a span of a trace.",
    "TraceSpan",
    (
        Column("span_id", _TEXT, "The span."),
        Column("parent_span_id", _TEXT, "The span around it."),
        Column("name", _TEXT, "Name of the span."),
        Column("start_time_ns", _INT, "Start.", "ns since 1970", Presence.EXPLICIT, path="start_time"),
        Column("end_time_ns", _INT, "End.", "ns since 1970", Presence.EXPLICIT, path="end_time"),
        Column("attributes", ATTRIBUTES, "Attributes by name."),
    ),
)

HEALTH: Final = Table(
    name="weatherlight.health",
    description="One row a telemetry packet of Weatherlight: the health of the whole system.",
    key=("packet_id",),
    event_time="timestamp_ns",
    columns=(
        Column("packet_id", _TEXT, "The telemetry packet.", presence=_DERIVED, nullable=False),
        Column("timestamp_ns", _INT, "The packet's time.", "ns since 1970", _DERIVED),
        Column("status", _TEXT, "system_health.status.", presence=_DERIVED, enum="HealthStatus"),
        Column("unhealthy_indicators", _INT, "Indicators that are not ok.", "count", _DERIVED),
        Column("sla_breaches", _F64, "Sum of the SLA breach counters.", "count", _DERIVED),
        Column("cpu_utilisation", _F64, "weatherlight.cpu_util_percent.", "percent", _DERIVED),
        Column("gpu_utilisation", _F64, "weatherlight.gpu_util_percent.", "percent", _DERIVED),
        Column("conservative_mode", pa.bool_(), "tamiyo.conservative_mode.", presence=_DERIVED),
    ),
)

TABLES: Final = (METRIC, EVENT, SPAN, HEALTH)

FOLDERS: Final = tuple(
    Folder(
        path=f"{system}/telemetry",
        description=f"TelemetryPacket of {system}.",
        tables=(METRIC.name, EVENT.name, SPAN.name, HEALTH.name, "tezzeret.kernel"),
        messages=("TelemetryPacket",),
    )
    for system in SYSTEMS
)
