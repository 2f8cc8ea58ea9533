"""Count undeclared fields: top-level ones in every message, nested ones in a sample of messages."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.decode.read.batches import descriptor, message_class

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUPS: Final = 1 << 20  # above the number of top-level fields of any message within the limits
_NUMBERS: Final = 256  # above every declared field number
_TAG_BYTES: Final = 5
_LENGTH_BYTES: Final = 5
SAMPLED: Final = 16  # records whose nested messages are walked: walking all costs more than decoding
_SUFFIX: Final = " (in a sample)"
_JOINED: Final = 1024  # messages that are read at once: few enough that their bytes stay in the cache
Ints = npt.NDArray[np.int64]


@lru_cache(maxsize=32)
def _declared(message: str) -> npt.NDArray[np.bool_]:
    """Return whether each field number below 256 is declared (bool [257]); the last entry, False, stands for all above."""
    known = np.zeros(_NUMBERS + 1, np.bool_)
    known[[field.number for field in descriptor(message).fields]] = True
    return known


def unknown_fields(message: str, payloads: Sequence[bytes]) -> dict[str, int]:
    """Count how often each undeclared top-level field occurs in well-formed `payloads`, as `Message.number`."""
    pieces = (b"".join(payloads[first : first + _JOINED]) for first in range(0, len(payloads), _JOINED))
    return {} if all(_all_declared(message, piece) for piece in pieces) else _walk(message, payloads, b"".join(payloads))


def _all_declared(message: str, joined: bytes) -> bool:
    """Return whether concatenated messages, which protobuf reads as one message, surely hold only declared fields."""
    try:
        whole = _outline(message).FromString(joined)
    except DecodeError:
        return False
    size = whole.ByteSize()
    whole.DiscardUnknownFields()
    return bool(whole.ByteSize() == size)


@lru_cache(maxsize=32)
def _outline(message: str) -> Any:
    """Return a message class with the same field numbers and wire types; nested messages and strings are opaque bytes."""
    kinds = {
        FieldDescriptor.TYPE_FLOAT: FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED32: FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_SFIXED32: FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_DOUBLE: FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_FIXED64: FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64: FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_STRING: FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_BYTES: FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_MESSAGE: FieldDescriptor.TYPE_BYTES,
    }
    file = descriptor_pb2.FileDescriptorProto(name=f"outline/{message}.proto", package="outline", syntax="proto2")
    outline = file.message_type.add(name=message)
    for one in descriptor(message).fields:
        kind = FieldDescriptor.TYPE_BYTES if one.is_repeated else kinds.get(one.type, FieldDescriptor.TYPE_UINT64)
        outline.field.add(name=one.name, number=one.number, type=kind, label=FieldDescriptor.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"outline.{message}"))


def _walk(message: str, payloads: Sequence[bytes], joined: bytes) -> dict[str, int]:
    """Count as `unknown_fields` does, by walking all messages at once, one field of each per step."""
    data = np.frombuffer(joined + bytes(16), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)))
    at = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    found: dict[int, int] = {}
    declared = _declared(message)
    for _ in range(_GROUPS):
        live = at < ends
        if not live.all():
            at, ends = at[live], ends[live]
        if not len(at):
            break
        tags, at = _varints(data, at, _TAG_BYTES)
        numbers, kinds = tags >> 3, tags & 7
        strange = ~declared[np.minimum(numbers, _NUMBERS)]
        if strange.any():
            values, counts = np.unique(numbers[strange], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                found[value] = found.get(value, 0) + count
        at = _skip(data, at, kinds, ends)
    return {f"{message}.{number}": count for number, count in sorted(found.items())}


def _varints(data: npt.NDArray[np.uint8], at: Ints, most: int) -> tuple[Ints, Ints]:
    """Return the varint at each offset, and the offset after it."""
    byte = data[at].astype(np.int64)
    value, at = byte & 0x7F, at + 1
    more = np.flatnonzero(byte >= 0x80)
    for index in range(1, most):
        if not len(more):
            break
        byte = data[np.minimum(at[more], len(data) - 1)].astype(np.int64)
        value[more] |= (byte & 0x7F) << (7 * index)
        at[more] += 1
        more = more[byte >= 0x80]
    return value, at


def _skip(data: npt.NDArray[np.uint8], at: Ints, kinds: Ints, ends: Ints) -> Ints:
    """Return the offset after each field's value; a group, which no declared field uses, ends the walk of its message."""
    after = np.where(kinds == _FIXED64, at + 8, np.where(kinds == _FIXED32, at + 4, ends))
    sized = np.flatnonzero(kinds == _BYTES)
    if len(sized):
        length, start = _varints(data, at[sized], _LENGTH_BYTES)
        after[sized] = start + length
    plain = np.flatnonzero(kinds == _VARINT)
    if len(plain):
        _, after[plain] = _varints(data, at[plain], 10)
    return np.minimum(after, ends)


def nested_unknown_fields(message: str, payloads: Sequence[bytes]) -> dict[str, int]:
    """Count how often each undeclared field occurs inside the nested messages of some of the `payloads`.

    Keys are `Message.number (in a sample)`. The sample is at most `SAMPLED` evenly spaced payloads, the first one included.
    """
    step = -(-len(payloads) // SAMPLED) or 1
    counts: Counter[str] = Counter()
    parse = message_class(message).FromString
    for payload in payloads[::step]:
        try:
            parsed = parse(payload)
        except DecodeError:
            # the batch reader accepts a few messages that this parser refuses
            continue
        size = parsed.ByteSize()
        parsed.DiscardUnknownFields()
        if parsed.ByteSize() != size:
            for child in _children(parse(payload)):
                counts.update(_unknown(child))
    return {f"{name}{_SUFFIX}": count for name, count in sorted(counts.items())}


def _unknown(message: Message) -> Iterator[str]:
    """Yield the undeclared fields of a message and of all messages inside it."""
    name = message.DESCRIPTOR.name
    yield from (f"{name}.{one.field_number}" for one in UnknownFieldSet(message))
    for child in _children(message):
        yield from _unknown(child)


def _children(message: Message) -> Iterator[Message]:
    """Yield the messages in the fields of a message; map entries do not count as messages."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            yield from _of_map(field, value)
        elif field.is_repeated:
            yield from value
        else:
            yield value


def _of_map(field: Any, value: Any) -> Iterator[Message]:
    if field.message_type.fields_by_name["value"].message_type is not None:
        yield from value.values()
