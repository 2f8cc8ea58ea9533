"""Strategies for Leyline messages of every kind: zeros, NaN, unknown enum numbers, big integers, odd text."""

import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from schemas.decode.read.batches import descriptor, message_class

_TEXT = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["", "a", "tolaria", "weatherlight", "eager"])
_NUMBERS = {
    FieldDescriptor.TYPE_UINT32: st.sampled_from([0, 1, 5, 2**32 - 1]),
    FieldDescriptor.TYPE_UINT64: st.sampled_from([0, 1, 1795412056434071096, 2**63 - 1, 2**63, 2**64 - 1]),
    FieldDescriptor.TYPE_FLOAT: st.sampled_from([0.0, 1.0, 0.25, -3.5, math.nan, math.inf, -math.inf]) | st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from([0.0, 1.0, math.nan, math.inf]) | st.floats(),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
}
_IDS = ("packet_id", "training_run_id", "seed_id", "blueprint_id", "command_id", "report_id")


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.sampled_from([99, 12345])
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.sampled_from(["a", "b", "c", ""]) if field.name in _IDS else _TEXT
    return _NUMBERS[field.type]


@st.composite
def messages(draw: st.DrawFn, name: str, depth: int = 0) -> Any:
    """A message of the named kind; most fields set, nested lists short."""
    found = message_class(name)()
    for field in descriptor(name).fields:
        if draw(st.integers(0, 9)) < 3:
            continue
        _fill(draw, found, field, depth)
    return found


def _fill(draw: st.DrawFn, found: Any, field: FieldDescriptor, depth: int) -> None:
    nested = field.message_type
    if nested is None:
        if field.is_repeated:
            getattr(found, field.name).extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(found, field.name, draw(_scalar(field)))
    elif nested.GetOptions().map_entry:
        _fill_map(draw, getattr(found, field.name), nested)
    elif nested.full_name == "google.protobuf.Timestamp":
        getattr(found, field.name).FromNanoseconds(draw(st.integers(0, 4_000_000_000_000_000_000)))
    elif nested.full_name == "google.protobuf.Struct":
        getattr(found, field.name).update({"a": draw(st.integers(0, 9)), "b": [{"c": draw(_TEXT)}]})
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 3))):
            getattr(found, field.name).add().CopyFrom(draw(messages(nested.name, depth + 1)))
    else:
        getattr(found, field.name).CopyFrom(draw(messages(nested.name, depth + 1)))


def _fill_map(draw: st.DrawFn, entries: Any, entry: Any) -> None:
    value = entry.fields_by_name["value"]
    for key in draw(st.lists(st.sampled_from(["loss", "alpha", "alpha_steps", "alpha_total_steps", "é", "", "z"]), max_size=4)):
        if value.message_type is None:
            entries[key] = draw(_scalar(value))
        else:
            entries[key].CopyFrom(draw(messages(value.message_type.name, 1)))
