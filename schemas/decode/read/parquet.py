"""Read Parquet exports: columns of a contract table, under the same rules of presence and range as other formats."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import FieldDescriptor

from schemas.contracts import TABLES, Column, Folder, Presence, Reason, Table
from schemas.contracts.urza import GUARD
from schemas.decode.limits import Limits
from schemas.decode.read.batches import descriptor
from schemas.decode.read.isolate import decode_each
from schemas.decode.read.parquet_limits import Unreadable
from schemas.decode.read.parquet_source import Batch, RowTexts, Source
from schemas.decode.shape.cells import WrongColumns, cast_cells, shape_cells, stored, time_fault
from schemas.decode.shape.collector import Collector, Decoded, Origin, RawRecord
from schemas.decode.shape.columns import Findings, null_where, shape_column, truth
from schemas.decode.shape.rows import emit, shape_table

_NO_VALUE = (Reason.BAD_VALUE, Reason.UNKNOWN_ENUM_NAME)
_PROVENANCE = frozenset({"non_finite", "export_digest", "position", "arrival"})


def decode_parquet(folder: Folder, path: Path, file: str, digest: str, limits: Limits) -> Iterator[Decoded]:
    """Decode a Parquet file, one batch of rows at a time.

    A file that is not a table of the folder, or a row group that can't be read, is one reject that stands for all its rows.
    """

    def fresh() -> Collector:
        return Collector(folder, file, digest, limits)

    def lost(name: str, start: int, rows: int, reason: Reason, message: str) -> Decoded:
        collector = fresh()
        collector.read(name, max(rows, 1))
        collector.reject(name, RawRecord(start, b""), reason, f"{file}: {message}", max(rows, 1))
        return collector.finish()

    start, whole = 0, 1
    try:
        with Source(path, limits) as source:
            whole = source.rows()
            table, declared = declared_columns(folder, source.names)
            unknown = {f"{table.name}.{name}" for name in set(source.names) - set(table.names) - _PROVENANCE}
            for index, rows in enumerate(source.group_rows()):
                done = 0
                try:
                    for batch in source.batches(index, start, declared):
                        collector = _decode_batch(fresh, table, batch)
                        collector.count_unknown(dict.fromkeys(unknown, batch.rows.num_rows))
                        done += batch.rows.num_rows
                        yield collector.finish()
                    if done < rows:
                        message = f"row group {index}: expected {rows} rows, found {done}"
                        yield lost(table.name, start + done, rows - done, Reason.UNREADABLE_FILE, message)
                except Unreadable as error:
                    message = f"row group {index}: {error}"
                    yield lost(table.name, start + done, rows - done, error.reason, message)
                start += max(rows, done)
            if start < whole:
                message = f"expected {whole} rows, as the footer says, found {start} in its row groups"
                yield lost(table.name, start, whole - start, Reason.UNREADABLE_FILE, message)
    except (WrongColumns, Unreadable) as error:
        reason = Reason.WRONG_COLUMNS if isinstance(error, WrongColumns) else error.reason
        yield lost(folder.record, start, whole - start, reason, str(error))


def declared_columns(folder: Folder, names: Sequence[str]) -> tuple[Table, list[str]]:
    """Return the folder's table that a file with these columns holds, and the columns to read. Raises WrongColumns."""
    table = table_of(folder, names)
    ours = {*table.names, *_PROVENANCE}
    twice = sorted({name for name in names if name in ours and names.count(name) > 1})
    if twice:
        raise WrongColumns(
            f"expected each column of {table.name} once, found {', '.join(twice)} more than once; rename the others"
        )
    return table, [name for name in names if name in {*table.names, "non_finite"}]


def table_of(folder: Folder, columns: Iterable[str]) -> Table:
    """Return the folder's table whose key is among the columns and that shares the most of them. Raises WrongColumns."""
    names = set(columns)
    fits = [TABLES[name] for name in folder.tables if set(TABLES[name].key) - set(TABLES[name].nullable_key) <= names]
    if not fits:
        raise WrongColumns(f"expected the columns of one of {', '.join(folder.tables)}, found {sorted(names)[:20]}")
    return max(fits, key=lambda table: (len(names & set(table.names)), -len(table.names)))


