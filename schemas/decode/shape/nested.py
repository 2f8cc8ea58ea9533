"""Undeclared fields inside nested messages, counted in a sample of the records: walking them all costs more than decoding."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.decode.read.batches import message_class

SAMPLED: Final = 16
_SUFFIX: Final = " (in a sample)"


def nested_unknown_fields(message: str, payloads: Sequence[bytes]) -> dict[str, int]:
    """Times that each undeclared field occurs inside the nested messages of some of the `payloads`.

    Keys are `Message.number (in a sample)`. The sample is at most `SAMPLED` payloads at equal distances, with the first one.
    """
    step = -(-len(payloads) // SAMPLED) or 1
    counts: Counter[str] = Counter()
    parse = message_class(message).FromString
    for payload in payloads[::step]:
        try:
            parsed = parse(payload)
        except DecodeError:
            # the reader of whole batches takes a few messages that this one refuses
            continue
        size = parsed.ByteSize()
        parsed.DiscardUnknownFields()
        if parsed.ByteSize() != size:
            for child in _children(parse(payload)):
                counts.update(_unknown(child))
    return {f"{name}{_SUFFIX}": count for name, count in sorted(counts.items())}


def _unknown(message: Message) -> Iterator[str]:
    """The undeclared fields of a message and of all inside it."""
    name = message.DESCRIPTOR.name
    yield from (f"{name}.{one.field_number}" for one in UnknownFieldSet(message))
    for child in _children(message):
        yield from _unknown(child)


def _children(message: Message) -> Iterator[Message]:
    """The messages that lie in fields of a message; entries of maps are not messages of their own."""
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
