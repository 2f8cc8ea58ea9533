"""Files in the contracts' formats, written beside their name and renamed: a reader sees a whole file or none."""

import gzip
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import zstandard
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

Record: TypeAlias = Message | Mapping[str, Any]

FORMATS: Final = ("binpb", "wal", "ndjson", "ndjson.gz", "ndjson.zst")


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
    """One record in the canonical protobuf JSON mapping with snake_case keys, on one line."""
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
    """The bytes of an export of these records; plain JSON records (Urza's) can only go to the ndjson formats."""
    if extension in ("binpb", "wal") and any(not isinstance(record, Message) for record in records):
        raise ValueError(f"export format {extension}: expected protobuf messages, found JSON records; use an ndjson format")
    return _ENCODERS[extension](records)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path` under a name that readers skip, fsync, rename, fsync the directory."""
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
