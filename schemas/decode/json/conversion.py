"""Convert Arrow columns of parsed JSON into the batch that the same messages give as protobuf.

Some rows can be judged only one record at a time (`records.py`): unknown enum names, numbers outside float32, unusual integers
and times. These are marked as suspects, and their values here are meaningless.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import FieldDescriptor

from schemas.contracts.enums import ENUMS
from schemas.decode.json.inference import TIMESTAMP, InferredSchema
from schemas.decode.read.batches import arrow_schema
from schemas.decode.shape.columns import Mask, truth
from schemas.decode.shape.constant import nulls

_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
Rows = npt.NDArray[np.int64]


@dataclass
class Reading:
    """One parsed chunk: its suspect rows, the rows that may hold a forbidden null, and where undeclared keys occur.

    Arrow reads a null as an absent key. For keys of maps and for undeclared keys the two are not the same.
    """

    suspects: Mask
    doubts: Mask
    extras: dict[str, list[Rows]] = field(default_factory=dict)

    @classmethod
    def of(cls, count: int) -> "Reading":
        """Return the reading of a chunk of `count` rows before any row is examined."""
        return cls(np.zeros(count, np.bool_), np.zeros(count, np.bool_))

    def suspect(self, rows: Rows, mask: Mask) -> None:
        """Mark the rows of the values in `mask`."""
        if mask.any():
            self.suspects[rows[mask]] = True

    def doubt(self, rows: Rows, mask: Mask) -> None:
        """Mark the rows of the absent values in `mask`."""
        if mask.any():
            self.doubts[rows[mask]] = True

    def drift(self) -> dict[str, int]:
        """Count how often each undeclared key occurs in rows that are not suspect."""
        counts = {name: sum(int((~self.suspects[rows]).sum()) for rows in found) for name, found in self.extras.items()}
        return {name: count for name, count in counts.items() if count}


def to_record_batch(inferred: InferredSchema, table: pa.Table, reading: Reading) -> pa.RecordBatch:
    """Return the batch of the messages in `table`, one message per row."""
    rows = np.arange(table.num_rows, dtype=np.int64)
    columns = {name: _one_chunk(table.column(name)) for name in table.column_names}
    arrays = _fields(inferred, columns, rows, reading)
    schema = arrow_schema(inferred.message)
    return pa.RecordBatch.from_arrays([arrays[one.name].cast(one.type) for one in schema], schema=_nullable(inferred.message))


@lru_cache(maxsize=32)
def _nullable(message: str) -> pa.Schema:
    return pa.schema([pa.field(one.name, one.type) for one in arrow_schema(message)])


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _fields(inferred: InferredSchema, columns: dict[str, pa.Array], rows: Rows, reading: Reading) -> dict[str, pa.Array]:
    """Return the arrays of a message's fields by name; `rows` holds, for each value, its row in the chunk."""
    for key in inferred.extras.keys() & columns.keys():
        if pa.types.is_floating(columns[key].type):
            reading.suspect(rows, truth(pc.invert(pc.is_finite(columns[key]))))
        sent = truth(pc.is_valid(columns[key]))
        reading.doubt(rows, ~sent)
        reading.extras.setdefault(f"{inferred.message}.{key[:80]}", []).append(rows[sent])
    found: dict[str, pa.Array] = {}
    for one in arrow_schema(inferred.message):
        declared = inferred.fields.get(one.name)
        if declared is None:
            found[one.name] = nulls(len(rows), one.type)
        else:
            array = columns.get(inferred.key(one.name))
            array = nulls(len(rows), inferred.type_of(declared)) if array is None else array
            found[one.name] = _field(inferred, declared, one.type, array, rows, reading)
    return found


def _field(
    inferred: InferredSchema, one: FieldDescriptor, kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading
) -> pa.Array:
    """Return the array of one field: a map, a nested message, a list, or a scalar (its default if absent)."""
    if one.name in inferred.maps:
        return _map(one, kind, array, rows, reading)
    if one.name in inferred.nested:
        inner = inferred.nested[one.name]
        return _messages(inner, kind, array, rows, reading) if one.is_repeated else _message(inner, kind, array, rows, reading)
    if one.is_repeated:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
        values = array.flatten()
        reading.suspect(np.repeat(rows, lengths), truth(pc.is_null(values)))
        return _lists(lengths, pc.fill_null(values, ""), kind)
    return _scalar(inferred, one, kind, array, rows, reading)


def _lists(lengths: Rows, values: pa.Array, kind: pa.DataType) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values).cast(kind)


