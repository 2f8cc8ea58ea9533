"""Learn from sample lines how one producer writes JSON: spelling of keys, numbers or strings, keys of maps.

Arrow's JSON reader is exact about types and refuses keys that its schema does not name, so a chunk that it reads under a
learned schema holds nothing else. If it refuses a chunk, the schema learns from it, or its lines are read one by one
(`records.py`).
"""

from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from google.protobuf.descriptor import FieldDescriptor

from schemas.decode.read.batches import descriptor

MAP_KEYS: Final = 512  # keys of one map that are learned; a map with more is read line by line
_EXTRAS: Final = 64  # undeclared scalars of one message that are learned
_INTS: Final = {FieldDescriptor.TYPE_UINT32: pa.uint32(), FieldDescriptor.TYPE_UINT64: pa.uint64()}
_FLOATS: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
TIMESTAMP: Final = "google.protobuf.Timestamp"
_STRUCT: Final = "google.protobuf.Struct"


def is_map(one: FieldDescriptor) -> bool:
    """Return whether the field is a map."""
    return one.message_type is not None and bool(one.message_type.GetOptions().map_entry)


def is_nested(one: FieldDescriptor) -> bool:
    """Return whether the field is a message of ours, or a list of them."""
    return one.message_type is not None and not is_map(one) and one.message_type.full_name not in (TIMESTAMP, _STRUCT)


@dataclass
class InferredSchema:
    """How one message is written. `texts`: integers and enums written as strings. `extras`: undeclared scalars by key.

    Only declared fields that were `seen` are in the schema, since each field costs time in every line even if absent. Once
    `complete`, all declared fields are.
    """

    message: str
    camel: bool | None = None
    texts: dict[str, bool] = field(default_factory=dict)
    maps: dict[str, set[str]] = field(default_factory=dict)
    extras: dict[str, pa.DataType] = field(default_factory=dict)
    nested: dict[str, "InferredSchema"] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    complete: bool = False

    def __post_init__(self) -> None:
        """Prepare the fields that the message declares."""
        self.fields = {one.name: one for one in descriptor(self.message).fields if not self._unreadable(one)}
        declared = descriptor(self.message).fields
        self._refused = {key for one in declared if self._unreadable(one) for key in (one.name, one.json_name)}
        self._by_key = {key: one for one in self.fields.values() for key in (one.name, one.json_name)}
        for one in self.fields.values():
            if is_nested(one):
                self.nested[one.name] = InferredSchema(one.message_type.name)
            elif is_map(one):
                self.maps[one.name] = set()

    @staticmethod
    def _unreadable(one: FieldDescriptor) -> bool:
        return one.message_type is not None and one.message_type.full_name == _STRUCT

    def key(self, name: str) -> str:
        """Return the JSON key under which the field is expected."""
        return str(self.fields[name].json_name) if self.camel else name

    def learn(self, value: Any) -> None:
        """Learn from one parsed record; values of a wrong kind teach nothing."""
        if not isinstance(value, dict):
            return
        for key, item in value.items():
            one = self._by_key.get(key)
            if one is None:
                self._learn_extra(key, item)
                continue
            self.seen.add(one.name)
            if one.name != one.json_name:
                self._spell(key == one.json_name)
            self._learn_field(one, item)

    def widen(self) -> None:
        """Read lines under all declared fields from now on."""
        self.complete = True
        for inner in self.nested.values():
            inner.widen()

    def _spell(self, camel: bool) -> None:
        """Use one spelling of keys, camelCase or not, for the message and its nested messages."""
        if self.camel is None:
            self.camel = camel
            for inner in self.nested.values():
                inner._spell(camel)

    def _learn_extra(self, key: str, item: Any) -> None:
        kinds = {bool: pa.bool_(), int: pa.float64(), float: pa.float64(), str: pa.string()}
        if key not in self._refused and type(item) in kinds and len(self.extras) < _EXTRAS:
            self.extras[key] = kinds[type(item)]

    def _learn_field(self, one: FieldDescriptor, item: Any) -> None:
        if one.enum_type is not None or one.type in _INTS:
            if isinstance(item, str | int):
                self.texts[one.name] = isinstance(item, str)
        elif one.name in self.maps:
            if isinstance(item, dict) and len(self.maps[one.name]) + len(item) <= MAP_KEYS:
                self.maps[one.name] |= item.keys()
        elif one.name in self.nested:
            for child in item[:4] if isinstance(item, list) else [item]:
                self.nested[one.name].learn(child)

    def arrow(self) -> list[pa.Field]:
        """Return the fields of the Arrow schema under which the message is read."""
        whole = self.complete or not self.seen
        used = {name: one for name, one in self.fields.items() if whole or name in self.seen}
        fields = [pa.field(self.key(name), self.type_of(one)) for name, one in used.items()]
        return fields + [pa.field(key, kind) for key, kind in self.extras.items() if key not in self._by_key]

    def type_of(self, one: FieldDescriptor) -> pa.DataType:
        """Return the Arrow type that a field is read as."""
        if one.name in self.nested:
            kind = pa.struct(self.nested[one.name].arrow())
        elif one.name in self.maps:
            value = one.message_type.fields_by_name["value"]
            item = pa.float64() if value.type in _FLOATS else pa.string()
            return pa.struct([pa.field(key, item) for key in sorted(self.maps[one.name], key=str.encode)])
        elif one.enum_type is not None:
            kind = pa.string() if self.texts.get(one.name, True) else pa.int32()
        elif one.type in _INTS:
            text = self.texts.get(one.name, one.type == FieldDescriptor.TYPE_UINT64)
            kind = pa.string() if text else _INTS[one.type]
        elif one.type in _FLOATS:
            kind = pa.float64()
        else:
            kind = pa.bool_() if one.type == FieldDescriptor.TYPE_BOOL else pa.string()
        return pa.list_(kind) if one.is_repeated else kind
