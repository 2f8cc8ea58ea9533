"""Bus envelopes: each carries one message, which is decoded as if it had lain in its own contract's folder."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from schemas.contracts import FOLDERS, Reason
from schemas.contracts.enums import ENUMS
from schemas.contracts.oona import ROUTES
from schemas.decode.message.leyline import decode_messages
from schemas.decode.read.batches import message_class
from schemas.decode.read.wire import unknown_fields
from schemas.decode.shape.collector import Collector, Origin
from schemas.decode.shape.nested import nested_unknown_fields

ENVELOPE: Final = "BusEnvelope"


def decode_envelopes(collector: Collector, payloads: Sequence[bytes], origin: Origin) -> dict[int, str]:
    """Decode what the envelopes carry; the error of each that is none, by its row. One without a route is rejected."""
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
    """Decode the messages of one type into their own contract's tables and rejects."""
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
