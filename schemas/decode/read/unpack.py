"""Unpack a `.gz` or `.zst` file: all bytes up to damage, then on from the next whole member or frame."""

import mmap
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final

import zstandard

Buffer = bytes | mmap.mmap

_PACKED: Final = 64 * 1024  # bytes that are inflated at once
_UNPACKED: Final = 256 * 1024  # most bytes that one step gives
_TRIED: Final = 64 * 1024  # unpacked bytes that show that a member begins after damage
_GZIP: Final = b"\x1f\x8b\x08"
_GZIP_HEADER: Final = 10
_TRAILER: Final = 8
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"  # after one byte 0x50..0x5f
_BLOCK: Final = 128 * 1024  # a zstd block is never larger
_RLE, _RESERVED_BLOCK = 1, 3


@dataclass(frozen=True)
class Damage:
    """A place (byte offset in the file) at which unpacking a member fails, and why."""

    offset: int
    message: str


class _Broken(ValueError):
    """A member that ends in damage. `resume`: offset at which the search for the next member begins."""

    def __init__(self, offset: int, message: str, resume: int) -> None:
        super().__init__(message)
        self.damage = Damage(offset, message)
        self.resume = resume


Pieces = Generator[bytes, None, int]
Member = Callable[[Buffer, int], Pieces]


def unpack(data: Buffer, extension: str) -> Iterator[bytes | Damage]:
    """Yield bounded pieces of the unpacked text, and each Damage; `extension` ends in `.gz` or `.zst`."""
    member, magic = (_gzip_member, _GZIP) if extension.endswith(".gz") else (_zstd_frame, _ZSTD)
    at = 0
    while at < len(data):
        try:
            at = yield from member(data, at)
        except _Broken as broken:
            yield broken.damage
            at = _next(data, broken.resume, member, magic)


def _next(data: Buffer, first: int, member: Member, magic: bytes) -> int:
    """Return the offset of the next member that can be unpacked at least in part; the end of the data if there is none."""
    at = data.find(magic, first)
    while at >= 0:
        pieces, size = member(data, at), 0
        try:
            while size < _TRIED:
                size += len(next(pieces))
        except StopIteration:
            return at
        except _Broken:
            at = data.find(magic, at + 1)
        else:
            return at
    return len(data)


def _gzip_member(data: Buffer, start: int) -> Pieces:
    """Yield the unpacked pieces of one gzip member; return the offset after it and after zeros that pad it."""
    at = _gzip_body(data, start)
    inflate, crc, size = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    pending, more = b"", False
    while not inflate.eof:
        if not pending and not more:
            pending = data[at : at + _PACKED]
            at += len(pending)
            if not pending:
                raise _Broken(len(data), "the stream ends early", start + 1)
        before = inflate.copy()
        try:
            piece = inflate.decompress(pending, _UNPACKED)
        except zlib.error as error:
            yield _salvaged(before, pending)
            raise _Broken(at - len(pending), str(error), start + 1) from None
        pending, more = inflate.unconsumed_tail, len(piece) == _UNPACKED
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        yield piece
    at -= len(inflate.unused_data)
    end = at + _TRAILER
    if end > len(data):
        raise _Broken(len(data), "the stream ends early, inside its checksum", len(data))
    if data[at:end] != crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise _Broken(at, "the checksum is that of other bytes", start + 1)
    while data[end : end + 1] == b"\0":
        end += 1
    return end


def _salvaged(inflate: "zlib._Decompress", pending: bytes) -> bytes:
    """Return the unpacked bytes before the place at which the packed bytes are damaged."""
    found = bytearray()
    try:
        while not inflate.eof and len(found) < _UNPACKED:
            piece = inflate.decompress(pending, 1)
            if not piece:
                break
            found += piece
            pending = inflate.unconsumed_tail
    except zlib.error:
        return bytes(found)
    return bytes(found)


def _gzip_body(data: Buffer, start: int) -> int:
    """Return the offset of the packed bytes after a member's header. Raises _Broken if there is no header."""
    if data[start : start + 3] != _GZIP[: len(data) - start]:
        raise _Broken(start, f"expected a gzip member, found other bytes at byte {start}", start + 1)
    flags = data[start + 3] if start + 3 < len(data) else 0
    if flags & _RESERVED:
        raise _Broken(start, f"expected a gzip member, found unknown flags at byte {start}", start + 1)
    at = start + _GZIP_HEADER
    if flags & _EXTRA:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            end = data.find(b"\0", at)
            at = len(data) + 1 if end < 0 else end + 1
    at += 2 if flags & _HEADER_CRC else 0
    if at > len(data):
        raise _Broken(len(data), "the stream ends early, inside its header", len(data))
    return at


def _zstd_frame(data: Buffer, start: int) -> Pieces:
    """Yield one zstd frame block by block, so that everything before damage is given; return the offset after the frame."""
    magic = data[start : start + 4]
    if magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50:
        end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        if end > len(data):
            raise _Broken(len(data), "the stream ends early, inside a skippable frame", len(data))
        return end
    at, has_checksum = _zstd_body(data, start)
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        unpacker.decompress(data[start:at])
        last = False
        while not last:
            end, last = _zstd_block(data, at)
            yield unpacker.decompress(data[at:end])
            at = end
        if not unpacker.eof and has_checksum:
            end = at + 4
            if end > len(data):
                raise _Broken(len(data), "the stream ends early, inside its checksum", len(data))
            unpacker.decompress(data[at:end])
            at = end
    except zstandard.ZstdError as error:
        raise _Broken(at, str(error), start + 4) from None
    if not unpacker.eof:
        raise _Broken(at, "expected the end of a zstd frame, found none", start + 4)
    return at


def _zstd_body(data: Buffer, start: int) -> tuple[int, bool]:
    """Return the offset of a frame's first block, and whether a checksum follows the last block. Raises _Broken."""
    if data[start : start + 4] != _ZSTD[: len(data) - start]:
        raise _Broken(start, f"expected a zstd frame, found other bytes at byte {start}", start + 1)
    descriptor = data[start + 4] if start + 4 < len(data) else 0
    single, size = descriptor >> 5 & 1, descriptor >> 6
    at = start + 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (1 if single and not size else (0, 2, 4, 8)[size])
    if at > len(data):
        raise _Broken(len(data), "the stream ends early, inside its header", len(data))
    return at, bool(descriptor & 4)


def _zstd_block(data: Buffer, at: int) -> tuple[int, bool]:
    """Return the offset after a block, and whether it is the frame's last. Raises _Broken."""
    header = int.from_bytes(data[at : at + 3], "little")
    kind, size = header >> 1 & 3, header >> 3
    end = at + 3 + (1 if kind == _RLE else size)
    if end > len(data) or at + 3 > len(data):
        raise _Broken(len(data), "the stream ends early", at + 1)
    if kind == _RESERVED_BLOCK or size > _BLOCK:
        raise _Broken(at, f"expected a zstd block, found other bytes at byte {at}", at + 1)
    return end, bool(header & 1)
