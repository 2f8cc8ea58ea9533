"""Encode records in the contracts' formats, write files whole or not at all, and read contract tables back."""

import gzip
import json
import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from schemas.contracts import FOLDERS, TABLES
from schemas.decode import decode_file

Record: TypeAlias = Message | Mapping[str, Any]
Records: TypeAlias = dict[str, list[Record]]  # folder ("tolaria/system_state") -> records in event order

FORMATS: Final = ("binpb", "wal", "ndjson", "ndjson.gz", "ndjson.zst")
_PROVENANCE: Final = ("export_digest", "position", "arrival")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _delimited(records: Sequence[Record]) -> bytes:
    payloads = [record.SerializeToString(deterministic=True) for record in records if isinstance(record, Message)]
    return b"".join(_varint(len(payload)) + payload for payload in payloads)


def _wal(records: Sequence[Record]) -> bytes:
    payloads = [record.SerializeToString(deterministic=True) for record in records if isinstance(record, Message)]
    return b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)


def json_line(record: Record) -> str:
    """Return one record in the canonical protobuf JSON mapping with snake_case keys, on one line."""
    value = MessageToDict(record, preserving_proto_field_name=True) if isinstance(record, Message) else record
    return json.dumps(value, separators=(",", ":"), sort_keys=False, allow_nan=False)


def _ndjson(records: Sequence[Record]) -> bytes:
    return "".join(json_line(record) + "\n" for record in records).encode()


_ENCODERS: Final[Mapping[str, Callable[[Sequence[Record]], bytes]]] = MappingProxyType(
    {
        "binpb": _delimited,
        "wal": _wal,
        "ndjson": _ndjson,
        "ndjson.gz": lambda records: gzip.compress(_ndjson(records), 9, mtime=0),
        "ndjson.zst": lambda records: zstandard.ZstdCompressor(level=19).compress(_ndjson(records)),
    }
)


def encode(records: Sequence[Record], extension: str) -> bytes:
    """Return the bytes of an export of these records; plain JSON records (Urza's) can only go to the ndjson formats."""
    if extension in ("binpb", "wal") and any(not isinstance(record, Message) for record in records):
        raise ValueError(f"export format {extension}: expected protobuf messages, found JSON records; use an ndjson format")
    return _ENCODERS[extension](records)


def write_whole(path: Path, content: bytes) -> None:
    """Write to a hidden name beside `path`, fsync, rename, then fsync the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def parquet_files(folder: str, stem: str, records: Sequence[Record]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a Parquet file for each contract table of the folder's own system; zstd, without provenance."""
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "records.binpb"
        path.write_bytes(encode(records, "binpb"))
        for part in decode_file(path, FOLDERS[folder], file=path.name, digest=""):
            for name, rows in part.tables.items():
                if rows.num_rows and name.partition(".")[0] in (FOLDERS[folder].system, "telemetry"):
                    tables[name].append(rows)
    for name, parts in tables.items():
        whole = pa.concat_tables(parts)
        whole = whole.drop_columns([column for column in _PROVENANCE if column in whole.column_names])
        sink = pa.BufferOutputStream()
        pq.write_table(whole, sink, compression="zstd")
        yield f"{stem}-{name.replace('.', '-')}.parquet", sink.getvalue().to_pybytes()


def read_table(root: Path, folder: str, table: str) -> pa.Table:
    """Read a contract table from every export of one folder; rejects are left out."""
    paths = sorted((root / folder).glob("[!.]*")) if (root / folder).is_dir() else []
    parts = [
        part.tables[table]
        for path in paths
        for part in decode_file(path, FOLDERS[folder], file=path.name, digest="")
        if table in part.tables
    ]
    return pa.concat_tables(parts) if parts else TABLES[table].arrow_schema.empty_table()
