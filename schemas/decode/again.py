"""Decode rejected records again from their kept bytes, with the current code and limits."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.contracts import Folder, Reason
from schemas.decode.dispatch import decode_file, extension_of
from schemas.decode.limits import Limits
from schemas.decode.message.binary import decode_payloads
from schemas.decode.message.text import TextDecoder
from schemas.decode.read.framing import TAIL_KEPT, Chunk
from schemas.decode.read.parquet import decode_row_texts, table_of
from schemas.decode.shape.cells import WrongColumns
from schemas.decode.shape.collector import Collector, Decoded, Origin, RawRecord

_PIECES: Final = (Reason.TORN_RECORD, Reason.BAD_FRAMING)  # reasons of bytes between records, lengths included
_WHOLE: Final = (Reason.UNREADABLE_FILE, Reason.WRONG_COLUMNS, Reason.LIMIT_EXCEEDED)  # of a file, if no bytes are kept
_SNAPSHOT: Final = (Reason.UNREADABLE_FILE, Reason.INVALID_JSON, Reason.LIMIT_EXCEEDED)


@dataclass(frozen=True)
class Kept:
    """What a rejects table keeps of one record. `position`: byte offset, line or row in its file."""

    position: int
    reason: str
    raw: bytes


def file_is_bad(file: str, record: Kept) -> bool:
    """Return whether reading stopped at this record: the file is damaged, too large, or not a table of its folder."""
    if record.reason in _PIECES:
        return len(record.raw) == TAIL_KEPT
    return (record.reason in _WHOLE and not record.raw) or (file.lower().endswith(".json") and record.reason in _SNAPSHOT)


def needs_file(file: str, record: Kept) -> bool:
    """Return whether the kept bytes are not enough: the file itself is bad, or the bytes were cut.

    True for an entry of a Simic snapshot too, since it is judged together with the other entries.
    """
    cut = record.reason == Reason.LIMIT_EXCEEDED and len(record.raw) == TAIL_KEPT
    return file_is_bad(file, record) or cut or file.lower().endswith(".json")


def decode_again(folder: Folder, file: str, digest: str, records: Sequence[Kept], limits: Limits) -> Decoded:
    """Decode kept records of one export of `folder` that need no file; rows and rejects keep the records' old positions."""
    collector = Collector(folder, file, digest, limits)
    extension = extension_of(file, folder)
    if extension == ".parquet":
        _rows(collector, records)
        return collector.finish()
    binary = extension in (".binpb", ".wal")
    for record in records:
        if binary and record.reason in _PIECES:
            _piece(collector, extension, record)
    whole = [record for record in records if not (binary and record.reason in _PIECES)]
    chunk = _within(collector, whole, limits)
    if not binary:
        TextDecoder(folder).decode(collector, chunk, limits)
    else:
        origin = Origin(np.array(chunk.positions, np.int64), chunk.raws)
        for row, error in decode_payloads(collector, chunk.raws, origin).items():
            collector.reject_record(origin.record(row), Reason.INVALID_PROTOBUF, error)
    return collector.finish()


def _within(collector: Collector, records: Sequence[Kept], limits: Limits) -> Chunk:
    """Return the records that are within the length limit; reject the others."""
    chunk = Chunk()
    for record in records:
        if len(record.raw) > limits.record_bytes:
            message = f"record_bytes: expected at most {limits.record_bytes} bytes, found {len(record.raw)}"
            collector.reject_record(RawRecord(record.position, record.raw), Reason.LIMIT_EXCEEDED, message)
        else:
            chunk.positions.append(record.position)
            chunk.raws.append(record.raw)
    return chunk


def _piece(collector: Collector, extension: str, record: Kept) -> None:
    """Read a piece between records as if it were a file, and give its records their positions in the whole file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"piece{extension}")
        path.write_bytes(record.raw)
        for found in decode_file(path, collector.folder, file=collector.file, digest=collector.digest, limits=collector.limits):
            inner = collector.fresh()
            inner.tables = {name: [_moved(rows, record.position)] for name, rows in found.tables.items()}
            inner.rejects = {name: _moved(rows, record.position).to_pylist() for name, rows in found.rejects.items()}
            inner.rows_read, inner.rejected, inner.unknown = found.rows_read, found.rejected, found.unknown_fields
            collector.absorb(inner)


def _moved(rows: pa.Table, by: int) -> pa.Table:
    place = rows.schema.get_field_index("position")
    moved = pa.array(np.asarray(rows.column("position"), np.int64) + by)
    return rows.set_column(place, rows.schema.field(place), moved)


def _rows(collector: Collector, records: Sequence[Kept]) -> None:
    """Decode rows of a Parquet file from their canonical JSON."""
    for record in records:
        raw = RawRecord(record.position, record.raw)
        try:
            values = json.loads(record.raw)
            table = table_of(collector.folder, values)
            kinds = {one.name: one.type for one in table.arrow_schema}
            rows = pa.table({name: _column(value, kinds.get(name)) for name, value in values.items()})
            decode_row_texts(collector, rows, record.position)
        except WrongColumns as error:
            collector.reject_record(raw, Reason.WRONG_COLUMNS, f"{collector.file}: {error}")
        except ValueError as error:
            collector.reject_record(raw, Reason.BAD_VALUE, f"{collector.file}: {error}")


def _column(value: Any, kind: pa.DataType | None) -> pa.Array:
    """Return one value as a column: a list or map in the contract's type if it fits, any other value unchanged."""
    nested = kind is not None and pa.types.is_nested(kind)
    if nested and pa.types.is_map(kind) and isinstance(value, list):
        value = [tuple(entry) if isinstance(entry, list) else entry for entry in value]
    for wanted in (_loose(kind), None) if nested else (None,):
        try:
            return pa.array([value], wanted)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return pa.array([json.dumps(value)])


def _loose(kind: pa.DataType) -> pa.DataType:
    """Return the type with the numbers in maps as wide as JSON's; other types unchanged."""
    is_loose = pa.types.is_map(kind) and pa.types.is_floating(kind.item_type)
    return pa.map_(pa.string(), pa.float64()) if is_loose else kind
