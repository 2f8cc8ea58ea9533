"""Lines of a text export, plain or compressed, bounded in length, unpacked size and compression ratio."""

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import zstandard

from schemas.contracts import Reason
from schemas.decode.framing import Frame
from schemas.decode.limits import Limits

_BLOCK: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


@contextmanager
def _opened(path: Path, extension: str) -> Iterator[BinaryIO]:
    """The unpacked bytes of the file."""
    with path.open("rb") as stream:
        if extension.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield cast(BinaryIO, unpacked)
        elif extension.endswith(".zst"):
            with zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield stream


def read_lines(path: Path, extension: str, limits: Limits) -> Iterator[Frame]:
    """Lines that are not blank, numbered from 1; what can't be unpacked or is too long is one Frame with its reason."""
    number, pending = 0, b""
    blocks = _blocks(path, extension, limits)
    for block in blocks:
        if isinstance(block, Frame):
            if pending.strip():
                number += 1
                yield Frame(number, pending)
            yield Frame(number + 1, block.raw, block.reason, block.message)
            return
        lines = (pending + block).split(b"\n")
        pending = lines.pop()
        for line in lines:
            number += 1
            if line.strip():
                yield _bounded(number, line, limits)
        if len(pending) > limits.record_bytes:
            number += 1
            pending = yield from _skip_line(number, pending, blocks, limits)
    if pending.strip():
        yield _bounded(number + 1, pending, limits)


def _bounded(number: int, line: bytes, limits: Limits) -> Frame:
    """A line, or its head with the reason that it is too long."""
    if len(line) <= limits.record_bytes:
        return Frame(number, line.strip())
    message = f"record_bytes: expected at most {limits.record_bytes} bytes, found {len(line)}"
    return Frame(number, line[:_BLOCK], Reason.LIMIT_EXCEEDED, message)


def _skip_line(number: int, head: bytes, blocks: Iterator[bytes | Frame], limits: Limits) -> Generator[Frame, None, bytes]:
    """Read to the end of a line that is too long, keeping only its head; returns what follows it."""
    length = len(head)
    message = f"record_bytes: expected at most {limits.record_bytes} bytes, found a line of"
    for block in blocks:
        if isinstance(block, Frame):
            break
        line, newline, rest = block.partition(b"\n")
        length += len(line)
        if newline:
            yield Frame(number, head[:_BLOCK], Reason.LIMIT_EXCEEDED, f"{message} {length}")
            return rest
    yield Frame(number, head[:_BLOCK], Reason.LIMIT_EXCEEDED, f"{message} {length}")
    return b""


def _blocks(path: Path, extension: str, limits: Limits) -> Iterator[bytes | Frame]:
    """Unpacked blocks of the file; a Frame with the reason, and no more, where it is damaged or unpacks to too much."""
    packed = path.stat().st_size
    total = 0
    with _opened(path, extension) as stream:
        while True:
            try:
                block = stream.read(_BLOCK)
            except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
                yield Frame(0, b"", Reason.UNREADABLE_FILE, f"expected {extension}, found damage after {total} bytes: {error}")
                return
            if not block:
                return
            if total == 0:
                block = block.removeprefix(_BOM)
            total += len(block)
            message = _excess(total, packed, extension, limits)
            if message:
                yield Frame(0, b"", Reason.LIMIT_EXCEEDED, message)
                return
            yield block


def _excess(total: int, packed: int, extension: str, limits: Limits) -> str:
    """Which bound on unpacked bytes is exceeded; empty where none is."""
    if extension == ".ndjson":
        return ""
    if total > limits.unpacked_bytes:
        return f"unpacked_bytes: expected at most {limits.unpacked_bytes} bytes, found more"
    if total > _BLOCK and total > limits.compression_ratio * packed:
        return f"compression_ratio: expected at most {limits.compression_ratio}, found {total / packed:.0f} or more"
    return ""
