"""Map Leyline messages in Arrow batches to contract rows, one function per message (contracts.md section 5)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.struct_pb2 import Struct

from schemas.contracts import TABLES, Column, Presence, Table
from schemas.decode.message.telemetry import decode_telemetry
from schemas.decode.read.batches import message_class, to_batch
from schemas.decode.shape.canonical import canonical_json
from schemas.decode.shape.collector import Collector, Origin
from schemas.decode.shape.columns import truth
from schemas.decode.shape.constant import repeated
from schemas.decode.shape.map_entries import FEW, key_codes, map_entries
from schemas.decode.shape.rows import RawColumn, count_faults, decode_columns, emit, explode, field_of, shape_table

_ELEMENTS: Final = {
    "layers": "tolaria.layer_telemetry",
    "activations": "tolaria.activation_telemetry",
    "parameters": "tolaria.parameter_telemetry",
    "connections": "tolaria.connection_telemetry",
}
_PAYLOADS: Final = ("seed_operation", "optimizer_adjustment", "circuit_breaker", "rollback_payload")
_SEEDS: Final = "kasmina.seed_state"
_FALLBACKS: Final = {  # column -> entry of the metrics map
    "alpha": "alpha",
    "risk_tolerance": "risk_tolerance",
    "alpha_schedule_total_steps": "alpha_total_steps",
    "alpha_schedule_temperature": "alpha_temperature",
}
_OLDER: Final = frozenset({*_FALLBACKS.values(), "alpha_steps", "blend_allowed"})


def decode_messages(collector: Collector, message: str, payloads: Sequence[bytes], origin: Origin) -> dict[int, str]:
    """Decode protobuf `payloads` of one message type into `collector`; return the error of each that does not parse, by row."""
    batch, good, errors = to_batch(message, payloads)
    if batch is not None:
        kept = origin if not errors else origin.take(np.asarray(good, np.int64))
        used = payloads if not errors else [payloads[row] for row in good]
        decode_batch(collector, message, batch, kept, used)
    return {row: f"expected a {message}: {error}" for row, error in errors.items()}


def decode_batch(collector: Collector, message: str, batch: pa.RecordBatch, origin: Origin, payloads: Sequence[bytes]) -> None:
    """Decode an Arrow batch of one message type; read `payloads` only for what Arrow can't hold."""
    _DECODERS[message](collector, batch, origin, payloads)


