"""Split a binary export into records: varint-delimited `.binpb`, little-endian u32-delimited `.wal`."""

import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas.contracts import Reason
from schemas.decode.limits import Limits

TAIL_KEPT: Final = 1024 * 1024
_VARINT_BYTES: Final = 10
_NO_PREFIX: Final = -1
_ZEROS: Final = re.compile(rb"\0+")
_ZEROS_KEPT: Final = 64

Buffer = bytes | mmap.mmap
Prefix = Callable[[Buffer, int, int], tuple[int, int]]
Accepts = Callable[[bytes], bool]


@dataclass(frozen=True)
class Frame:
    """A piece of a file that is not a record, and why. `position` is its byte offset or line.

    `ends`: True if the end of the piece is known although its framing is bad.
    """

    position: int
    raw: bytes
    reason: Reason
    message: str
    ends: bool = False


@dataclass
class Chunk:
    """Consecutive records of a file (byte offset or line, and bytes), and the pieces between them that are not records.

    `source`: the bytes of the whole file if it consists of frames; valid only while its chunks are read.
    """

    positions: list[int] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    bad: list[Frame] = field(default_factory=list)
    source: Buffer = b""

    @property
    def broken(self) -> Frame | None:
        """The last piece if its framing failed and no length says where it ends; else None."""
        last = self.bad[-1] if self.bad else None
        if last is None or last.ends:
            return None
        return last if last.reason in (Reason.BAD_FRAMING, Reason.TORN_RECORD) else None

    def __bool__(self) -> bool:
        """Return whether anything was read."""
        return bool(self.raws or self.bad)


def prefix_of(extension: str) -> Prefix:
    """Return the function that reads the length before each record of a `.binpb` or `.wal` file."""
    return varint if extension == ".binpb" else u32