def _message(inner: InferredSchema, kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    columns = {one.name: array.field(index) for index, one in enumerate(array.type)}
    arrays = _fields(inner, columns, rows, reading)
    mask = pc.is_null(array) if array.null_count else None
    return pa.StructArray.from_arrays([arrays[one.name].cast(one.type) for one in kind], fields=_loose(kind), mask=mask)


def _loose(kind: pa.DataType) -> list[pa.Field]:
    return [pa.field(one.name, one.type) for one in kind]


def _messages(inner: InferredSchema, kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
    values = array.flatten()
    owners = np.repeat(rows, lengths)
    reading.suspect(owners, truth(pc.is_null(values)))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, _message(inner, kind.value_type, values, owners, reading))


def _map(one: FieldDescriptor, kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    """Return objects with the learned keys as maps, entries sorted by key."""
    names = [child.name for child in array.type]
    size = len(array)
    valid = np.zeros((size, len(names)), np.bool_)
    for index in range(len(names)):
        valid[:, index] = truth(pc.is_valid(array.field(index)))
    lengths = valid.sum(axis=1)
    reading.doubt(rows, (lengths < len(names)) & truth(pc.is_valid(array)))
    owner, column = np.nonzero(valid)
    keys = pa.DictionaryArray.from_arrays(pa.array(column.astype(np.int32)), pa.array(names, pa.string())).cast(pa.string())
    value = one.message_type.fields_by_name["value"]
    items = _map_items(value, array, valid, rows[owner], reading)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, items.cast(kind.item_type))


def _map_items(value: FieldDescriptor, array: pa.Array, valid: Mask, owners: Rows, reading: Reading) -> pa.Array:
    """Return the values of map entries in order of (row, key)."""
    count = valid.shape[1]
    if value.type == FieldDescriptor.TYPE_STRING:
        flat = pa.concat_arrays([array.field(index) for index in range(count)]) if count else pa.array([], pa.string())
        owner, column = np.nonzero(valid)
        return flat.take(pa.array(column * len(array) + owner))
    numbers = np.zeros(valid.shape, np.float64)
    for index in range(count):
        numbers[:, index] = np.asarray(pc.fill_null(array.field(index), 0.0))
    return _float32(pa.array(numbers[valid]), owners, reading)


def _float32(values: pa.Array, owners: Rows, reading: Reading) -> pa.Array:
    """Return numbers as float32. Bare NaN or Infinity (not JSON) and numbers outside float32 are suspects."""
    narrow = values.cast(pa.float32(), safe=False)
    reading.suspect(owners, truth(pc.invert(pc.is_finite(narrow))))
    return narrow


def _scalar(
    inferred: InferredSchema, one: FieldDescriptor, kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading
) -> pa.Array:
    if one.message_type is not None and one.message_type.full_name == TIMESTAMP:
        return _time(kind, array, rows, reading)
    if one.enum_type is not None:
        values = _enum(one, array, rows, reading)
    elif one.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64):
        values = _integer(kind, array, rows, reading)
    elif one.type == FieldDescriptor.TYPE_FLOAT:
        values = _float32(array, rows, reading)
    elif one.type == FieldDescriptor.TYPE_DOUBLE:
        reading.suspect(rows, truth(pc.invert(pc.is_finite(array))))
        values = array
    else:
        values = array
    if one.has_presence:
        return values.cast(kind)
    zero: Any = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
    return pc.fill_null(values.cast(kind), pa.scalar(zero, kind))


def _enum(one: FieldDescriptor, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    """Return enum numbers from names or numbers; names that this version does not know are suspects."""
    if not pa.types.is_string(array.type):
        return array
    encoded = pc.dictionary_encode(array)
    spec = ENUMS[one.enum_type.name]
    numbers = [spec.number(word) for word in encoded.dictionary.to_pylist()]
    known = pa.array([number if number is not None and abs(number) < 2**31 else None for number in numbers], pa.int32())
    values = known.take(encoded.indices)
    reading.suspect(rows, truth(pc.is_null(values)) & truth(pc.is_valid(array)))
    return values


def _integer(kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    """Return unsigned integers from numbers or strings of digits; other strings are suspects."""
    if not pa.types.is_string(array.type):
        return array.cast(kind)
    plain = truth(pc.ascii_is_decimal(array)) & truth(
        pc.less_equal(pc.binary_length(array), 9 if pa.types.is_uint32(kind) else 19)
    )
    reading.suspect(rows, ~plain & truth(pc.is_valid(array)))
    return pc.if_else(pa.array(plain), array, pa.scalar(None, pa.string())).cast(kind)


def _time(kind: pa.DataType, array: pa.Array, rows: Rows, reading: Reading) -> pa.Array:
    """Return times from RFC 3339 text; other text, and times that Arrow can't hold, are suspects."""
    plain = truth(pc.match_substring_regex(array, _TIME))
    reading.suspect(rows, ~plain & truth(pc.is_valid(array)))
    text = pc.if_else(pa.array(plain), array, pa.scalar(None, pa.string()))
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        reading.suspect(rows, plain)
        return nulls(len(array), kind)
