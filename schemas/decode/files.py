"""One export file -> a stream of decoded chunks: the format by its extension, the contract by its folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.contracts import FOLDERS, Folder, Reason
from schemas.decode.collector import Collector, Decoded, Origin, RawRecord
from schemas.decode.envelope import home_of, route
from schemas.decode.framing import Frame, read_frames
from schemas.decode.json_records import BadRecord, Drift, parse_object, to_message
from schemas.decode.limits import Limits
from schemas.decode.lines import read_lines
from schemas.decode.messages import decode_messages
from schemas.decode.parquet import decode_parquet
from schemas.decode.simic import decode_snapshot
from schemas.decode.urza import decode_urza
from schemas.errors import ContractError

_EXTENSIONS: Final = (".ndjson.gz", ".ndjson.zst", ".ndjson", ".binpb", ".wal", ".parquet", ".json")
_ISSUED: Final = b"\x0a"


def extension_of(name: str, folder: Folder) -> str:
    """The extension that says a file's format. Raises ContractError where the folder does not take it."""
    found = next((extension for extension in _EXTENSIONS if name.endswith(extension)), "")
    if found not in folder.extensions:
        raise ContractError(f"{name}: {folder.path} expects one of {', '.join(folder.extensions)}; rename or move the file")
    return found


def decode_file(path: Path, folder: Folder, *, file: str, digest: str, limits: Limits | None = None) -> Iterator[Decoded]:
    """Decode the export at `path` of `folder`, a chunk at a time.

    `file` is its path below the exports root and `digest` the SHA-256 of its bytes; both go into every reject. Nothing in the
    file raises: what is bad is in the rejects. Raises ContractError for an extension that the folder does not take.
    """
    limits = limits or Limits()
    extension = extension_of(file, folder)
    size = path.stat().st_size
    if size > limits.file_bytes:
        collector = Collector(folder, file, digest)
        message = f"file_bytes: expected at most {limits.file_bytes}, found {size}"
        collector.reject_record(RawRecord(0, b""), Reason.LIMIT_EXCEEDED, message)
        yield collector.finish()
    elif extension == ".parquet":
        yield from decode_parquet(folder, path, file, digest, limits)
    elif extension == ".json":
        collector = Collector(folder, file, digest)
        decode_snapshot(collector, path, limits)
        yield collector.finish()
    else:
        binary = extension in (".binpb", ".wal")
        frames = read_frames(path, extension, limits) if binary else read_lines(path, extension, limits)
        for chunk in _chunks(frames, limits):
            collector = Collector(folder, file, digest)
            (_binary_chunk if binary else _text_chunk)(collector, chunk, limits)
            yield collector.finish()


def _chunks(frames: Iterator[Frame], limits: Limits) -> Iterator[list[Frame]]:
    """Groups of records, bounded in number and bytes."""
    chunk: list[Frame] = []
    size = 0
    for frame in frames:
        chunk.append(frame)
        size += len(frame.raw)
        if len(chunk) >= limits.chunk_records or size >= limits.chunk_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _split(collector: Collector, chunk: list[Frame]) -> list[RawRecord]:
    """Reject the frames that are no record; the others."""
    records: list[RawRecord] = []
    for frame in chunk:
        record = RawRecord(frame.position, frame.raw)
        if frame.reason is None:
            records.append(record)
        else:
            collector.reject_record(record, frame.reason, frame.message)
    return records


def _binary_chunk(collector: Collector, chunk: list[Frame], _: Limits) -> None:
    records = _split(collector, chunk)
    _decode(collector, [record.raw for record in records], records)


def _text_chunk(collector: Collector, chunk: list[Frame], limits: Limits) -> None:
    objects: list[tuple[RawRecord, dict[str, Any]]] = []
    for record in _split(collector, chunk):
        try:
            objects.append((record, parse_object(record.raw, limits)))
        except BadRecord as error:
            collector.reject_record(record, error.reason, str(error))
    if not collector.folder.messages:
        decode_urza(collector, objects)
        return
    drift = Drift()
    payloads: list[bytes] = []
    records: list[RawRecord] = []
    for record, value in objects:
        message = collector.folder.messages[0]
        if "bsds" in value and "BSDSIssued" in collector.folder.messages:
            message = "BSDSIssued"
        try:
            payloads.append(to_message(value, message, drift).SerializeToString())
        except BadRecord as error:
            collector.reject_record(record, error.reason, str(error))
        else:
            records.append(record)
    collector.count_unknown(drift.counts)
    _decode(collector, payloads, records)


def _decode(collector: Collector, payloads: Sequence[bytes], records: Sequence[RawRecord]) -> None:
    """Decode protobuf payloads of the folder's message(s)."""
    if not payloads:
        return
    folder = collector.folder
    if folder.messages == ("BusEnvelope",):
        for message, routed in route(collector, payloads, records).items():
            inner = Collector(home_of(message), collector.file, collector.digest)
            decode_messages(inner, message, [payload for _, payload in routed], _origin([record for record, _ in routed]))
            collector.absorb(inner)
        return
    if "BSDSIssued" not in folder.messages:
        decode_messages(collector, folder.messages[0], payloads, _origin(records))
        return
    issued = [payload[:1] == _ISSUED for payload in payloads]
    for message, wanted in (("BSDS", False), ("BSDSIssued", True)):
        chosen = [index for index, flag in enumerate(issued) if flag is wanted]
        if chosen:
            decode_messages(collector, message, [payloads[i] for i in chosen], _origin([records[i] for i in chosen]))


def _origin(records: Sequence[RawRecord]) -> Origin:
    return Origin(np.array([record.position for record in records], np.int64), [record.raw for record in records])


def decode_packets(packets: Sequence[bytes]) -> dict[str, pa.Table]:
    """Contract rows of serialized SystemStatePackets, as offline but with export_digest and position NULL.

    Raises ContractError where a packet is bad.
    """
    collector = Collector(FOLDERS["tolaria/system_state"], "", "")
    origin = Origin(np.arange(len(packets), dtype=np.int64), packets)
    decode_messages(collector, "SystemStatePacket", packets, origin)
    decoded = collector.finish()
    for rejects in decoded.rejects.values():
        raise ContractError(f"packet {rejects['position'][0].as_py()}: {rejects['message'][0].as_py()}")
    return {name: _without_provenance(rows) for name, rows in decoded.tables.items()}


def _without_provenance(rows: pa.Table) -> pa.Table:
    for name in ("export_digest", "position"):
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), pa.nulls(rows.num_rows, rows.schema.field(name).type))
    return rows
