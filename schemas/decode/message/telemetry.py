"""Map telemetry packets to rows: metrics, events, spans, Weatherlight's health, Tezzeret's compile events."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES, Reason
from schemas.contracts.enums import ENUMS
from schemas.decode.shape.collector import Collector, Origin
from schemas.decode.shape.columns import Findings, null_where, shape_column, truth
from schemas.decode.shape.rows import count_faults, decode_columns, emit, explode, field_of, places_within

_PARTS: Final = {"metrics": "telemetry.metric", "events": "telemetry.event", "spans": "telemetry.span"}
_HEALTHY: Final = frozenset({"ok", "healthy", "operational", "true", "1"})
_BREACHES: Final = ("slo.*.breaches_total", "weatherlight.sla.breaches_total")
_COMPILED: Final = "tezzeret.compile_succeeded"
_FAILED: Final = "tezzeret.compile_failed"


def decode_telemetry(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    """Emit rows of telemetry.* and of the tables that derive from them; reject a packet without an id as a whole."""
    packet, good = _packets(collector, batch, origin)
    for field, name in _PARTS.items():
        elements, owners = explode(batch.column(field), good)
        if not len(owners):
            continue
        derived = {key: column.take(pa.array(owners)) for key, column in packet.items()}
        derived["index"] = pa.array(places_within(owners))
        decode_columns(collector, name, field_of(elements), origin.take(owners), derived)
    sizes = [np.asarray(pc.fill_null(pc.list_value_length(batch.column(field)), 0), np.int64) for field in _PARTS]
    collector.note_silent(origin.positions[good[np.sum(sizes, axis=0)[good] == 0]])
    _health(collector, batch, packet, good, origin)
    _kernels(collector, batch, packet, good, origin)


def _packets(collector: Collector, batch: pa.RecordBatch, origin: Origin) -> tuple[dict[str, pa.Array], npt.NDArray[np.int64]]:
    """Return the columns that rows take from their packet, and the positions of packets with an id and a time that fits."""
    found = Findings(batch.num_rows)
    metric = TABLES["telemetry.metric"].column
    ids = batch.column("packet_id")
    packet = {
        "packet_id": ids,
        "timestamp_ns": shape_column(metric["timestamp_ns"], batch.column("timestamp"), found),
        "source": null_where(batch.column("source_subsystem"), truth(pc.equal(batch.column("source_subsystem"), ""))),
    }
    for field in _PARTS:
        count_faults(found, field, batch.column(field), collector.limits)
    missing = truth(pc.equal(ids, ""))
    bad = missing.copy()
    for mask, reason, message in found.faults:
        for row in np.flatnonzero(mask & ~bad):
            collector.reject_record(origin.record(int(row)), reason, message)
        bad |= mask
    for row in np.flatnonzero(missing):
        message = "packet_id: the key of telemetry.metric needs it, found none; send it"
        collector.reject_record(origin.record(int(row)), Reason.MISSING_ID, message)
    return packet, np.flatnonzero(~bad)


def _health(
    collector: Collector, batch: pa.RecordBatch, packet: dict[str, pa.Array], good: npt.NDArray[np.int64], origin: Origin
) -> None:
    """Emit weatherlight.health rows from packets of source weatherlight, by the names in contracts.md section 7."""
    rows = [int(row) for row in good if packet["source"][int(row)].as_py() == "weatherlight"]
    if not rows:
        return
    taken = pa.array(rows, pa.int64())
    records = [
        _health_row(metrics, health)
        for metrics, health in zip(
            batch.column("metrics").take(taken).to_pylist(), batch.column("system_health").take(taken).to_pylist(), strict=True
        )
    ]
    table = TABLES["weatherlight.health"]
    columns: dict[str, Any] = {name: packet[name].take(taken) for name in ("packet_id", "timestamp_ns")}
    for name in table.names:
        if name not in columns:
            columns[name] = pa.array([record[name] for record in records], table.column[name].type)
    emit(collector, table.name, columns, Findings(len(rows)), origin.take(np.asarray(rows, np.int64)))


def _health_row(metrics: list[dict[str, Any]] | None, health: dict[str, Any] | None) -> dict[str, Any]:
    """Return the health values of one packet; None for each that the packet does not hold."""
    values = {m["name"]: m["value"] for m in metrics or () if np.isfinite(m["value"])}
    breaches = [value for name, value in values.items() if any(fnmatchcase(name, pattern) for pattern in _BREACHES)]
    indicators = dict(health["indicators"] or ()) if health is not None else None
    conservative = values.get("tamiyo.conservative_mode")
    return {
        "status": ENUMS["HealthStatus"].text(health["status"]) if health is not None else None,
        "unhealthy_indicators": None
        if indicators is None
        else sum(value.strip().lower() not in _HEALTHY for value in indicators.values()),
        "sla_breaches": float(sum(breaches)) if breaches else None,
        "cpu_utilisation": values.get("weatherlight.cpu_util_percent"),
        "gpu_utilisation": values.get("weatherlight.gpu_util_percent"),
        "conservative_mode": None if conservative is None else conservative != 0.0,
    }


def _kernels(
    collector: Collector, batch: pa.RecordBatch, packet: dict[str, pa.Array], good: npt.NDArray[np.int64], origin: Origin
) -> None:
    """Emit tezzeret.kernel rows from Tezzeret's compile events; the strategy `eager` becomes EAGER_FALLBACK."""
    elements, owners = explode(batch.column("events"), good)
    if not len(owners):
        return
    names = pc.struct_field(elements, "description")
    hits = np.flatnonzero(truth(pc.is_in(names, pa.array([_COMPILED, _FAILED]))))
    if not len(hits):
        return
    events = elements.take(pa.array(hits)).to_pylist()
    owners = owners[hits]
    records = [_kernel_row(event["description"], dict(event["attributes"] or ())) for event in events]
    table = TABLES["tezzeret.kernel"]
    columns: dict[str, Any] = {
        name: pa.array([record.get(name) for record in records], table.column[name].type) for name in table.names
    }
    columns["issued_at_ns"] = packet["timestamp_ns"].take(pa.array(owners))
    emit(collector, table.name, columns, Findings(len(owners)), origin.take(owners))


def _kernel_row(event: str, attributes: dict[str, str]) -> dict[str, Any]:
    """Return one compile event as a kernel row."""
    strategy = attributes.get("strategy") or None
    compiled = "EAGER_FALLBACK" if strategy == "eager" else "COMPILED"
    return {
        "blueprint_id": attributes.get("blueprint_id") or None,
        "source": "event",
        "status": "FAILED" if event == _FAILED else compiled,
        "compile_ms": _positive(attributes.get("compile_ms")),
        "prewarm_ms": _positive(attributes.get("prewarm_ms")),
        "strategy": strategy,
    }


def _positive(text: str | None) -> float | None:
    """Return the finite number in a string; None for zero, which is missing as in KernelCatalogUpdate."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if value and np.isfinite(value) else None
