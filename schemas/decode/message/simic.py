"""Decode Simic's registry snapshots: `<name>_registry.json`, one flat object {key: index}."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.contracts import TABLES, Reason
from schemas.decode.limits import Limits
from schemas.decode.read.lines import WIDE
from schemas.decode.shape.canonical import canonical_json
from schemas.decode.shape.collector import Collector, Origin, RawRecord
from schemas.decode.shape.columns import INT64_MAX
from schemas.decode.shape.plain import is_text
from schemas.decode.shape.rows import decode_columns

_NAME: Final = "simic.registry_snapshot"
_SUFFIX: Final = "_registry.json"
_KEPT: Final = 1024 * 1024
_ENDS: Final = "an early end"
_OPEN: Final = re.compile(r"\s*\{")
_KEY: Final = re.compile(r'\s*("(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")\s*:\s*')
_COMMA: Final = re.compile(r"\s*,")


def decode_snapshot(collector: Collector, path: Path, limits: Limits) -> None:
    """Decode one snapshot; reject a file that is not a flat object as a whole, and a bad entry alone."""
    size = path.stat().st_size
    if size > limits.json_file_bytes:
        message = f"json_file_bytes: expected at most {limits.json_file_bytes}, found {size}"
        collector.reject_record(RawRecord(0, b""), Reason.LIMIT_EXCEEDED, message)
        return
    text = path.read_bytes()
    name = Path(collector.file).name
    whole = RawRecord(0, text[:_KEPT])
    if not name.lower().endswith(_SUFFIX) or len(name) == len(_SUFFIX):
        message = f"{name}: expected a name that ends in {_SUFFIX}"
        collector.reject_record(whole, Reason.UNREADABLE_FILE, message)
        return
    words, zeros = _words(text)
    pairs, damage = _members(words)
    if zeros:
        collector.reject_record(
            RawRecord(len(text) - zeros, text[-1:]), Reason.INVALID_JSON, f"{name}: found {zeros} zero bytes"
        )
    if pairs is None:
        collector.reject_record(whole, Reason.INVALID_JSON, f"{name}: expected one JSON object {{key: index}}, found {damage}")
        return
    _entries(collector, name[: -len(_SUFFIX)], pairs)
    if damage:
        found = f"{name}: expected one JSON object {{key: index}}, found {damage}; the {len(pairs)} entries before it are read"
        reason = Reason.UNREADABLE_FILE if damage.startswith(_ENDS) else Reason.INVALID_JSON
        collector.reject_record(RawRecord(len(pairs), text[:_KEPT]), reason, found)


def _words(data: bytes) -> tuple[str, int]:
    """Return the text, decoded by its byte order mark, and the count of zero bytes after it; bad bytes become surrogates."""
    wide = next((name for mark, name in WIDE if data.startswith(mark)), None)
    kept = data if wide else data.rstrip(b"\0")
    text = kept.decode(wide or "utf-8", "surrogateescape" if wide is None else "surrogatepass")
    inner = text.rstrip("\0")
    return inner.removeprefix("\ufeff"), len(data) - len(kept) + len(text) - len(inner)


def _members(text: str) -> tuple["_Pairs | None", str]:
    """Return the entries of an object up to any damage, and what is wrong; None for entries if it is not an object."""
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except RecursionError as error:
        return None, str(error)
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        damage = f"{_ENDS if ends else 'damage'}: {error}"
        pairs = _Pairs(_before_damage(text))
        return (pairs, damage) if pairs else (None, damage)
    return (found, "") if isinstance(found, _Pairs) else (None, type(found).__name__)


def _before_damage(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a damaged object before the damage; each must end in a comma or at the end of the object."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    at = _OPEN.match(text)
    while at is not None and (key := _KEY.match(text, at.end())) is not None:
        try:
            value, end = decoder.raw_decode(text, key.end())
        except (ValueError, RecursionError):
            return
        at = _COMMA.match(text, end)
        if at is not None or text[end:].lstrip()[:1] == "}":
            yield json.loads(key[1]), value


class _Pairs(list[tuple[str, Any]]):
    """The entries of a JSON object as they were written, repeated keys included."""


def _entries(collector: Collector, registry: str, pairs: _Pairs) -> None:
    kept: dict[str, tuple[int, int]] = {}
    for position, (key, index) in enumerate(pairs):
        record = RawRecord(
            position, canonical_json({key: index if not isinstance(index, _Pairs) else dict(index)}).text.encode()
        )
        if key in kept:
            collector.reject_record(record, Reason.DUPLICATE_KEY, f"{registry}: expected {key[:80]!r} once, found it again")
        elif isinstance(index, bool) or not isinstance(index, int) or not -INT64_MAX <= index <= INT64_MAX:
            message = f"{registry}.{key[:80]}: expected a whole number, found {str(index)[:80]}"
            collector.reject_record(record, Reason.BAD_VALUE, message)
        elif not is_text(key):
            collector.reject_record(record, Reason.BAD_VALUE, f"{registry}: expected keys of Unicode text")
        else:
            kept[key] = (index, position)
    values = {
        "registry": pa.array([registry] * len(kept), pa.string()),
        "key": pa.array(list(kept), pa.string()),
        "index": pa.array([index for index, _ in kept.values()], pa.int64()),
    }
    positions = np.array([position for _, position in kept.values()], np.int64)
    raws = [canonical_json({key: index}).text.encode() for key, (index, _) in kept.items()]
    if kept:
        decode_columns(collector, TABLES[_NAME].name, values.get, Origin(positions, raws), {})
