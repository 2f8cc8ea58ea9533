"""Convert JSON lines to protobuf bytes one record at a time, and say what is wrong with a line."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from schemas.contracts import Reason
from schemas.contracts.enums import ENUMS
from schemas.decode.limits import Limits
from schemas.decode.read.batches import message_class
from schemas.decode.shape.collector import BadRecord, Drift
from schemas.decode.shape.times import EXACT_FLOAT, BadTime, fitting_ns, iso_ns

_LARGEST: Final = (2 - 2**-23) * 2.0**127  # float32
_ROUNDED_UP: Final = (2 - 2**-24) * 2.0**127  # from here on a number rounds to infinity
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_STRUCT: Final = "google.protobuf.Struct"
_INTEGERS: Final = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)


def parse_object(line: bytes, limits: Limits) -> dict[str, Any]:
    """Return the JSON object of one line. Raises BadRecord for anything else, for repeated keys and for nesting too deep."""
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except BadRecord:
        raise
    except RecursionError:
        raise BadRecord(Reason.LIMIT_EXCEEDED, f"nesting: expected at most {limits.nesting} levels, found more") from None
    except ValueError as error:
        raise BadRecord(Reason.INVALID_JSON, f"expected one JSON object: {error}") from None
    if not isinstance(value, dict):
        raise BadRecord(Reason.INVALID_JSON, f"expected one JSON object, found {type(value).__name__}")
    if line.count(b"{") + line.count(b"[") > limits.nesting:
        _check_nesting(value, limits)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise BadRecord(Reason.DUPLICATE_KEY, f"expected each key once, found {repeated[:80]!r} again")
    return found


def _no_constant(name: str) -> Any:
    raise BadRecord(Reason.INVALID_JSON, f'expected JSON, found the bare word {name}; write it as the string "{name}"')


def _check_nesting(value: Any, limits: Limits) -> None:
    """Raise BadRecord if lists and objects nest deeper than the limit allows."""
    level = [value]
    for _ in range(limits.nesting):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise BadRecord(Reason.LIMIT_EXCEEDED, f"nesting: expected at most {limits.nesting} levels, found more")


@lru_cache(maxsize=64)
def _fields(message: Any) -> Mapping[str, FieldDescriptor]:
    """Return the fields of a message by each of their two spellings."""
    return {name: one for one in message.fields for name in (one.name, one.json_name)}


def to_message(value: dict[str, Any], message: str, drift: Drift) -> Any:
    """Return the Leyline message of a JSON object. Raises BadRecord if a value is not of its field's type."""
    target = message_class(message)()
    try:
        json_format.ParseDict(_canonical(value, target.DESCRIPTOR, drift), target)
    except BadRecord:
        raise
    except (json_format.ParseError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise BadRecord(Reason.BAD_VALUE, f"expected a {message}: {str(error)[:300]}") from None
    return target


def _canonical(value: Any, message: Any, drift: Drift) -> dict[str, Any]:
    """Return `value` with proto field names and enum numbers; count undeclared keys and leave them out."""
    if not isinstance(value, dict):
        raise BadRecord(Reason.BAD_VALUE, f"expected an object for {message.name}, found {type(value).__name__}")
    fields = _fields(message)
    found: dict[str, Any] = {}
    for key, item in value.items():
        one = fields.get(key)
        if one is None:
            drift.count(f"{message.name}.{key[:80]}")
            continue
        if one.name in found:
            raise BadRecord(Reason.DUPLICATE_KEY, f"expected {one.name} once, found it in both spellings")
        found[one.name] = _value(item, one, drift)
    return found


def _value(item: Any, one: FieldDescriptor, drift: Drift) -> Any:
    """Return the value of one field, with enums as numbers and nested messages in canonical form."""
    if item is None:
        return None
    if one.enum_type is not None:
        return _enum_number(item, one)
    nested = one.message_type
    if nested is None:
        if one.type in _INTEGERS:
            return _whole(item, one)
        return _rounded(item) if one.type == FieldDescriptor.TYPE_FLOAT else item
    if nested.full_name == _TIMESTAMP:
        return _timestamp(item, one)
    if nested.full_name == _STRUCT:
        return item
    if nested.GetOptions().map_entry:
        inner = nested.fields_by_name["value"].message_type
        if not isinstance(item, dict):
            return item
        if inner is None:
            return {key: _value(child, nested.fields_by_name["value"], drift) for key, child in item.items()}
        return {key: _canonical(child, inner, drift) for key, child in item.items()}
    if one.is_repeated:
        return [_canonical(child, nested, drift) for child in item] if isinstance(item, list) else item
    return _canonical(item, nested, drift)


def _whole(item: Any, one: FieldDescriptor) -> Any:
    """Return an integer; NaN counts as missing, and a time may be ISO 8601. Raises BadRecord if the number is inexact."""
    if isinstance(item, float) and abs(item) > EXACT_FLOAT:
        raise BadRecord(Reason.BAD_VALUE, f"{one.name}: expected a whole number, found the float {item!r}, which is not exact")
    if item == "NaN":
        return None
    if not one.name.endswith("_ns"):
        return item
    if isinstance(item, int) and item < 0:
        raise BadRecord(Reason.TIME_OUT_OF_RANGE, f"{one.name}: expected nanoseconds since 1970, found {str(item)[:80]}")
    if isinstance(item, str) and "-" in item[1:]:
        try:
            return fitting_ns(item)
        except BadTime as error:
            raise BadRecord(error.reason, f"{one.name}: {error}") from None
    return item


def _timestamp(item: Any, one: FieldDescriptor) -> Any:
    """Return an ISO 8601 time as protobuf's JSON spells it; its column checks later whether it fits."""
    if not isinstance(item, str):
        return item
    try:
        stamp = Timestamp()
        stamp.FromNanoseconds(iso_ns(item))
        return stamp.ToJsonString()
    except BadTime as error:
        raise BadRecord(error.reason, f"{one.name}: {error}") from None
    except (ValueError, OverflowError) as error:
        message = f"{one.name}: expected nanoseconds since 1970 within 64 bits, found {item[:80]!r}: {error}"
        raise BadRecord(Reason.TIME_OUT_OF_RANGE, message) from None


def _rounded(item: Any) -> Any:
    """Return the number; just above the largest float32 (as that one is printed), return the largest float32."""
    if isinstance(item, float) and _LARGEST < abs(item) < _ROUNDED_UP:
        return math.copysign(_LARGEST, item)
    return item


def _enum_number(item: Any, one: FieldDescriptor) -> Any:
    """Return an enum's number from a wire name, a short name or a number. Raises BadRecord for an unknown name."""
    if not isinstance(item, str):
        return item
    number = ENUMS[one.enum_type.name].number(item)
    if number is None:
        expected = ", ".join(list(ENUMS[one.enum_type.name].numbers)[:4])
        raise BadRecord(Reason.UNKNOWN_ENUM_NAME, f"{one.name}: expected {expected}, ... or a number, found {item[:80]!r}")
    return number
