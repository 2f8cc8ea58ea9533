"""Splitting a binary export into records: varint-delimited `.binpb`, little-endian u32-delimited `.wal`."""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.contracts import Reason
from schemas.decode.limits import Limits

_TAIL_KEPT = 1024 * 1024
_VARINT_BYTES = 10
_Prefix = Callable[[mmap.mmap, int, int], tuple[int, int]]


@dataclass(frozen=True)
class Frame:
    """One record (`reason` None) or one piece of the file that is none. `position` is the byte offset of its length."""

    position: int
    raw: bytes
    reason: Reason | None = None
    message: str = ""


def read_frames(path: Path, extension: str, limits: Limits) -> Iterator[Frame]:
    """Records of a `.binpb` or `.wal` file in order; what can't be split is one Frame with its reason."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        prefix = _varint if extension == ".binpb" else _u32
        yield from _frames(data, prefix, limits)


def _frames(data: mmap.mmap, prefix: _Prefix, limits: Limits) -> Iterator[Frame]:
    end = len(data)
    position = 0
    while position < end:
        length, start = prefix(data, position, end)
        if length < 0:
            yield _tail(data, position, Reason.BAD_FRAMING, "expected a length prefix, found none")
            return
        stop = start + length
        if stop > end:
            message = f"expected {length} bytes, found {max(end - start, 0)} before the end of the file"
            yield _tail(data, position, Reason.TORN_RECORD, message)
            return
        if length > limits.record_bytes:
            message = f"record_bytes: expected at most {limits.record_bytes} bytes, found {length}"
            yield Frame(position, data[start : min(stop, start + _TAIL_KEPT)], Reason.LIMIT_EXCEEDED, message)
        else:
            yield Frame(position, data[start:stop])
        position = stop


def _tail(data: mmap.mmap, position: int, reason: Reason, message: str) -> Frame:
    """The rest of the file as one bad record; at most 1 MiB of it is kept."""
    rest = len(data) - position
    kept = "" if rest <= _TAIL_KEPT else f"; the first {_TAIL_KEPT} of {rest} bytes are kept"
    return Frame(position, data[position : position + _TAIL_KEPT], reason, f"{message} at byte {position}{kept}")


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """(length, start of the record); length -1 where there is no varint. One that the file ends inside needs 1 more byte."""
    value = 0
    for index in range(_VARINT_BYTES):
        if position + index >= end:
            return end + 1, position + index
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    return -1, position


def _u32(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """(length, start of the record) of a little-endian u32 prefix."""
    if position + 4 > end:
        return end + 1, end
    return int.from_bytes(data[position : position + 4], "little"), position + 4
