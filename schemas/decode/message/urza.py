"""Decode Urza records: plain JSON around a descriptor, an optimizer, a graph and a BSDS (contracts.md section 6)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.contracts import TABLES, Reason
from schemas.contracts.enums import ENUMS
from schemas.decode.json.records import to_message
from schemas.decode.limits import Limits
from schemas.decode.message.urza_graph import graph_rows
from schemas.decode.message.urza_monitors import monitor_columns
from schemas.decode.read.batches import to_batch
from schemas.decode.shape.collector import BadRecord, Collector, Drift, Origin, RawRecord
from schemas.decode.shape.columns import null_where
from schemas.decode.shape.plain import Plain, time_ns
from schemas.decode.shape.rows import RawColumn, decode_columns, emit, field_of, shape_table

_BLUEPRINT: Final = "urza.blueprint"
_KERNEL: Final = "tezzeret.kernel"
_SHEET: Final = "urabrask.bsds"
_COMPILE: Final = ("compile_ms", "prewarm_ms", "compile_strategy", "eager_fallback")
_TOP: Final = frozenset({"blueprint_id", "descriptor", "optimizer", "resource_tier", "extras", "exported_at", *_COMPILE})
_OPTIMIZER: Final = ("learning_rate", "momentum", "gradient_variance")
Row = dict[str, Any]


@dataclass
class Parts:
    """Plain rows of one table from many records, each with its record; `payloads`: the messages inside the records."""

    rows: list[Row] = field(default_factory=list)
    records: list[RawRecord] = field(default_factory=list)
    payloads: list[bytes | None] = field(default_factory=list)

    def add(self, row: Row, record: RawRecord, payload: bytes | None = None) -> None:
        """Keep one row."""
        self.rows.append(row)
        self.records.append(record)
        self.payloads.append(payload)


def decode_urza(collector: Collector, records: Sequence[tuple[RawRecord, dict[str, Any]]]) -> None:
    """Emit rows of every table that Urza records fill. Reject a bad part alone; a bad head rejects its whole record."""
    parts: dict[str, Parts] = {}
    drift = Drift()
    for record, value in records:
        try:
            _record(collector, parts, record, Plain(value, "UrzaRecord", drift))
        except BadRecord as error:
            collector.reject_record(record, error.reason, str(error))
    for name, found in parts.items():
        _emit(collector, name, found)
    collector.count_unknown(drift.counts)


def _record(collector: Collector, parts: dict[str, Parts], record: RawRecord, top: Plain) -> None:
    """Read one whole record, then keep its parts. Raises BadRecord, and keeps nothing, if its head or a list is bad."""
    row = _blueprint(top)
    payload = _descriptor(top)
    extras = top.section("extras")
    graph = extras.section("graph_metadata")
    _check_counts(graph, collector.limits)
    monitors, errors = monitor_columns(graph)
    groups = list(graph_rows(graph))
    top.count_others(_TOP)
    extras.count_others({"graph_metadata", "bsds"})
    parts.setdefault(_BLUEPRINT, Parts()).add(row | monitors, record, payload)
    _reject(collector, _BLUEPRINT, record, errors)
    shared = {"blueprint_id": row["blueprint_id"], "exported_at_ns": row["exported_at_ns"]}
    for group in groups:
        _reject(collector, group.table, record, group.errors)
        for one in group.rows:
            parts.setdefault(group.table, Parts()).add(shared | one, record)
    _sheet(collector, parts, record, extras, row["blueprint_id"])
    kernel = _kernel(top, row)
    if kernel:
        parts.setdefault(_KERNEL, Parts()).add(kernel, record)


def _check_counts(graph: Plain, limits: Limits) -> None:
    """Raise BadRecord if a list of the graph is longer than the limit."""
    for key in graph.values:
        size = len(value) if isinstance(value := graph.value(key), list) else 0
        if size > limits.elements:
            message = f"elements: {graph.name}.{key}: expected at most {limits.elements}, found {size}"
            raise BadRecord(Reason.LIMIT_EXCEEDED, message)


def _reject(collector: Collector, table: str, record: RawRecord, errors: Sequence[BadRecord]) -> None:
    for error in errors:
        collector.read(table, 1)
        collector.reject(table, record, error.reason, str(error))


def _blueprint(top: Plain) -> Row:
    """Return the plain columns of urza.blueprint. Raises BadRecord if blueprint_id is missing or a value is bad."""
    optimizer = top.section("optimizer")
    optimizer.count_others({"family", *_OPTIMIZER})
    exported = top.value("exported_at")
    tier = top.text("resource_tier")
    number = None if tier is None else ENUMS["ResourceProfile"].number(tier)
    row: Row = {
        "blueprint_id": top.text("blueprint_id"),
        "exported_at_ns": None if exported is None else time_ns(exported, "exported_at"),
        "resource_tier": tier if number is None else ENUMS["ResourceProfile"].text(number),
        "compile_ms": top.number("compile_ms"),
        "prewarm_ms": top.number("prewarm_ms"),
        "compile_strategy": top.text("compile_strategy"),
        "eager_fallback": top.flag("eager_fallback"),
        "optimizer_family": optimizer.text("family"),
        **{f"optimizer_{name}": optimizer.number(name) for name in _OPTIMIZER},
    }
    if row["blueprint_id"] is None:
        raise BadRecord(Reason.MISSING_ID, "blueprint_id: the key of urza.blueprint needs it, found none; send it")
    row["non_finite"] = [*top.non_finite, *(f"optimizer_{name}" for name in optimizer.non_finite)]
    return row


def _descriptor(top: Plain) -> bytes | None:
    value = top.value("descriptor")
    if value is None:
        return None
    return bytes(to_message(value, "BlueprintDescriptor", top.drift).SerializeToString())


def _sheet(collector: Collector, parts: dict[str, Parts], record: RawRecord, extras: Plain, blueprint: str) -> None:
    """Read the BSDS inside the record; it belongs to the record's blueprint unless it names another."""
    if extras.value("bsds") is None:
        return
    try:
        sheet = to_message(extras.section("bsds").values, "BSDS", extras.drift)
    except BadRecord as error:
        _reject(collector, _SHEET, record, [error])
        return
    sheet.blueprint_id = sheet.blueprint_id or blueprint
    parts.setdefault(_SHEET, Parts()).add({"source": "urza"}, record, bytes(sheet.SerializeToString()))


