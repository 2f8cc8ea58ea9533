"""Good records that a damaged length prefix hides: where records of a chunk are bad, their bytes are searched for others."""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.contracts import TABLES, Folder, Reason
from schemas.decode.batches import descriptor, message_class
from schemas.decode.envelope import ENVELOPE
from schemas.decode.framing import Chunk, Frame, find_record, prefix_of
from schemas.decode.limits import Limits

_MESSAGE: Final = "expected a record, found bytes that are none; good records follow"


def acceptor(folder: Folder, drift: bool = False) -> Callable[[bytes], bool]:
    """Whether bytes are a record of the folder: they parse and have its key, and nothing undeclared unless `drift`."""
    kinds = [(message_class(name), _key_fields(folder, name)) for name in folder.messages]

    def accepts(raw: bytes) -> bool:
        for kind, fields in kinds:
            try:
                message = kind.FromString(raw)
            except DecodeError:
                continue
            if all(_is_set(message, field) for field in fields) and (drift or len(UnknownFieldSet(message)) == 0):
                return True
        return False

    return accepts


def _key_fields(folder: Folder, message: str) -> list[str]:
    """Fields of a message that are set in every record of its contract."""
    if message == ENVELOPE:
        return ["message_type", "payload"]
    if message == "BSDSIssued":
        return ["bsds"]
    table = TABLES[folder.record]
    declared = descriptor(message).fields_by_name
    key = [table.column[name].field_path for name in table.key if name not in table.nullable_key]
    return [name for name in key if name in declared]


def _is_set(message: Any, field: str) -> bool:
    if message.DESCRIPTOR.fields_by_name[field].has_presence:
        return bool(message.HasField(field))
    return bool(getattr(message, field))


def mend(chunk: Chunk, errors: dict[int, str], folder: Folder, extension: str, limits: Limits) -> Chunk | None:
    """The chunk with the records that hide in its bad stretches; None where there are none to be found."""
    stretches = _stretches(chunk, set(errors), acceptor(folder, drift=True))
    search = _Search(extension, limits, acceptor(folder))
    mended = Chunk(bad=[frame for frame in chunk.bad if frame is not chunk.broken])
    done, found = 0, False
    for first, last in stretches:
        _keep(mended, chunk, done, first)
        tail = chunk.broken if last == len(chunk.raws) else None
        if search.recover(chunk, first, min(last, len(chunk.raws)), tail, mended):
            found = True
        else:
            _keep(mended, chunk, first, last)
            mended.bad += [tail] if tail else []
        done = min(last, len(chunk.raws))
    _keep(mended, chunk, done, len(chunk.raws))
    if chunk.broken and not any(last == len(chunk.raws) for _, last in stretches):
        mended.bad.append(chunk.broken)
    return mended if found else None


def _keep(mended: Chunk, chunk: Chunk, first: int, last: int) -> None:
    mended.positions += chunk.positions[first:last]
    mended.raws += chunk.raws[first:last]


def _stretches(chunk: Chunk, bad: set[int], accepts: Callable[[bytes], bool]) -> list[tuple[int, int]]:
    """Stretches first..last (exclusive) of rows that do not parse, with the rows beside them that have no key either."""
    rows = len(chunk.raws)
    marks = set(bad)
    for edge in sorted(bad | ({rows} if chunk.broken else set())):
        for step in (-1, 1):
            row = edge + step
            while 0 <= row < rows and row not in marks and not accepts(chunk.raws[row]):
                marks.add(row)
                row += step
    stretches: list[tuple[int, int]] = []
    for row in sorted(marks):
        if stretches and row == stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], row + 1)
        else:
            stretches.append((row, row + 1))
    return stretches


class _Search:
    """Looks for good records inside bad stretches, within one chunk's budget of bytes."""

    def __init__(self, extension: str, limits: Limits, accepts: Callable[[bytes], bool]) -> None:
        self._prefix, self._fixed = prefix_of(extension), extension == ".wal"
        self._limits, self._accepts, self._budget = limits, accepts, limits.resync_bytes

    def recover(self, chunk: Chunk, first: int, last: int, tail: Frame | None, mended: Chunk) -> bool:
        """Add to `mended` what hides in rows first..last and the broken piece after them; False where nothing does."""
        region = b"".join(map(self._framed, chunk.raws[first:last])) + (tail.raw if tail else b"")
        if len(region) > self._budget:
            return False
        self._budget -= len(region)
        base, at = chunk.positions[first], self._next(region, 1)
        if at is None:
            return False
        whole = [row for row in range(first, last) if row > first and chunk.positions[row] - base <= at]
        start = chunk.positions[whole[-1]] - base if whole else 0
        _keep(mended, chunk, first, whole[-1] if whole else first)
        while at is not None:
            if at > start:
                mended.bad.append(Frame(base + start, region[start:at], Reason.INVALID_PROTOBUF, _MESSAGE))
            start = self._consume(region, at, base, mended)
            at = self._next(region, start + 1)
        if start < len(region):
            rest = Frame(base + start, region[start:], Reason.INVALID_PROTOBUF, "expected a record, found bytes that are none")
            mended.bad.append(rest)
        return True

    def _next(self, region: bytes, first: int) -> int | None:
        return find_record(region, first, len(region), self._prefix, self._limits, self._accepts)

    def _consume(self, region: bytes, at: int, base: int, mended: Chunk) -> int:
        """Take the accepted records from `at` on; the offset after the last."""
        while at < len(region):
            length, start = self._prefix(region, at, len(region))
            raw = region[start : start + length]
            if not 0 < length <= len(region) - start or not self._accepts(raw):
                break
            mended.positions.append(base + at)
            mended.raws.append(raw)
            at = start + length
        return at

    def _framed(self, raw: bytes) -> bytes:
        """A record with the length before it."""
        length = len(raw)
        if self._fixed:
            return length.to_bytes(4, "little") + raw
        prefix = bytearray()
        while length >= 0x80:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([*prefix, length]) + raw
