"""Recover good records that a damaged length prefix hides, by searching the bytes of bad records."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from schemas.contracts import FOLDERS, TABLES, Folder, Reason
from schemas.contracts.enums import ENUMS
from schemas.contracts.oona import ENVELOPE, ROUTES
from schemas.decode.limits import Limits
from schemas.decode.read.batches import descriptor, message_class
from schemas.decode.read.framing import Chunk, Frame, find_record, prefix_of

_LEAD: Final = 32  # bytes of the record before a bad stretch that are also searched
_MESSAGE: Final = "expected a record, found other bytes; good records follow"


@lru_cache(maxsize=64)
def acceptor(folder: Folder, with_key: bool = True) -> Callable[[bytes], bool]:
    """Return the test for bytes that are surely a record of the folder: they parse, have its key and no undeclared field.

    Nested messages hold no undeclared field either. `with_key=False` omits the key: enough for a neighbour of a sure record.
    """
    if folder.messages == (ENVELOPE,):
        return _accepts_envelope
    kinds = [(message_class(name), _key_fields(folder, name) if with_key else []) for name in folder.messages]

    def accepts(raw: bytes) -> bool:
        for kind, fields in kinds:
            try:
                message = kind.FromString(raw)
            except DecodeError:
                continue
            if all(_is_set(message, field) for field in fields):
                message.DiscardUnknownFields()
                if message.ByteSize() == len(raw):
                    return True
        return False

    return accepts


def _accepts_envelope(raw: bytes) -> bool:
    """Return whether bytes are an envelope that holds a record of the contract that its message type names."""
    try:
        envelope = message_class(ENVELOPE).FromString(raw)
    except DecodeError:
        return False
    kind = ENUMS["BusMessageType"].text(envelope.message_type)
    if kind not in ROUTES:
        return kind in ENUMS["BusMessageType"].numbers
    return acceptor(FOLDERS[ROUTES[kind][1]])(envelope.payload)


def _key_fields(folder: Folder, message: str) -> list[str]:
    """Return the fields of a message that every record of its contract sets."""
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
    """Return the chunk with the records that were hidden in its bad stretches; None if none were found."""
    accepts = acceptor(folder)
    likely = acceptor(folder, with_key=False)
    stretches = _stretches(chunk, set(errors), accepts)
    search = _Search(extension, limits, accepts, likely)
    mended = Chunk(bad=[frame for frame in chunk.bad if frame is not chunk.broken])
    done, found = 0, False
    for first, last in stretches:
        _keep(mended, chunk, done, first)
        tail = chunk.broken if last == len(chunk.raws) else None
        if search.recover(chunk, first, last, tail, mended):
            found = True
        else:
            _keep(mended, chunk, first, last)
            mended.bad += [tail] if tail else []
        done = last
    _keep(mended, chunk, done, len(chunk.raws))
    return mended if found else None


def _keep(mended: Chunk, chunk: Chunk, first: int, last: int) -> None:
    mended.positions += chunk.positions[first:last]
    mended.raws += chunk.raws[first:last]


def _stretches(chunk: Chunk, bad: set[int], accepts: Callable[[bytes], bool]) -> list[tuple[int, int]]:
    """Return stretches first..last (exclusive) of rows that do not parse, with doubtful rows beside them."""
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
    if chunk.broken and (not stretches or stretches[-1][1] < rows):
        stretches.append((rows, rows))
    return stretches


class _Search:
    """Searches bad stretches for good records, within the byte budget of one chunk."""

    def __init__(
        self, extension: str, limits: Limits, accepts: Callable[[bytes], bool], likely: Callable[[bytes], bool]
    ) -> None:
        self._prefix, self._likely = prefix_of(extension), likely
        self._limits, self._accepts, self._budget = limits, accepts, limits.resync_bytes

    def recover(self, chunk: Chunk, first: int, last: int, tail: Frame | None, mended: Chunk) -> bool:
        """Add to `mended` the records hidden in rows first..last and in the broken piece after them; return False if none are.

        A record that lost bytes took as many from the next one, so the search begins shortly before the stretch.
        """
        begin = chunk.positions[first] if first < last else tail.position if tail else 0
        end = tail.position + len(tail.raw) if tail else self._end(chunk, last)
        base = begin - (min(_LEAD, len(chunk.raws[first - 1])) if first else 0)
        if end - base > self._budget:
            return False
        self._budget -= end - base
        region = chunk.source[base:end]
        at = self._next(region, 1)
        if at is None:
            return False
        whole = [row for row in range(first + 1, last) if chunk.positions[row] - base <= at]
        start = (chunk.positions[whole[-1]] if whole else begin) - base
        _keep(mended, chunk, first, whole[-1] if whole else first)
        mended.bad = [piece for piece in mended.bad if not base + start <= piece.position < end]
        while at is not None:
            if at > start:
                mended.bad.append(Frame(base + start, region[start:at], Reason.INVALID_PROTOBUF, _MESSAGE))
            start = self._consume(region, at, base, mended)
            at = self._next(region, start + 1)
        if start < len(region):
            rest = Frame(base + start, region[start:], Reason.INVALID_PROTOBUF, "expected a record, found other bytes")
            mended.bad.append(rest)
        return True

    def _next(self, region: bytes, first: int) -> int | None:
        return find_record(region, first, len(region), self._prefix, self._limits, self._accepts, self._likely)

    def _consume(self, region: bytes, at: int, base: int, mended: Chunk) -> int:
        """Take the consecutive accepted records from `at` on; return the offset after the last."""
        while at < len(region):
            length, start = self._prefix(region, at, len(region))
            raw = region[start : start + length]
            if not 0 < length <= len(region) - start or not self._accepts(raw):
                break
            mended.positions.append(base + at)
            mended.raws.append(raw)
            at = start + length
        return at

    def _end(self, chunk: Chunk, row: int) -> int:
        """Return the offset after the rows before `row` and a few zeros that follow: these may be the end of a record."""
        if row < len(chunk.raws):
            return chunk.positions[row]
        length, start = self._prefix(chunk.source, chunk.positions[row - 1], len(chunk.source))
        end = start + length
        zeros = chunk.source[end : end + _LEAD + 1]
        few = len(zeros) - len(zeros.lstrip(b"\0"))
        return end + few if few <= _LEAD and any(piece.position == end for piece in chunk.bad) else end
