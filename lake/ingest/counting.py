"""Count the records of an export file with a reader that shares no code with the decoder.

It reads lengths of frames, ends of lines, members of a JSON object and the footer of a Parquet file, but no values.
"""

import codecs
import gzip
import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Ints = npt.NDArray[np.int64]

_WINDOW: Final = 2 * 1024 * 1024  # bytes of a file of frames that are read at once; fits into the cache of one core
_BLOCK: Final = 1024 * 1024
_CACHED: Final = 256 * 1024  # bytes that stay in a core's cache
_SMALL: Final = 4096  # packed bytes that are unpacked at once: at most the output of these is missed before damage
_NEWLINE: Final = 0x0A
_BLANK: Final = b" \t\r\x0b\x0c"
_MARK: Final = b"\xef\xbb\xbf"
_ODD: Final = np.isin(np.arange(256), list(_BLANK + _MARK[:1]))
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE: Final = tuple(mark for mark, _ in _MARKS)
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}:]', re.DOTALL)
_COUNTED: Final = 10_000  # most lost frames that are counted in one place
_MOST: Final = 2**40  # rows; a footer that claims more is damaged


@dataclass(frozen=True)
class Lines:
    """Numbers (from 1) of the lines that are not blank. `whole`: the file could be read to its end."""

    numbers: Ints
    whole: bool


def count_line_ends(path: Path, size: int) -> int | None:
    """Count all lines of a plain text export of `size` bytes; None if the last lacks its newline or text is not UTF-8."""
    if size <= _CACHED:
        small = path.read_bytes()
        return None if small.startswith(_WIDE) or not small.endswith(b"\n") else small.count(b"\n")
    buffer = bytearray(_CACHED)
    data, ends = np.frombuffer(buffer, np.uint8), np.empty(_CACHED, np.bool_)
    count, last = 0, _NEWLINE
    with path.open("rb", buffering=0) as stream:
        while read := stream.readinto(buffer):
            if not count and buffer.startswith(_WIDE):
                return None
            count += int(np.count_nonzero(np.equal(data[:read], _NEWLINE, out=ends[:read])))
            last = int(data[read - 1])
    return count if last == _NEWLINE else None


def count_lines(path: Path, extension: str, most: int) -> Lines:
    """Return the lines of a text export, up to any damage; read at most about `most` bytes of text."""
    found: list[Ints] = []
    before, size, whole = 0, 0, True
    pending = b""
    try:
        for block in _utf8(_unpacked(path, extension)):
            text = pending + block
            cut = text.rfind(b"\n") + 1
            pending = text[cut:]
            numbers, lines = _numbers(text[:cut])
            found.append(numbers + before)
            before, size = before + lines, size + len(block)
            if size > most:
                whole = False
                break
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        whole = False
    if whole and pending:
        found.append(_numbers(pending + b"\n")[0] + before)
    return Lines(np.concatenate(found) if found else np.zeros(0, np.int64), whole)


def _numbers(text: bytes) -> tuple[Ints, int]:
    """Return the numbers (from 1) of the lines of `text` that are not blank, and the count of all lines."""
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    if not len(ends):
        return np.zeros(0, np.int64), 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    filled = ends > starts
    for line in np.flatnonzero(filled & _ODD[data[starts]]).tolist():
        rest = text[starts[line] : ends[line]].strip(_BLANK)
        while rest.startswith(_MARK):
            rest = rest.removeprefix(_MARK).strip(_BLANK)
        filled[line] = bool(rest)
    return np.flatnonzero(filled).astype(np.int64) + 1, len(ends)


def _unpacked(path: Path, extension: str) -> Iterator[bytes]:
    """Yield blocks of the unpacked file. Raises the unpacker's errors, and EOFError for a stream that ends early."""
    with path.open("rb") as stream:
        if extension.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while block := unpacked.read(_SMALL * 16):
                    yield block
        elif extension.endswith(".zst"):
            yield from _frames(stream)
        else:
            while block := stream.read(_BLOCK):
                yield block


