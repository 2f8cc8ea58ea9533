"""Parse protobuf bytes into Arrow record batches, and set apart messages that do not parse."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import ptars
import pyarrow as pa
from google.protobuf.message import DecodeError

from schemas.leyline import leyline_pb2

_PIECE: Final = 1024  # payloads that are tried at once if a larger batch holds a bad one


@lru_cache(maxsize=1)
def _pool() -> Any:
    config = ptars.PtarsConfig(list_nullable=True, map_nullable=True)
    return ptars.HandlerPool([leyline_pb2.DESCRIPTOR], config=config)


def descriptor(message: str) -> Any:
    """Return the descriptor of a Leyline message by name."""
    return leyline_pb2.DESCRIPTOR.message_types_by_name[message]


@lru_cache(maxsize=32)
def _handler(message: str) -> Any:
    return _pool().get_for_message(descriptor(message))


@lru_cache(maxsize=32)
def arrow_schema(message: str) -> pa.Schema:
    """Return the Arrow schema of a batch of a Leyline message."""
    return _handler(message).schema()


def message_class(message: str) -> Any:
    """Return the Python class of a Leyline message by name."""
    return getattr(leyline_pb2, message)


def to_batch(message: str, payloads: Sequence[bytes]) -> tuple[pa.RecordBatch | None, list[int], dict[int, str]]:
    """Return the Arrow batch of the payloads that parse, their positions, and the error of each other one by position."""
    handler = _handler(message)
    errors: dict[int, str] = {}
    batches: list[pa.RecordBatch] = []
    good: list[int] = []
    pending: list[tuple[Sequence[int], bool]] = [(range(len(payloads)), False)] if payloads else []
    while pending:
        rows, screened = pending.pop()
        try:
            whole = isinstance(payloads, list) and len(rows) == len(payloads)  # almost always; saves a copy
            chosen = payloads if whole else [payloads[row] for row in rows]
            batches.append(handler.list_to_record_batch(chosen))
            good.extend(rows)
        except ValueError as error:
            if len(rows) == 1:
                errors[rows[0]] = str(error)
                continue
            if len(rows) <= _PIECE and not screened:
                bad = _damaged(message, payloads, rows)
                errors |= bad
                pending += [([row for row in rows if row not in bad], True)] if len(bad) < len(rows) else []
                continue
            step = _PIECE if len(rows) > _PIECE else (len(rows) + 1) // 2
            pending += [(rows[first : first + step], screened) for first in range(0, len(rows), step)][::-1]
    if not batches:
        return None, good, errors
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches), good, errors


def _damaged(message: str, payloads: Sequence[bytes], rows: Sequence[int]) -> dict[int, str]:
    """Return the errors of rows that do not parse alone; parsing one message costs far less than making a batch of it."""
    found: dict[int, str] = {}
    parse = message_class(message).FromString
    for row in rows:
        try:
            parse(payloads[row])
        except DecodeError as error:
            found[row] = str(error)
    return found