def _decode_batch(fresh: Any, table: Table, batch: Batch) -> Collector:
    """Decode a batch; reject a row that makes the decoder raise."""

    def decode(collector: Collector, first: int, last: int) -> None:
        rows = batch.rows.slice(first, last - first)
        wrapped = {name: mask[first:last] for name, mask in batch.wrapped.items()}
        positions = np.arange(batch.start + first, batch.start + last, dtype=np.int64)
        origin = Origin(positions, batch.raws, np.arange(first, last, dtype=np.int64))
        decode_rows(collector, table, rows, origin, wrapped)

    def reject(collector: Collector, row: int, error: str) -> None:
        collector.read(table.name, 1)
        collector.reject(table.name, RawRecord(batch.start + row, batch.raws[row]), Reason.BAD_VALUE, error)

    return decode_each(fresh, batch.rows.num_rows, decode, reject, WrongColumns)


def decode_rows(collector: Collector, table: Table, rows: pa.RecordBatch, origin: Origin, wrapped: dict[str, Any]) -> None:
    """Shape and emit rows of `table`, which hold each column at most once. Raises WrongColumns."""
    given = Findings(rows.num_rows)
    for name, mask in wrapped.items():
        time_fault(mask, table.column[name], given)
    names = rows.schema.names
    derived = {
        column.name: shape_column(
            replace(column, presence=Presence.EXPLICIT, enum=None), shape_cells(rows.column(column.name), column, given), given
        )
        for column in table.columns
        if column.presence is Presence.DERIVED and column.name in names
    }

    def raw(path: str) -> pa.Array | None:
        column = by_path[path]
        most = _largest(table.message, path)
        return shape_cells(rows.column(column.name), column, given, most) if column.name in names else None

    by_path: dict[str, Column] = {column.field_path: column for column in table.columns}
    columns, found = shape_table(table, raw, rows.num_rows, derived)
    # report a cell of a wrong type before faults of values, as for JSON
    found.faults = sorted(given.faults, key=lambda fault: fault[1] not in _NO_VALUE) + found.faults
    found.non_finite += given.non_finite
    columns |= _unsent(table, columns)
    if "non_finite" in names:
        _carry_non_finite(rows.column("non_finite"), columns, found)
    emit(collector, table.name, columns, found, origin)


@lru_cache(maxsize=1024)
def _largest(message: str | None, path: str) -> int | None:
    """Return the largest value of a message's field if its type is unsigned; None for other fields or without a message."""
    fields = {} if message is None else descriptor(message).fields_by_name
    *parents, name = path.split(".")
    for parent in parents:
        inner = fields[parent].message_type if parent in fields else None
        fields = {} if inner is None else inner.fields_by_name
    kind = fields[name].type if name in fields else None
    return {FieldDescriptor.TYPE_UINT32: 2**32 - 1, FieldDescriptor.TYPE_UINT64: 2**64 - 1}.get(kind)


def decode_row_texts(collector: Collector, rows: pa.Table, start: int) -> None:
    """Decode rows that were kept as rejects; the first was row `start` of its file. Raises WrongColumns."""
    table, declared = declared_columns(collector.folder, rows.column_names)
    (batch,) = rows.select(declared).to_batches()
    positions = np.arange(start, start + rows.num_rows, dtype=np.int64)
    decode_rows(collector, table, batch, Origin(positions, RowTexts(rows)), {})


def _unsent(table: Table, columns: dict[str, Any]) -> dict[str, pa.Array]:
    """Return columns that message decoders set on every row, for files that lack these columns."""
    if table.name == "tolaria.system_state":
        return {"is_completion": pc.fill_null(columns["is_completion"], pa.scalar(False))}
    if table.name == "kasmina.seed_state":
        return {"source": pc.fill_null(columns["source"], "export")}
    if "is_placeholder" in table.column:
        guards = pa.array(truth(pc.equal(columns["type"], GUARD)))
        return {"is_placeholder": pc.coalesce(columns["is_placeholder"], guards)}
    return {}


def _carry_non_finite(array: pa.Array, columns: dict[str, Any], found: Findings) -> None:
    """Take over the names of values that were not finite; these stay missing even if an absent value means zero."""
    lists = cast_cells(stored(array), "non_finite", pa.list_(pa.string()), found)
    filled = np.flatnonzero(truth(pc.greater(pc.list_value_length(lists), 0)))
    missing: dict[str, list[int]] = {}
    for index, names in zip(filled.tolist(), lists.take(pa.array(filled)).to_pylist(), strict=True):
        found.missing(np.full(len(names), index, np.int64), pa.array(names, pa.string()))
        for name in names:
            missing.setdefault(name, []).append(index)
    for name in missing.keys() & columns.keys():
        columns[name] = null_where(columns[name], np.isin(np.arange(len(lists)), missing[name]))
