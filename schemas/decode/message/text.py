"""Decode chunks of JSON lines: Urza's plain records, and messages in the canonical protobuf JSON mapping."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.contracts import Folder, Reason
from schemas.contracts.oona import ENVELOPE
from schemas.decode.json.fast import JsonReader
from schemas.decode.json.records import parse_object, to_message
from schemas.decode.limits import Limits
from schemas.decode.message.binary import decode_payloads
from schemas.decode.message.leyline import decode_batch
from schemas.decode.message.urza import decode_urza
from schemas.decode.read.framing import Chunk
from schemas.decode.shape.collector import BadRecord, Collector, Drift, Origin, RawRecord


class TextDecoder:
    """Decodes the chunks of one file of JSON lines. `fast` reads a chunk at once; lines that it can't read go one by one."""

    def __init__(self, folder: Folder, fast: bool = True) -> None:
        plain = len(folder.messages) == 1 and folder.messages != (ENVELOPE,)
        self._reader = JsonReader(folder.messages[0], decode_batch) if plain and fast else None

    def decode(self, collector: Collector, chunk: Chunk, limits: Limits) -> None:
        """Decode a chunk into `collector`."""
        for frame in chunk.bad:
            collector.reject_record(RawRecord(frame.position, frame.raw), frame.reason, frame.message)
        if self._reader is not None and chunk.raws:
            left = self._reader.decode(collector, Origin(np.array(chunk.positions, np.int64), chunk.raws))
            chunk = Chunk([chunk.positions[row] for row in left], [chunk.raws[row] for row in left])
        decode_chunk(collector, chunk, limits)


def decode_chunk(collector: Collector, chunk: Chunk, limits: Limits) -> None:
    """Decode a chunk of JSON lines one by one."""
    records = [RawRecord(position, raw) for position, raw in zip(chunk.positions, chunk.raws, strict=True)]
    if collector.folder.messages:
        decode_lines(collector, records, limits)
    else:
        decode_urza(collector, parse_lines(collector, records, limits))


def parse_lines(collector: Collector, records: Sequence[RawRecord], limits: Limits) -> list[tuple[RawRecord, dict[str, Any]]]:
    """Return the records that are JSON objects; reject the others."""
    objects: list[tuple[RawRecord, dict[str, Any]]] = []
    for record in records:
        try:
            objects.append((record, parse_object(record.raw, limits)))
        except BadRecord as error:
            collector.reject_record(record, error.reason, str(error))
    return objects


def decode_lines(collector: Collector, records: Sequence[RawRecord], limits: Limits) -> None:
    """Decode JSON messages one by one; this slow path says what is wrong with a line."""
    drift = Drift()
    payloads: list[bytes] = []
    good: list[RawRecord] = []
    for record, value in parse_lines(collector, records, limits):
        messages = collector.folder.messages
        message = messages[1] if len(messages) > 1 and "bsds" in value else messages[0]
        try:
            payloads.append(to_message(value, message, drift).SerializeToString())
        except BadRecord as error:
            collector.reject_record(record, error.reason, str(error))
        else:
            good.append(record)
    collector.count_unknown(drift.counts)
    origin = Origin(np.array([record.position for record in good], np.int64), [record.raw for record in good])
    for row, text in decode_payloads(collector, payloads, origin).items():
        collector.reject_record(good[row], Reason.BAD_VALUE, text)
