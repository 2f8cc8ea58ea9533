"""Chunks of protobuf records: which message each is, and good records that a damaged length prefix hides."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.contracts import TABLES, Folder, Reason
from schemas.decode.batches import descriptor, message_class
from schemas.decode.collector import Collector, Origin, RawRecord
from schemas.decode.envelope import ENVELOPE, decode_envelopes
from schemas.decode.framing import Accepts, Chunk, Frame, Prefix, find_record, prefix_of
from schemas.decode.limits import Limits
from schemas.decode.messages import decode_messages
from schemas.decode.wire import unknown_fields

_ISSUED: Final = b"\x0a"


def acceptor(folder: Folder) -> Accepts:
    """Whether bytes are plausibly a record of the folder: they parse, with nothing undeclared, and have the record's key."""
    kinds = [(message_class(name), _key_fields(folder, name)) for name in folder.messages]

    def accepts(raw: bytes) -> bool:
        for kind, fields in kinds:
            try:
                message = kind.FromString(raw)
            except DecodeError:
                continue
            if len(UnknownFieldSet(message)) == 0 and all(_is_set(message, field) for field in fields):
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


def decode_binary(collector: Collector, chunk: Chunk, extension: str, limits: Limits) -> None:
    """Decode a chunk of a `.binpb` or `.wal` file; records that a bad neighbour's prefix swallowed are found again."""
    errors = decode_payloads(collector, chunk.raws, Origin(np.array(chunk.positions, np.int64), chunk.raws))
    if not errors:
        return
    search = _Search(prefix_of(extension), extension == ".wal", limits, acceptor(collector.folder))
    found = Chunk()
    for first, last in _runs(sorted(errors)):
        records = [RawRecord(chunk.positions[row], chunk.raws[row]) for row in range(first, last + 1)]
        for offset, record in enumerate(records[: search.recover(records, found)]):
            collector.reject_record(record, Reason.INVALID_PROTOBUF, errors[first + offset])
    for frame in found.bad:
        collector.reject_record(RawRecord(frame.position, frame.raw), frame.reason, frame.message)
    again = Origin(np.array(found.positions, np.int64), found.raws)
    for row, error in decode_payloads(collector, found.raws, again).items():
        collector.reject_record(again.record(row), Reason.INVALID_PROTOBUF, error)


def decode_payloads(collector: Collector, payloads: Sequence[bytes], origin: Origin) -> dict[int, str]:
    """Decode protobuf payloads of the folder's message(s); the error of each that does not parse, by its row."""
    if not payloads:
        return {}
    messages = collector.folder.messages
    if messages == (ENVELOPE,):
        return decode_envelopes(collector, payloads, origin)
    if len(messages) == 1:
        return _decode(collector, messages[0], payloads, origin, list(range(len(payloads))))
    issued = [payload[:1] == _ISSUED for payload in payloads]
    errors: dict[int, str] = {}
    for message, wanted in zip(messages, (False, True), strict=True):
        rows = [row for row, flag in enumerate(issued) if flag is wanted]
        if rows:
            chosen = origin.take(np.array(rows, np.int64))
            errors |= _decode(collector, message, [payloads[row] for row in rows], chosen, rows)
    return errors


def _decode(
    collector: Collector, message: str, payloads: Sequence[bytes], origin: Origin, rows: Sequence[int]
) -> dict[int, str]:
    errors = decode_messages(collector, message, payloads, origin)
    good = payloads if not errors else [payload for row, payload in enumerate(payloads) if row not in errors]
    collector.count_unknown(unknown_fields(message, good))
    return {rows[row]: error for row, error in errors.items()}


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Stretches of consecutive rows, (first, last) each."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and row == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], row)
        else:
            runs.append((row, row))
    return runs


class _Search:
    """Looks for good records inside stretches of bad ones, within one chunk's budget of bytes."""

    def __init__(self, prefix: Prefix, fixed: bool, limits: Limits, accepts: Accepts) -> None:
        self._prefix, self._fixed, self._limits, self._accepts = prefix, fixed, limits, accepts
        self._budget = limits.resync_bytes

    def recover(self, records: Sequence[RawRecord], found: Chunk) -> int:
        """Add to `found` what hides in `records`; returns how many of them, from the first, are bad as they stand."""
        region = b"".join(self._framed(record) for record in records)
        if len(region) > self._budget:
            return len(records)
        self._budget -= len(region)
        base, at = records[0].position, self._next(region, 1)
        if at is None:
            return len(records)
        whole = max((index for index, record in enumerate(records) if record.position - base < at), default=0)
        start = records[whole].position - base
        while True:
            message = "expected a record, found bytes that are none"
            found.bad.append(_piece(base + start, region[start:at], message))
            start = self._consume(region, at, base, found)
            if start >= len(region):
                return whole
            at = self._next(region, start + 1)
            if at is None:
                found.bad.append(_piece(base + start, region[start:], message))
                return whole

    def _next(self, region: bytes, first: int) -> int | None:
        return find_record(region, first, len(region), self._prefix, self._limits, self._accepts)

    def _consume(self, region: bytes, at: int, base: int, found: Chunk) -> int:
        """Take the accepted records from `at` on; the offset after the last."""
        while at < len(region):
            length, start = self._prefix(region, at, len(region))
            raw = region[start : start + length]
            if not 0 < length <= len(region) - start or not self._accepts(raw):
                break
            found.positions.append(base + at)
            found.raws.append(raw)
            at = start + length
        return at

    def _framed(self, record: RawRecord) -> bytes:
        """A record with the length before it."""
        length = len(record.raw)
        if self._fixed:
            return length.to_bytes(4, "little") + record.raw
        prefix = bytearray()
        while length >= 0x80:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([*prefix, length]) + record.raw


def _piece(position: int, raw: bytes, message: str) -> Frame:
    return Frame(position, raw, Reason.INVALID_PROTOBUF, f"{message}; good records follow")