def _system_state(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    name = "tolaria.system_state"
    columns, found = shape_table(TABLES[name], field_of(batch), batch.num_rows, {})
    columns["is_completion"] = pa.array(_completion(columns))
    if not collector.short:
        for field in (*_ELEMENTS, "seed_states"):
            count_faults(found, field, batch.column(field), collector.limits)
    good = emit(collector, name, columns, found, origin)
    packet = {key: columns[key] for key in ("training_run_id", "packet_id", "timestamp_ns", "global_step")}
    for field, table in _ELEMENTS.items():
        elements, owners = explode(batch.column(field), good)
        if len(owners):
            derived = _taken(packet, owners)
            decode_columns(collector, table, field_of(elements), origin.take(owners), derived)
    seeds, owners = explode(batch.column("seed_states"), good)
    if len(owners):
        derived = _taken(packet, owners)
        derived["source"] = repeated("packet", len(owners))
        _seed_columns(collector, field_of(seeds), origin.take(owners), derived)


def _taken(columns: Mapping[str, Any], rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns of packets at those rows; all of the rows are the first if there is one packet."""
    if len(columns["packet_id"]) == 1:
        return {key: pa.repeat(column[0], len(rows)) for key, column in columns.items()}  # takes a quarter of the time
    places = pa.array(rows)
    return {key: column.take(places) for key, column in columns.items()}


def _completion(columns: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Return which rows are Tolaria's completion markers: validation accuracy is exactly 1.0 and both losses are missing."""
    marks = np.asarray(columns["validation_accuracy"].to_numpy(zero_copy_only=False) == 1.0, np.bool_)
    if not marks.any():
        return marks
    marks = marks & truth(pc.equal(columns["source_subsystem"], "tolaria"))
    return marks & truth(pc.is_null(columns["training_loss"])) & truth(pc.is_null(columns["validation_loss"]))


def _seed_state(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    _seed_columns(collector, field_of(batch), origin, {"source": repeated("export", batch.num_rows)})


def _seed_columns(collector: Collector, raw: RawColumn, origin: Origin, derived: Mapping[str, pa.Array]) -> None:
    """Emit kasmina.seed_state rows from raw SeedState columns: from fields, else from the metrics map of older exports.

    `derived` holds columns that the packet or folder gives.
    """
    rows = len(origin.positions)
    table = TABLES[_SEEDS]
    columns, found = shape_table(table, raw, rows, derived)
    if _has_older(columns["metrics"]):
        _fill_from_metrics(table, columns, raw, rows)
    emit(collector, _SEEDS, columns, found, origin)


def _has_older(maps: pa.Array) -> bool:
    """Return whether the metrics may hold what older exports send in place of fields; sure if there are few."""
    return len(maps.keys) > FEW or not _OLDER.isdisjoint(maps.keys.to_pylist())


def _fill_from_metrics(table: Table, columns: dict[str, Any], raw: RawColumn, rows: int) -> None:
    """Fill in values of seeds that were sent in the metrics map alone."""
    metrics = _MapColumn(columns["metrics"])
    for name, metric in _FALLBACKS.items():
        if metric not in metrics:  # the column stays as the field gives it
            continue
        column = table.column[name]
        values = metrics.values(metric)
        if pa.types.is_integer(column.type):
            values = _whole(values)
        unsent = pa.array(~_sent(column, raw(column.field_path), rows))
        columns[name] = pc.if_else(unsent, values.cast(column.type, safe=False), columns[name])
    if "alpha_steps" in metrics:
        columns["alpha_steps"] = _whole(metrics.values("alpha_steps"))
    if "blend_allowed" in metrics:
        columns["blend_allowed"] = pc.not_equal(metrics.values("blend_allowed"), 0.0)


def _sent(column: Column, raw: pa.Array | None, rows: int) -> npt.NDArray[np.bool_]:
    """Return where the field was sent: valid, and not zero if the field has no presence. A NaN counts as sent."""
    if raw is None:
        return np.zeros(rows, np.bool_)
    valid = truth(pc.is_valid(raw))
    return valid if column.presence is Presence.EXPLICIT else valid & ~truth(pc.equal(raw, 0))


def _whole(values: pa.Array) -> pa.Array:
    """Return floats as the nearest int64; NULL if they do not fit."""
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    fitting = np.abs(numbers) < 2.0**62  # false for a NULL, which is NaN here
    return pa.array(np.rint(np.where(fitting, numbers, 0.0)).astype(np.int64), mask=~fitting)


class _MapColumn:
    """A column of maps of floats, from which entries are taken by name."""

    def __init__(self, maps: pa.Array) -> None:
        self._rows = len(maps)
        self._owners, keys, self._items = map_entries(maps)
        self._codes, self._names = key_codes(self._owners, keys)

    def __contains__(self, name: str) -> bool:
        """Return whether a map has that entry."""
        return name in self._names

    def values(self, name: str) -> pa.Array:
        """Return the entry `name` of each map as float64, NULL in maps without it; one map at least has it."""
        hits = np.flatnonzero(self._codes == self._names.index(name))
        values = np.zeros(self._rows, np.float64)
        absent = np.ones(self._rows, np.bool_)
        values[self._owners[hits]] = np.asarray(self._items.take(pa.array(hits)).cast(pa.float64()))
        absent[self._owners[hits]] = False
        return pa.array(values, pa.float64(), mask=absent)


def _bsds(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    decode_columns(collector, "urabrask.bsds", field_of(batch), origin, {"source": repeated("bsds", batch.num_rows)})


def _bsds_issued(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    sheets = batch.column("bsds")
    derived = {"source": repeated("issued", batch.num_rows)}
    decode_columns(collector, "urabrask.bsds", field_of(sheets), origin, derived)


def _bsds_failed(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    rows = zip(batch.column("blueprint_id").to_pylist(), batch.column("reason").to_pylist(), strict=True)
    digests = [canonical_json({"blueprint_id": blueprint, "reason": reason}).digest for blueprint, reason in rows]
    decode_columns(collector, "urabrask.bsds_failure", field_of(batch), origin, {"digest": pa.array(digests, pa.string())})


def _kernel(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    decode_columns(collector, "tezzeret.kernel", field_of(batch), origin, {"source": repeated("update", batch.num_rows)})


def _command(collector: Collector, batch: pa.RecordBatch, origin: Origin, payloads: Sequence[bytes]) -> None:
    sent: list[str | None] = [None] * batch.num_rows
    for name in _PAYLOADS:
        for row in np.flatnonzero(truth(pc.is_valid(batch.column(name)))):
            sent[int(row)] = name
    structs = [_rollback(payloads[row]) if name == "rollback_payload" else (None, False) for row, name in enumerate(sent)]
    rollbacks = pa.array([text for text, _ in structs], pa.string())
    derived = {"payload": pa.array(sent, pa.string()), "rollback_payload": rollbacks}
    columns, found = shape_table(TABLES["tamiyo.command"], field_of(batch), batch.num_rows, derived)
    non_finite = np.flatnonzero([not_finite for _, not_finite in structs])
    found.missing(non_finite, pa.array(["rollback_payload"] * len(non_finite), pa.string()))
    emit(collector, "tamiyo.command", columns, found, origin)


def _rollback(payload: bytes) -> tuple[str, bool]:
    """Return the command's rollback Struct as canonical JSON, and whether it held non-finite numbers, which are left out.

    A Struct is the one message that Arrow can't hold.
    """
    non_finite: list[float] = []
    plain = _plain(message_class("AdaptationCommand").FromString(payload).rollback_payload, non_finite)
    return canonical_json(plain).text, bool(non_finite)


def _plain(value: Any, non_finite: list[float]) -> Any:
    """Return a Struct, or a list or value inside it, as plain Python; append non-finite numbers to `non_finite`."""
    if isinstance(value, Struct):
        items = {key: _plain(item, non_finite) for key, item in value.fields.items()}
        return {key: items[key] for key in items if not _is_non_finite(value.fields[key])}
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain(value.struct_value, non_finite)
    if kind == "list_value":
        return [_plain(item, non_finite) for item in value.list_value.values]
    if _is_non_finite(value):
        non_finite.append(value.number_value)
        return None
    return None if kind in (None, "null_value") else getattr(value, kind)


def _is_non_finite(value: Any) -> bool:
    return value.WhichOneof("kind") == "number_value" and not math.isfinite(value.number_value)


def _field_report(collector: Collector, batch: pa.RecordBatch, origin: Origin, _: Sequence[bytes]) -> None:
    decode_columns(collector, "tamiyo.field_report", field_of(batch), origin, {})


_Decoder = Callable[[Collector, pa.RecordBatch, Origin, Sequence[bytes]], None]
_DECODERS: Final[dict[str, _Decoder]] = {
    "SystemStatePacket": _system_state,
    "SeedState": _seed_state,
    "BSDS": _bsds,
    "BSDSIssued": _bsds_issued,
    "BSDSFailed": _bsds_failed,
    "KernelCatalogUpdate": _kernel,
    "TelemetryPacket": decode_telemetry,
    "AdaptationCommand": _command,
    "FieldReport": _field_report,
}
