"""Read and write strict JSON: UTF-8, one object, no repeated key, only finite numbers. Errors name the fault and its place."""

import json
import math
from pathlib import Path
from typing import NoReturn

from schemas.errors import TamiyoError


class _Refused(ValueError):
    """A fault that the JSON hooks below found."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key!r} stands there twice")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not strict JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {text[:40]} is larger than a double holds")
    return value


def parse_object(data: bytes, source: Path, error: type[TamiyoError]) -> dict[str, object]:
    """Return the object in `data`. Raises `error`, naming `source` and the place of the damage, if it is not strict JSON."""
    try:
        text = data.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as damage:
        raise error(f"{source}: expected UTF-8, found byte 0x{data[damage.start]:02x} at offset {damage.start}") from None
    except json.JSONDecodeError as damage:
        place = f"line {damage.lineno}, column {damage.colno} (of {len(data)} bytes)"
        raise error(f"{source}: expected JSON, found {damage.msg} at {place}") from None
    except _Refused as damage:
        raise error(f"{source}: {damage}") from None
    except ValueError as damage:  # of an integer with thousands of digits
        raise error(f"{source}: expected JSON, found {damage}") from None
    except RecursionError:
        raise error(f"{source}: expected a flat object, found nesting that is too deep to read") from None
    if not isinstance(parsed, dict):
        raise error(f"{source}: expected one JSON object, found {type(parsed).__name__}")
    return parsed


def read_object(path: Path, error: type[TamiyoError]) -> dict[str, object]:
    """Return the object in the file `path`. Raises `error`, naming the file and the place, if it is absent or damaged."""
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise error(f"{path}: expected a readable file, found {failure.strerror}") from failure
    return parse_object(data, path, error)


def dump_object(value: object) -> bytes:
    """Return `value` as strict JSON on one line, ASCII-escaped. Raises ValueError for NaN and infinities."""
    return (json.dumps(value, allow_nan=False) + "\n").encode("ascii")
