"""Lines of a text export, plain or compressed, bounded in length, unpacked size and compression ratio."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import zstandard

from schemas.contracts import Reason
from schemas.decode.framing import Chunk, Frame
from schemas.decode.limits import Limits

_BLOCK: Final = 4 * 1024 * 1024
_KEPT: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_DAMAGE: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError)


class UnreadableText(ValueError):
    """The file can't be unpacked any further."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_lines(path: Path, extension: str, limits: Limits) -> Iterator[Chunk]:
    """Lines that are not blank, numbered from 1, in chunks; a line that is too long, or damage to the file, is a bad piece."""
    splitter = _Splitter(limits)
    try:
        for block in _blocks(path, extension, limits):
            splitter.feed(block)
            while len(splitter.chunk.raws) >= limits.chunk_records or splitter.size >= limits.chunk_bytes:
                yield splitter.take()
        splitter.close()
    except UnreadableText as error:
        splitter.close()
        splitter.chunk.bad.append(Frame(splitter.number + 1, b"", error.reason, str(error)))
    while splitter.chunk:
        yield splitter.take()


@dataclass
class _Splitter:
    """Cuts blocks into lines. `pending` is the line that the last block ended in, `skipped` its length once it is too long."""

    limits: Limits
    chunk: Chunk = field(default_factory=Chunk)
    number: int = 0
    size: int = 0
    pending: bytes = b""
    skipped: int = 0

    def feed(self, block: bytes) -> None:
        """Add a block of the file."""
        if self.skipped:
            block = self._skip(block)
        lines = (self.pending + block).split(b"\n") if self.pending else block.split(b"\n")
        self.pending = lines.pop()
        self._add_all(lines)
        if len(self.pending) > self.limits.record_bytes:
            self.skipped = len(self.pending)
            self.pending = self.pending[:_KEPT]

    def _skip(self, block: bytes) -> bytes:
        """Drop the rest of a line that is too long; what follows it."""
        rest, newline, after = block.partition(b"\n")
        self.skipped += len(rest)
        if newline:
            self._finish_skip()
        return after

    def _finish_skip(self) -> None:
        self.number += 1
        message = f"record_bytes: expected at most {self.limits.record_bytes} bytes, found {self.skipped}"
        self.chunk.bad.append(Frame(self.number, self.pending, Reason.LIMIT_EXCEEDED, message))
        self.pending, self.skipped = b"", 0

    def _add_all(self, lines: list[bytes]) -> None:
        """Add whole lines; one by one where any is blank or too long."""
        stripped = list(map(bytes.strip, lines))
        sizes = list(map(len, stripped))
        if sizes and min(sizes) > 0 and max(map(len, lines)) <= self.limits.record_bytes:
            self.chunk.positions += range(self.number + 1, self.number + 1 + len(lines))
            self.chunk.raws += stripped
            self.number += len(lines)
            self.size += sum(sizes)
            return
        for line in lines:
            self._add(line)

    def _add(self, line: bytes) -> None:
        self.number += 1
        if len(line) > self.limits.record_bytes:
            message = f"record_bytes: expected at most {self.limits.record_bytes} bytes, found {len(line)}"
            self.chunk.bad.append(Frame(self.number, line[:_KEPT], Reason.LIMIT_EXCEEDED, message))
            return
        line = line.strip()
        if line:
            self.chunk.positions.append(self.number)
            self.chunk.raws.append(line)
            self.size += len(line)

    def close(self) -> None:
        """The last line, which may lack its newline."""
        if self.skipped:
            self._finish_skip()
        elif self.pending:
            self._add(self.pending)
            self.pending = b""

    def take(self) -> Chunk:
        """At most a chunk's number of lines; the others stay."""
        full, limit = self.chunk, self.limits.chunk_records
        self.chunk = Chunk(full.positions[limit:], full.raws[limit:])
        self.size = sum(map(len, self.chunk.raws))
        return Chunk(full.positions[:limit], full.raws[:limit], full.bad)


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


def _blocks(path: Path, extension: str, limits: Limits) -> Iterator[bytes]:
    """Unpacked blocks of the file. Raises UnreadableText where it is damaged or unpacks to too much."""
    packed = path.stat().st_size
    total = 0
    with _opened(path, extension) as stream:
        while True:
            try:
                block = stream.read(_BLOCK)
            except _DAMAGE as error:
                message = f"expected {extension}, found damage after {total} unpacked bytes: {error}"
                raise UnreadableText(Reason.UNREADABLE_FILE, message) from None
            if not block:
                return
            yield block.removeprefix(_BOM) if total == 0 else block
            total += len(block)
            _check_unpacked(total, packed, extension, limits)


def _check_unpacked(total: int, packed: int, extension: str, limits: Limits) -> None:
    """Raise UnreadableText where a bound on unpacked bytes is exceeded."""
    if extension == ".ndjson":
        return
    if total > limits.unpacked_bytes:
        message = f"unpacked_bytes: expected at most {limits.unpacked_bytes}, found more"
        raise UnreadableText(Reason.LIMIT_EXCEEDED, message)
    if total > _BLOCK and total > limits.compression_ratio * packed:
        message = f"compression_ratio: expected at most {limits.compression_ratio}, found {total // packed} or more"
        raise UnreadableText(Reason.LIMIT_EXCEEDED, message)
