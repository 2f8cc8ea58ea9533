"""Shape raw columns into the contract rows and rejects of whole tables, as the declaration says."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES, Reason, Table
from schemas.decode.limits import Limits
from schemas.decode.shape.collector import Collector, Origin, typed_columns
from schemas.decode.shape.columns import (
    Findings,
    Mask,
    as_type,
    byte_lengths,
    differences,
    empties,
    flat,
    least,
    list_lengths,
    plain_floats,
    shape_column,
    truth,
)
from schemas.decode.shape.constant import nulls
from schemas.decode.shape.times import SUSPICIOUS_NS

RawColumn = Callable[[str], pa.Array | None]
_TIMES: Final = "_ns"


def field_of(struct: Any) -> RawColumn:
    """Return a reader of dotted proto paths in a record batch or struct array; NULL if a parent message was not sent."""

    def read(path: str) -> pa.Array:
        head, *rest = path.split(".")
        array = child(struct, head)
        for name in rest:
            array = child(array, name)
        return array

    return read


def child(struct: Any, name: str) -> pa.Array:
    """Return a column of a record batch, or a field of a struct array: NULL in rows whose struct is NULL."""
    if isinstance(struct, pa.RecordBatch):
        return struct.column(name)
    return pc.struct_field(struct, name) if struct.null_count else struct.field(name)


def shape_table(table: Table, raw: RawColumn, rows: int, derived: Mapping[str, pa.Array]) -> tuple[dict[str, Any], Findings]:
    """Return every column of `table`, and the findings: `derived` columns as given, the others shaped from `raw`."""
    found = Findings(rows)
    raws = {column.name: raw(column.field_path) for column in table.sent if column.name not in derived}
    columns: dict[str, Any] = plain_floats(table.floats, raws, rows)
    for column in table.columns:
        name = column.name
        if name in derived:
            columns[name] = as_type(derived[name], column.type)
        elif name not in raws:
            columns[name] = nulls(rows, column.type)
        elif name not in columns:
            array = raws[name]
            columns[name] = shape_column(column, nulls(rows, column.type) if array is None else array, found)
    return columns, found


def missing_reason(name: str) -> Reason:
    """Return the reason code of a missing key column."""
    if name == "training_run_id":
        return Reason.MISSING_RUN_ID
    return Reason.MISSING_TIME if name.endswith(_TIMES) else Reason.MISSING_ID


def key_faults(table: Table, columns: Mapping[str, Any], found: Findings) -> None:
    """Note the rows whose key is incomplete."""
    for name in table.required:
        column = columns[name]
        empty = empties(column) if table.column[name].is_text else None
        if not column.null_count and empty is None:
            continue
        missing = truth(pc.is_null(column))
        if empty is not None:
            missing = missing | empty
        found.fault(missing, missing_reason(name), f"{name}: the key of {table.name} needs it, found none; send it")


def limit_faults(columns: Mapping[str, Any], found: Findings, limits: Limits) -> None:
    """Note the rows with a string, list or map beyond the limits."""
    for name, column in columns.items():
        if pa.types.is_string(column.type):
            text = column.buffers()[2]
            if text is None or text.size <= limits.string_bytes:  # all strings together are within the limit
                continue
            sizes = byte_lengths(column)
            if len(sizes) and sizes.max() > limits.string_bytes:  # the slot of a NULL does not count
                sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy()
            _too_large(found, f"string_bytes: {name}", sizes, limits.string_bytes)
        elif pa.types.is_list(column.type) or pa.types.is_map(column.type):
            count_faults(found, name, column, limits)


def count_faults(found: Findings, name: str, lists: Any, limits: Limits) -> None:
    """Note the rows whose list or map has too many elements."""
    _too_large(found, f"elements: {name}", differences(np.asarray(lists.offsets, np.int64)), limits.elements)


def _too_large(found: Findings, what: str, sizes: npt.NDArray[Any], most: int) -> None:
    if len(sizes) and sizes.max() > most:
        found.fault(sizes > most, Reason.LIMIT_EXCEEDED, f"{what}: expected at most {most}, found more")


def emit(collector: Collector, name: str, columns: dict[str, Any], found: Findings, origin: Origin) -> npt.NDArray[np.int64]:
    """Send rows without fault to their table and the others to the rejects; return the positions of the good rows."""
    table = TABLES[name]
    if not collector.short:
        limit_faults(columns, found, collector.limits)
    key_faults(table, columns, found)
    collector.read(name, found.rows)
    collector.count_unknown(found.unknown)
    columns = columns | {"non_finite": found.non_finite_lists()}
    _count_suspicious(collector, table, columns)
    digest = collector.digest if collector.placed else None
    if not found.faults:
        collector.add(name, typed_columns(name, columns, origin, digest))
        return np.arange(found.rows, dtype=np.int64)
    bad = _reject_faults(collector, name, found, origin)
    good = np.flatnonzero(~bad)
    taken = {key: array.take(pa.array(good)) for key, array in columns.items()}
    collector.add(name, typed_columns(name, taken, origin.take(good), digest))
    return good


def _count_suspicious(collector: Collector, table: Table, columns: Mapping[str, Any]) -> None:
    """Count event times before 2000: a clock that was never set, or another unit. These rows are kept."""
    if table.event_time is not None:
        earliest = least(columns[table.event_time])
        if earliest is not None and earliest < SUSPICIOUS_NS:
            collector.suspect(table.name, int(truth(pc.less(columns[table.event_time], SUSPICIOUS_NS)).sum()))


def _reject_faults(collector: Collector, name: str, found: Findings, origin: Origin) -> Mask:
    """Reject each faulty row once, with its first reason; return the mask of faulty rows."""
    bad = np.zeros(found.rows, np.bool_)
    first: dict[int, tuple[Reason, str]] = {}
    for mask, reason, message in found.faults:
        first |= dict.fromkeys(np.flatnonzero(mask & ~bad).tolist(), (reason, message))
        bad |= mask
    for row in sorted(first):
        collector.reject(name, origin.record(row), *first[row])
    return bad


def decode_columns(
    collector: Collector, name: str, raw: RawColumn, origin: Origin, derived: Mapping[str, pa.Array]
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """Shape and emit one table; return all shaped columns and the positions of the rows that were kept."""
    rows = len(origin.positions)
    columns, found = shape_table(TABLES[name], raw, rows, derived)
    return columns, emit(collector, name, columns, found, origin)


def explode(lists: pa.Array, parents: npt.NDArray[np.int64]) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the elements of `lists` at rows `parents`, and the row of each (ascending if `parents` are)."""
    chosen = lists if len(parents) == len(lists) else lists.take(pa.array(parents))
    return flat(chosen), parents.repeat(list_lengths(chosen))


def places_within(owners: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of each element in its list, from 0, given the ascending rows of the lists."""
    return np.arange(len(owners), dtype=np.int64) - np.searchsorted(owners, owners)
