"""Decode JSON messages a chunk of lines at once; lines that can't be read exactly go one by one (`records.py`)."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as arrow_json
from pydantic_core import from_json

from schemas.decode.json.conversion import Reading, to_record_batch
from schemas.decode.json.inference import InferredSchema
from schemas.decode.shape.collector import Collector, Origin

_SAMPLES: Final = 8
_NULL: Final = b"null"
_WORDS: Final[tuple[bytes, ...]] = (_NULL, b'NaN"', b'Infinity"')
_BLOCK: Final = 2 * 1024 * 1024  # bytes; fits into the cache of one core
_FEW: Final = 32  # lines; fewer are not worth another attempt
Rows = npt.NDArray[np.int64]
DecodeBatch = Callable[[Collector, str, pa.RecordBatch, Origin, Sequence[bytes]], None]


class JsonReader:
    """Reads chunks of one file; what it learned of the producer's JSON is kept from chunk to chunk.

    `decode_batch` decodes an Arrow batch of `message` into a collector.
    """

    def __init__(self, message: str, decode_batch: DecodeBatch) -> None:
        self._decode_batch = decode_batch
        self._inferred = InferredSchema(message)
        self._message = message
        self._odd: tuple[bytes, ...] = ()

    def decode(self, collector: Collector, origin: Origin) -> Rows:
        """Decode the lines that can be read at once; return the sorted rows that must be decoded one by one."""
        left: list[Rows] = []
        text = b"\n".join(origin.raws)
        plain, odd = _without(origin.raws, np.arange(len(origin.raws)), self._odd, text)
        left.append(odd)
        self._learn([origin.raw(int(row)) for row in plain[:: max(1, len(plain) // _SAMPLES)]])
        pending = [plain]
        while pending:
            rows = pending.pop()
            if len(rows) == 0:
                continue
            table = self._parse(origin, rows, text)
            if table is not None:
                left.append(rows[self._decode(collector, table, origin, rows)])
            elif self._odd is not _WORDS:
                # search for words that Arrow refuses only after it has refused some
                self._odd = _WORDS
                rows, odd = _without(origin.raws, rows, _WORDS, text)
                left.append(odd)
                pending.append(rows)
            elif len(rows) <= _FEW:
                left.append(rows)
            else:
                middle = len(rows) // 2
                pending += [rows[middle:], rows[:middle]]
        return np.sort(np.concatenate(left)).astype(np.int64)

    def _learn(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            try:
                self._inferred.learn(from_json(line))
            except ValueError:
                continue

    def _parse(self, origin: Origin, rows: Rows, text: bytes) -> pa.Table | None:
        """Parse the lines under the learned schema, and learn once more if that fails; None if they still don't fit."""
        lines = origin.raws
        if len(rows) < len(origin.raws):
            lines = [origin.raw(int(row)) for row in rows]
            text = b"\n".join(lines)
        table = self._read(text, lines)
        if table is None and len(rows) > _FEW and self._odd is _WORDS:
            before = self._inferred.arrow()
            self._learn(lines[:: max(1, len(lines) // (4 * _SAMPLES))])
            table = self._read(text, lines) if self._inferred.arrow() != before else None
            if table is None and not self._inferred.complete:
                self._inferred.widen()
                table = self._read(text, lines)
        return table

    def _read(self, text: bytes, lines: Sequence[bytes]) -> pa.Table | None:
        options = arrow_json.ParseOptions(
            explicit_schema=pa.schema(self._inferred.arrow()), unexpected_field_behavior="error", newlines_in_values=False
        )
        try:
            if not text.isascii():
                text.decode("utf-8")
            block = arrow_json.ReadOptions(block_size=max(_BLOCK, max(map(len, lines)) + 1), use_threads=False)
            table = arrow_json.read_json(pa.py_buffer(text), read_options=block, parse_options=options)
        except (pa.ArrowException, ValueError):
            return None
        return table if table.num_rows == len(lines) else None

    def _decode(self, collector: Collector, table: pa.Table, origin: Origin, rows: Rows) -> Rows:
        """Decode a parsed table; return the positions in it of the rows that must be decoded one by one."""
        reading = Reading.of(table.num_rows)
        batch = to_record_batch(self._inferred, table, reading)
        doubts = np.flatnonzero(reading.doubts)
        reading.suspect(doubts, np.array([_NULL in origin.raw(row) for row in rows[doubts].tolist()], np.bool_))
        suspects = np.flatnonzero(reading.suspects)
        collector.count_unknown(reading.drift())
        if len(suspects):
            kept = np.flatnonzero(~reading.suspects)
            batch, rows = batch.take(pa.array(kept)), rows[kept]
        if batch.num_rows:
            where = origin if len(rows) == len(origin.raws) else origin.take(rows)
            self._decode_batch(collector, self._message, batch, where, ())
        return suspects


def _without(lines: Sequence[bytes], rows: Rows, words: Sequence[bytes], text: bytes) -> tuple[Rows, Rows]:
    """Split `rows`: those without and those with words that Arrow reads differently from protobuf's JSON (nulls, "NaN")."""
    found = [word for word in words if word in text]
    if not found:
        return rows, np.zeros(0, np.int64)
    odd = np.array([any(word in lines[row] for word in found) for row in rows.tolist()], np.bool_)
    return rows[~odd], rows[odd]