def _kernel(top: Plain, row: Row) -> Row | None:
    """Return the kernel row of a record; None if the record does not say how its blueprint compiled."""
    if all(key not in top.values for key in _COMPILE):
        return None
    eager = row["eager_fallback"]
    if eager is None and row["compile_strategy"] is not None:
        eager = row["compile_strategy"] == "eager"
    if eager is None and row["compile_ms"] is not None:
        eager = False
    return {
        "blueprint_id": row["blueprint_id"],
        "issued_at_ns": row["exported_at_ns"],
        "source": "urza",
        "status": None if eager is None else "EAGER_FALLBACK" if eager else "COMPILED",
        "compile_ms": row["compile_ms"],
        "prewarm_ms": row["prewarm_ms"],
        "strategy": row["compile_strategy"],
    }


def _emit(collector: Collector, name: str, parts: Parts) -> None:
    """Emit rows of one table: plain values unchanged, message fields through their Arrow batch."""
    table = TABLES[name]
    origin = Origin(np.array([record.position for record in parts.records], np.int64), [record.raw for record in parts.records])
    given = {
        key: pa.array([row.get(key) for row in parts.rows], table.column[key].type)
        for key in parts.rows[0]
        if key in table.column
    }
    if name == _SHEET:
        decode_columns(collector, name, _message_columns("BSDS", parts.payloads, ""), origin, given)
        return
    raw = _message_columns("BlueprintDescriptor", parts.payloads, "descriptor.") if name == _BLUEPRINT else _nothing
    columns, found = shape_table(table, raw, len(parts.rows), given)
    for index, row in enumerate(parts.rows):
        names = row.get("non_finite") or []
        found.missing(np.full(len(names), index, np.int64), pa.array(names, pa.string()))
    emit(collector, name, columns, found, origin)


def _nothing(_: str) -> pa.Array | None:
    return None


def _message_columns(message: str, payloads: Sequence[bytes | None], prefix: str) -> RawColumn:
    """Return a reader of columns, under `prefix`, of the messages inside records; NULL if a record has none."""
    batch, _, _ = to_batch(message, [payload or b"" for payload in payloads])
    absent = np.array([payload is None for payload in payloads], np.bool_)
    read = field_of(batch)

    def column(path: str) -> pa.Array | None:
        array = read(path.removeprefix(prefix)) if path.startswith(prefix) else None
        return None if array is None else null_where(array, absent)

    return column
