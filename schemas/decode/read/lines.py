"""Read lines of a text export, plain or compressed, bounded in length, unpacked size and compression ratio."""

import codecs
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

from schemas.contracts import Reason
from schemas.decode.limits import Limits
from schemas.decode.read.framing import Chunk, Frame
from schemas.decode.read.unpack import Damage, unpack

_BLOCK: Final = 4 * 1024 * 1024
_GATHERED: Final = 1024 * 1024  # bytes that are cut into lines at once: few enough to stay in the cache
_KEPT: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_ZEROS: Final = re.compile(rb"\0{64,}")
_SQUEEZED: Final = b"\0" * 64
# the longer of two marks that begin alike comes first
WIDE: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NO_TEXT: Final = "\udcff"  # stands for bytes that are not a character; makes its line invalid UTF-8


class UnreadableText(ValueError):
    """The file can't be unpacked any further."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_lines(path: Path, extension: str, limits: Limits) -> Iterator[Chunk]:
    """Yield lines that are not blank, numbered from 1, in chunks.

    Lines that are too long, zeros beside a record, and stretches that can't be unpacked are bad pieces. A stretch counts as one
    line. A byte order mark at the start of a line is dropped.
    """
    splitter = _Splitter(limits)
    try:
        for block in _blocks(path, extension, limits):
            if isinstance(block, Damage):
                splitter.damage(Reason.UNREADABLE_FILE, f"expected {extension}, found damage: {block.message}")
            else:
                splitter.feed(block)
            while len(splitter.chunk.raws) >= limits.chunk_records or splitter.size >= limits.chunk_bytes:
                yield splitter.take()
        splitter.close()
    except UnreadableText as error:
        splitter.damage(error.reason, str(error))
    while splitter.chunk:
        yield splitter.take()


@dataclass
class _Splitter:
    """Cuts blocks into lines. `pending`: the unfinished line of the last block. `skipped`: its length once it is too long."""

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
        text = self.pending + block if self.pending else block
        lines = text.split(b"\n")
        self.pending = lines.pop()
        if b"\0" in text or (_BOM[:1] in text and _BOM in text):
            for line in lines:
                self._add(line)
        else:
            self._add_all(lines)
        if len(self.pending) > self.limits.record_bytes:
            self.pending = _ZEROS.sub(_SQUEEZED, self.pending)
        if len(self.pending) > self.limits.record_bytes:
            self.skipped = len(self.pending)
            self.pending = self.pending[:_KEPT]

    def _skip(self, block: bytes) -> bytes:
        """Drop the rest of a line that is too long; return the bytes after it."""
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
        """Add whole lines; go one by one if any is blank or too long."""
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
        if line[:1] == b"\0" or line[-1:] == b"\0":
            line = self._without_zeros(line)
        if len(line) > self.limits.record_bytes:
            message = f"record_bytes: expected at most {self.limits.record_bytes} bytes, found {len(line)}"
            self.chunk.bad.append(Frame(self.number, line[:_KEPT], Reason.LIMIT_EXCEEDED, message))
            return
        line = line.strip()
        while line.startswith(_BOM):
            line = line.removeprefix(_BOM).strip()
        if line:
            self.chunk.positions.append(self.number)
            self.chunk.raws.append(line)
            self.size += len(line)

    def _without_zeros(self, line: bytes) -> bytes:
        """Return a line without the zeros around its record (unused space of a preallocated file), noted as one piece."""
        inner = line.strip(b"\0")
        message = f"expected text, found {len(line) - len(inner)} zero bytes"
        zeros = line[: len(line) - len(line.lstrip(b"\0"))] or line[len(line.rstrip(b"\0")) :]
        self.chunk.bad.append(Frame(self.number, zeros[: len(_SQUEEZED)], Reason.INVALID_JSON, message))
        return inner

    def damage(self, reason: Reason, message: str) -> None:
        """End the line that the damage cuts, and note the damage as its own line."""
        self.close()
        self.number += 1
        self.chunk.bad.append(Frame(self.number, b"", reason, message))

    def close(self) -> None:
        """Add the last line, which may lack its newline."""
        if self.skipped:
            self._finish_skip()
        elif self.pending:
            self._add(self.pending)
            self.pending = b""

    def take(self) -> Chunk:
        """Return at most one chunk of lines; the others stay."""
        full, limit = self.chunk, self.limits.chunk_records
        self.chunk = Chunk(full.positions[limit:], full.raws[limit:])
        self.size = sum(map(len, self.chunk.raws))
        return Chunk(full.positions[:limit], full.raws[:limit], full.bad)


def _blocks(path: Path, extension: str, limits: Limits) -> Iterator[bytes | Damage]:
    """Yield blocks of UTF-8 text of the file, and the places where it is damaged. Raises UnreadableText beyond a limit."""
    pieces = _plain(path) if extension == ".ndjson" else _unpacked(path, extension, limits)
    first = next(pieces, b"")
    if isinstance(first, bytes) and (encoding := next((name for mark, name in WIDE if first.startswith(mark)), "")):
        yield from _transcoded(first, pieces, encoding)
    else:
        yield first
        yield from pieces


def _plain(path: Path) -> Iterator[bytes | Damage]:
    with path.open("rb") as stream:
        while block := stream.read(_GATHERED):
            yield block


def _unpacked(path: Path, extension: str, limits: Limits) -> Iterator[bytes | Damage]:
    """Yield unpacked pieces, gathered into blocks. Raises UnreadableText beyond a limit on unpacked bytes."""
    packed, total = path.stat().st_size, 0
    if not packed:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        gathered: list[bytes] = []
        size = 0
        for piece in unpack(data, extension):
            if isinstance(piece, Damage) or size >= _GATHERED:
                yield b"".join(gathered)
                gathered, size = [], 0
            if isinstance(piece, Damage):
                yield piece
                continue
            gathered.append(piece)
            size, total = size + len(piece), total + len(piece)
            try:
                _check_unpacked(total, packed, limits)
            except UnreadableText:
                yield b"".join(gathered)
                raise
        yield b"".join(gathered)


def _check_unpacked(total: int, packed: int, limits: Limits) -> None:
    """Raise UnreadableText if a bound on unpacked bytes is exceeded."""
    if total > limits.unpacked_bytes:
        message = f"unpacked_bytes: expected at most {limits.unpacked_bytes}, found more"
        raise UnreadableText(Reason.LIMIT_EXCEEDED, message)
    if total > _BLOCK and total > limits.compression_ratio * packed:
        message = f"compression_ratio: expected at most {limits.compression_ratio}, found {total // packed} or more"
        raise UnreadableText(Reason.LIMIT_EXCEEDED, message)


def _not_text(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement for bytes that are not a character, and where decoding resumes (a codec error handler)."""
    return _NO_TEXT, error.end if isinstance(error, UnicodeDecodeError) else 0


codecs.register_error("tamiyo.not_text", _not_text)


def _transcoded(first: bytes, pieces: Iterator[bytes | Damage], encoding: str) -> Iterator[bytes | Damage]:
    """Yield UTF-16 or UTF-32 text as UTF-8; a line with undecodable bytes becomes invalid UTF-8, and so a reject."""
    decoder = codecs.getincrementaldecoder(encoding)("tamiyo.not_text")
    for piece in chain([first], pieces):
        if isinstance(piece, Damage):
            yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
            yield piece
        else:
            yield decoder.decode(piece).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
