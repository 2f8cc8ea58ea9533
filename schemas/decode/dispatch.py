"""Decode one export file as a stream of chunks: its extension gives the format, its folder the contract."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from schemas.contracts import FOLDERS, Folder, Reason
from schemas.decode.limits import Limits
from schemas.decode.message.binary import decode_binary
from schemas.decode.message.leyline import decode_messages
from schemas.decode.message.simic import decode_snapshot
from schemas.decode.message.text import TextDecoder
from schemas.decode.read.framing import Chunk, read_frames
from schemas.decode.read.isolate import Isolated, decode_each
from schemas.decode.read.lines import read_lines
from schemas.decode.read.mending import acceptor
from schemas.decode.read.parquet import decode_parquet
from schemas.decode.shape.collector import Collector, Decoded, Origin, RawRecord
from schemas.errors import ContractError

_LIMITS: Final = Limits()


def extension_of(name: str, folder: Folder) -> str:
    """Return the extension that gives a file's format. Raises ContractError if the folder does not take it."""
    found = folder.extension(name)
    if found is None:
        raise ContractError(f"{name}: {folder.path} expects one of {', '.join(folder.extensions)}; rename or move the file")
    return found


def decode_file(path: Path, folder: Folder, *, file: str, digest: str, limits: Limits | None = None) -> Iterator[Decoded]:
    """Decode the export at `path` of `folder`, a chunk at a time.

    `file` is its path below the exports root and `digest` the SHA-256 of its bytes; both go into every reject. Bad content
    becomes rejects and never raises. Raises ContractError for an extension that the folder does not take.
    """
    limits = limits or Limits()
    extension = extension_of(file, folder)
    size = path.stat().st_size
    if size > limits.file_bytes:
        collector = Collector(folder, file, digest, limits)
        message = f"file_bytes: expected at most {limits.file_bytes}, found {size}"
        collector.reject_record(RawRecord(0, b""), Reason.LIMIT_EXCEEDED, message)
        yield collector.finish()
    elif extension == ".parquet":
        yield from decode_parquet(folder, path, file, digest, limits)
    elif extension == ".json":
        collector = Collector(folder, file, digest, limits)
        with Isolated(OSError) as attempt:
            decode_snapshot(collector, path, limits)
        if attempt.error is not None:
            collector = Collector(folder, file, digest, limits)
            message = f"expected a snapshot that can be decoded, found one at which the decoder failed: {attempt.text}"
            collector.reject_record(RawRecord(0, b""), Reason.UNREADABLE_FILE, message)
        yield collector.finish()
    else:
        yield from _decode_records(path, folder, extension, file, digest, limits)


def _decode_records(path: Path, folder: Folder, extension: str, file: str, digest: str, limits: Limits) -> Iterator[Decoded]:
    """Yield decoded chunks of a file that holds one record after another."""
    binary = extension in (".binpb", ".wal")
    likely = acceptor(folder, with_key=False)
    chunks = read_frames(path, extension, limits, acceptor(folder), likely) if binary else read_lines(path, extension, limits)
    text = TextDecoder(folder)

    def fresh() -> Collector:
        return Collector(folder, file, digest, limits)

    def decode(collector: Collector, chunk: Chunk) -> None:
        if binary:
            decode_binary(collector, chunk, extension, limits)
        else:
            text.decode(collector, chunk, limits)

    for chunk in chunks:
        collector = fresh()
        with Isolated() as attempt:
            decode(collector, chunk)
        if attempt.error is not None:
            collector = _decode_parts(fresh, decode, chunk)
        yield collector.finish()


def _decode_parts(fresh: Callable[[], Collector], decode: Callable[[Collector, Chunk], None], chunk: Chunk) -> Collector:
    """Decode a chunk on which the decoder raised; reject only the records that make it raise."""

    def decode_part(collector: Collector, first: int, last: int) -> None:
        decode(collector, Chunk(chunk.positions[first:last], chunk.raws[first:last], source=chunk.source))

    def reject(collector: Collector, row: int, error: str) -> None:
        collector.reject_record(RawRecord(chunk.positions[row], chunk.raws[row]), Reason.BAD_VALUE, error)

    collector = decode_each(fresh, len(chunk.raws), decode_part, reject)
    for frame in chunk.bad:
        collector.reject_record(RawRecord(frame.position, frame.raw), frame.reason, frame.message)
    return collector


def decode_packets(packets: Sequence[bytes]) -> dict[str, pa.Table]:
    """Return the contract rows of serialized SystemStatePackets, as offline decoding gives them.

    `export_digest` and `position` are NULL.

    Raises ContractError if a packet is bad.
    """
    limits = _LIMITS
    short = max(map(len, packets), default=0) <= min(limits.string_bytes, limits.elements)
    collector = Collector(FOLDERS["tolaria/system_state"], "", "", limits, placed=False, short=short)
    origin = Origin(np.arange(len(packets), dtype=np.int64), packets)
    for row, error in decode_messages(collector, "SystemStatePacket", packets, origin).items():
        raise ContractError(f"packet {row}: {error}")
    decoded = collector.finish()
    for rejects in decoded.rejects.values():
        raise ContractError(f"packet {rejects['position'][0].as_py()}: {rejects['message'][0].as_py()}")
    return decoded.tables