def _frames(stream: BinaryIO) -> Iterator[bytes]:
    packed = stream.read(_SMALL)
    while packed:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while not frame.eof:
            if not packed:
                raise EOFError("a zstd frame without its end")
            yield frame.decompress(packed)
            packed = frame.unused_data or stream.read(_SMALL)
    return


def _utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks of text as UTF-8, decoded by the byte order mark at the start."""
    first = next(blocks, b"")
    encoding = next((name for mark, name in _MARKS if first.startswith(mark)), None)
    if encoding is None:
        yield first
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first).encode()
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()


def frame_ends(path: Path, extension: str, positions: Ints) -> Ints:
    """Return the offset after the frame at each of the sorted positions, by its length prefix (int64 [n])."""
    ends = np.zeros(len(positions), np.int64)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        cuts = np.searchsorted(positions, np.arange(0, len(mapped) + _WINDOW, _WINDOW)).tolist()
        for low, high in pairwise(cuts):
            if low < high:
                at = positions[low:high]
                lengths, widths = (_fixed if extension == ".wal" else _varints)(mapped, at)
                ends[low:high] = at + widths + lengths
                # pages already read would count as memory of this process
                mapped.madvise(mmap.MADV_DONTNEED)
    return ends


def _bytes(mapped: mmap.mmap, at: Ints) -> npt.NDArray[np.uint8]:
    """Return the bytes at sorted offsets (uint8 [n]); zero beyond the end."""
    data = np.frombuffer(mapped, np.uint8)
    inside = len(at) if at[-1] < len(data) else int(np.searchsorted(at, len(data)))
    found = data[at[:inside]]
    return found if inside == len(at) else np.concatenate([found, np.zeros(len(at) - inside, np.uint8)])


def _fixed(mapped: mmap.mmap, at: Ints) -> tuple[Ints, Ints]:
    columns = [_bytes(mapped, at + place) for place in range(4)]
    lengths = np.column_stack(columns).view("<u4")[:, 0]
    return lengths.astype(np.int64), np.full(len(at), 4, np.int64)


def _varints(mapped: mmap.mmap, at: Ints) -> tuple[Ints, Ints]:
    byte = _bytes(mapped, at)
    lengths, widths = (byte & 0x7F).astype(np.int64), np.ones(len(at), np.int64)
    more = np.flatnonzero(byte >= 0x80)
    for place in range(1, 5):
        if not len(more):
            break
        byte = _bytes(mapped, at[more] + place)
        lengths[more] += (byte & 0x7F).astype(np.int64) << (7 * place)
        widths[more] += 1
        more = more[byte >= 0x80]
    return lengths, widths


def count_frames(path: Path, extension: str, first: int, last: int) -> int:
    """Count the frames between two offsets, at least one; an estimate if the bytes are not all frames."""
    count = 0
    while first < last and count < _COUNTED:
        first = int(frame_ends(path, extension, np.array([first], np.int64))[0])
        count += 1
    return max(count, 1)


def is_zero(path: Path, first: int, last: int) -> bool:
    """Return whether all bytes between two offsets are zero."""
    with path.open("rb") as stream:
        stream.seek(first)
        while first < last and (block := stream.read(min(_BLOCK, last - first))):
            if block.strip(b"\0"):
                return False
            first += len(block)
    return True


def count_members(path: Path) -> int:
    """Count the members of the JSON object in a file, up to any damage."""
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    depth = count = 0
    for token in _TOKEN.finditer(data.decode(encoding, "replace")):
        mark = token[0]
        depth += (mark in "[{") - (mark in "]}")
        count += depth == 1 and mark == ":"
    return count


def count_rows(path: Path) -> int | None:
    """Return the number of rows of a Parquet file by its footer; None if the footer can't be read."""
    try:
        footer = pq.read_metadata(path)
        groups = [min(max(int(footer.row_group(index).num_rows), 0), _MOST) for index in range(footer.num_row_groups)]
        return max(sum(groups), min(max(int(footer.num_rows), 0), _MOST))
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError):
        return None
