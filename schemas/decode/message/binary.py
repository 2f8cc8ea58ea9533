"""Decode chunks of protobuf records: find the message type of each, unwrap bus envelopes, reject damaged records."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from schemas.contracts import FOLDERS, Reason
from schemas.contracts.enums import ENUMS
from schemas.contracts.oona import ENVELOPE, ROUTES
from schemas.decode.limits import Limits
from schemas.decode.message.leyline import decode_messages
from schemas.decode.message.undeclared import nested_unknown_fields, unknown_fields
from schemas.decode.read.batches import message_class
from schemas.decode.read.framing import Chunk
from schemas.decode.read.mending import mend
from schemas.decode.shape.collector import Collector, Origin, RawRecord

_ISSUED: Final = b"\x0a"


def decode_binary(collector: Collector, chunk: Chunk, extension: str, limits: Limits) -> None:
    """Decode a chunk of a `.binpb` or `.wal` file; recover records that a neighbour's damaged length prefix swallowed."""
    trial = collector.fresh()
    errors = decode_payloads(trial, chunk.raws, _origin(chunk))
    mended = mend(chunk, errors, collector.folder, extension, limits) if errors or chunk.broken else None
    if mended is None:
        collector.absorb(trial)
    else:
        chunk = mended
        errors = decode_payloads(collector, chunk.raws, _origin(chunk))
    for row, error in errors.items():
        collector.reject_record(RawRecord(chunk.positions[row], chunk.raws[row]), Reason.INVALID_PROTOBUF, error)
    for frame in chunk.bad:
        collector.reject_record(RawRecord(frame.position, frame.raw), frame.reason, frame.message)


def _origin(chunk: Chunk) -> Origin:
    return Origin(np.array(chunk.positions, np.int64), chunk.raws)


def decode_payloads(collector: Collector, payloads: Sequence[bytes], origin: Origin) -> dict[int, str]:
    """Decode protobuf payloads of the folder's message(s); return the error of each that does not parse, by row."""
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
    collector.count_unknown(nested_unknown_fields(message, good))
    return {rows[row]: error for row, error in errors.items()}


def decode_envelopes(collector: Collector, payloads: Sequence[bytes], origin: Origin) -> dict[int, str]:
    """Decode the messages in the envelopes; return errors by row. Reject an envelope whose message type has no folder."""
    routed: dict[str, list[tuple[int, bytes]]] = {}
    errors: dict[int, str] = {}
    envelope_class = message_class(ENVELOPE)
    for row, payload in enumerate(payloads):
        try:
            envelope = envelope_class.FromString(payload)
        except DecodeError as error:
            errors[row] = f"expected a {ENVELOPE}: {error}"
            continue
        kind = ENUMS["BusMessageType"].text(envelope.message_type) or "UNSPECIFIED"
        if kind in ROUTES:
            collector.read(collector.folder.record, 1)
            routed.setdefault(kind, []).append((row, envelope.payload))
        else:
            text = f"message_type: expected one of {', '.join(ROUTES)}, found {kind}"
            collector.reject_record(origin.record(row), Reason.UNROUTED_MESSAGE_TYPE, text)
    for kind, carried in routed.items():
        _decode_carried(collector, kind, carried, origin)
    return errors


def _decode_carried(collector: Collector, kind: str, carried: list[tuple[int, bytes]], origin: Origin) -> None:
    """Decode messages of one type into the tables and rejects of their own contract."""
    message, path = ROUTES[kind]
    inner = Collector(FOLDERS[path], collector.file, collector.digest, collector.limits, collector.folder)
    payloads = [payload for _, payload in carried]
    where = origin.take(np.array([row for row, _ in carried], np.int64))
    errors = decode_messages(inner, message, payloads, where)
    for row, error in errors.items():
        inner.reject_record(where.record(row), Reason.INVALID_PROTOBUF, error)
    good = [payload for row, payload in enumerate(payloads) if row not in errors]
    inner.count_unknown(unknown_fields(message, good))
    inner.count_unknown(nested_unknown_fields(message, good))
    collector.absorb(inner)
