"""Write any Parquet value as JSON: times of any year, text that is not Unicode, unknown types."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa


def cell_text(value: pa.Scalar) -> str:
    """Return a value as one line of text."""
    plain = cell_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def cell_json(value: pa.Scalar) -> Any:
    """Return a value as plain JSON types, or as text if JSON has no type for it. Never raises for a value from a file."""
    kind = value.type
    if not value.is_valid:
        return None
    if isinstance(value, pa.ExtensionScalar | pa.DictionaryScalar | pa.RunEndEncodedScalar):
        return cell_json(value.value)
    if pa.types.is_temporal(kind):
        return _time(value, kind)
    if isinstance(value, pa.StructScalar):
        return {kind.field(place).name: cell_json(value[place]) for place in range(kind.num_fields)}
    if isinstance(value, pa.MapScalar):
        return [[cell_json(one[0]), cell_json(one[1])] for one in value.values]
    if isinstance(value, pa.ListScalar):
        return [cell_json(one) for one in value.values]
    if isinstance(value, pa.StringScalar | pa.BinaryScalar):
        return _text(value)
    return _plain(value)


def _text(value: pa.StringScalar | pa.BinaryScalar) -> Any:
    """Return the text; bytes that are not UTF-8 become an object, which a text column rejects when it is read again."""
    buffer = value.as_buffer()
    data = b"" if buffer is None else buffer.to_pybytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base16": data.hex()}


def _plain(value: pa.Scalar) -> Any:
    try:
        found = value.as_py()
    except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError):
        return f"a value of type {value.type}"
    if isinstance(found, float) and not math.isfinite(found):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(found, "NaN")
    return found if isinstance(found, bool | int | float | str) else str(found)


def _time(value: pa.Scalar, kind: pa.DataType) -> str:
    """Return a time of any year as ISO 8601, or a duration or time of day with its unit."""
    if pa.types.is_interval(kind):
        return str(value.as_py())
    number = int(value.value)
    if pa.types.is_date32(kind):
        return str(np.datetime64(number, "D"))
    if pa.types.is_date64(kind):
        return str(np.datetime64(number, "ms"))
    if pa.types.is_timestamp(kind):
        return str(np.datetime64(number, kind.unit)) + ("Z" if kind.tz else "")
    return f"{number} {kind.unit}"