def read_frames(path: Path, extension: str, limits: Limits, accepts: Accepts, likely: Accepts | None = None) -> Iterator[Chunk]:
    """Yield records of the file in chunks bounded in number and bytes.

    If a length prefix leads to no record, reading resumes at the next place from which two records in a row, or the last one of
    the file, are accepted. The bytes in between are one bad piece.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 0
        while position < len(data):
            chunk = Chunk(source=data)
            position = _fill(chunk, data, position, prefix_of(extension), limits, accepts)
            if chunk.broken:
                position = _resume(chunk, data, prefix_of(extension), limits, accepts, likely)
            yield chunk
            # pages already read would count as memory of this process as long as the file is mapped
            data.madvise(mmap.MADV_DONTNEED)


def _fill(chunk: Chunk, data: mmap.mmap, position: int, prefix: Prefix, limits: Limits, accepts: Accepts) -> int:
    """Read records into `chunk` until it is full or the framing fails; return the offset to continue from."""
    end, size = len(data), 0
    positions, raws = chunk.positions, chunk.raws
    short = prefix is varint  # almost every length takes one or two bytes: read it without a call
    while position < end and len(raws) < limits.chunk_records and size < limits.chunk_bytes:
        first = data[position]
        if short and first >= 0x80 and position + 1 < end and (second := data[position + 1]) < 0x80:
            length, start = first & 0x7F | second << 7, position + 2
        elif short and 0 < first < 0x80:
            length, start = first, position + 1
        else:
            length, start = prefix(data, position, end)
        stop = start + length
        if not first and (length == 0 or stop > end):
            after = _after_zeros(data, position, prefix, limits, accepts)
            if after > position and (after != start or length):  # a length of zero alone is an empty record
                chunk.bad.append(_zeros(data, position, after))
                position = after
                continue
        if length == _NO_PREFIX or stop > end:
            chunk.bad.append(_broken(data, position, length, start))
            return end
        if length > limits.record_bytes:
            message = f"record_bytes: expected at most {limits.record_bytes} bytes, found {length}"
            chunk.bad.append(Frame(position, data[start : min(stop, start + TAIL_KEPT)], Reason.LIMIT_EXCEEDED, message))
        else:
            positions.append(position)
            raws.append(data[start:stop])
            size += length
        position = stop
    return position


def _after_zeros(data: Buffer, position: int, prefix: Prefix, limits: Limits, accepts: Accepts) -> int:
    """Return the offset after zeros that hold no record (a hole, or the tail of a preallocated file), else `position`.

    The first bytes of the length that follows may be zeros too.
    """
    zeros = _ZEROS.match(data, position)
    after = position if zeros is None else zeros.end()
    if prefix is varint or after == len(data):
        return after
    for start in range(after, max(position, after - 4), -1):
        length, first = prefix(data, start, len(data))
        if 0 < length <= min(limits.record_bytes, len(data) - first) and accepts(data[first : first + length]):
            return start
    return position + (after - position) // 4 * 4


def _zeros(data: Buffer, position: int, after: int) -> Frame:
    message = f"expected a record, found {after - position} zero bytes, as in a preallocated file"
    return Frame(position, data[position : min(after, position + _ZEROS_KEPT)], Reason.BAD_FRAMING, message, ends=True)


def _broken(data: mmap.mmap, position: int, length: int, start: int) -> Frame:
    """Return, as one bad piece of at most 1 MiB, the rest of the file from a record that is not complete in it."""
    rest = len(data) - position
    kept = "" if rest <= TAIL_KEPT else f"; the first {TAIL_KEPT} of {rest} bytes are kept"
    raw = data[position : position + TAIL_KEPT]
    if length == _NO_PREFIX:
        return Frame(position, raw, Reason.BAD_FRAMING, f"expected a length prefix, found none at byte {position}{kept}")
    found = f"expected {length} bytes, found {max(len(data) - start, 0)} before the end of the file"
    return Frame(position, raw, Reason.TORN_RECORD, f"{found} at byte {position}{kept}")


def _resume(chunk: Chunk, data: mmap.mmap, prefix: Prefix, limits: Limits, accepts: Accepts, likely: Accepts | None) -> int:
    """Cut a broken frame where reading can resume; return that offset."""
    broken = chunk.bad[-1]
    found = find_record(data, broken.position + 1, len(data), prefix, limits, accepts, likely)
    if found is None:
        return len(data)
    raw = data[broken.position : min(found, broken.position + TAIL_KEPT)]
    message = f"{broken.message}; records go on at byte {found}"
    chunk.bad[-1] = Frame(broken.position, raw, Reason.BAD_FRAMING, message)
    return found


def find_record(
    data: Buffer, first: int, end: int, prefix: Prefix, limits: Limits, accepts: Accepts, likely: Accepts | None = None
) -> int | None:
    """Return the offset in first..end of the next accepted record that another record or `end` follows; None if there is none.

    `likely`: the test of the record that follows (None: `accepts`). Looks at no more than `limits.resync_bytes` offsets, and
    parses at most 16 times that many bytes.
    """
    budget = 16 * limits.resync_bytes
    for position in range(first, min(end, first + limits.resync_bytes)):
        at, good = position, 0
        while good < 2 and at < end:
            length, start = prefix(data, at, end)
            if not 2 <= length <= min(limits.record_bytes, end - start, budget):
                break
            budget -= length
            if not (accepts if not good or likely is None else likely)(data[start : start + length]):
                break
            at, good = start + length, good + 1
            if at < end and data[at] == 0:
                at = max(at, _after_zeros(data, at, prefix, limits, accepts))
        if good == 2 or (good == 1 and at == end):
            return position
        if budget <= 0:
            return None
    return None


def varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return (length, start of the record); length is -1 without a varint, and beyond `end` if the file ends inside it."""
    value = 0
    for index in range(_VARINT_BYTES):
        if position + index >= end:
            return end + 1, position + index
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    return _NO_PREFIX, position


def u32(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return (length, start of the record) of a little-endian u32 prefix."""
    if position + 4 > end:
        return end + 1, end
    return int.from_bytes(data[position : position + 4], "little"), position + 4
