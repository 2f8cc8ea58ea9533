"""Chunks of protobuf records: which message each is, and what is done where some are damaged."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.contracts import Reason
from schemas.decode.limits import Limits
from schemas.decode.message.envelope import ENVELOPE, decode_envelopes
from schemas.decode.message.leyline import decode_messages
from schemas.decode.read.framing import Chunk
from schemas.decode.read.mending import mend
from schemas.decode.read.wire import unknown_fields
from schemas.decode.shape.collector import Collector, Origin, RawRecord
from schemas.decode.shape.nested import nested_unknown_fields

_ISSUED: Final = b"\x0a"


def decode_binary(collector: Collector, chunk: Chunk, extension: str, limits: Limits) -> None:
    """Decode a chunk of a `.binpb` or `.wal` file; records that a bad neighbour's prefix swallowed are found again."""
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
    collector.count_unknown(nested_unknown_fields(message, good))
    return {rows[row]: error for row, error in errors.items()}
