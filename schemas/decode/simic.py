"""Simic's registry snapshots: `<name>_registry.json`, one flat object {key: index}."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.contracts import TABLES, Reason
from schemas.decode.canonical import canonical_json
from schemas.decode.collector import Collector, Origin, RawRecord
from schemas.decode.columns import INT64_MAX
from schemas.decode.limits import Limits
from schemas.decode.plain import is_text
from schemas.decode.rows import decode_columns

_NAME: Final = "simic.registry_snapshot"
_SUFFIX: Final = "_registry.json"
_KEPT: Final = 1024 * 1024


def decode_snapshot(collector: Collector, path: Path, limits: Limits) -> None:
    """Rows of one snapshot; a file that is no flat object is one reject, a bad entry costs only itself."""
    size = path.stat().st_size
    if size > limits.json_file_bytes:
        message = f"json_file_bytes: expected at most {limits.json_file_bytes}, found {size}"
        collector.reject_record(RawRecord(0, b""), Reason.LIMIT_EXCEEDED, message)
        return
    text = path.read_bytes()
    name = Path(collector.file).name
    whole = RawRecord(0, text[:_KEPT])
    if not name.endswith(_SUFFIX) or name == _SUFFIX:
        message = f"{name}: expected a name that ends in {_SUFFIX}"
        collector.reject_record(whole, Reason.UNREADABLE_FILE, message)
        return
    try:
        pairs = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        collector.reject_record(whole, Reason.INVALID_JSON, f"{name}: expected one JSON object {{key: index}}: {error}")
        return
    if not isinstance(pairs, _Pairs):
        message = f"{name}: expected one JSON object {{key: index}}, found {type(pairs).__name__}"
        collector.reject_record(whole, Reason.INVALID_JSON, message)
        return
    _entries(collector, name.removesuffix(_SUFFIX), pairs)


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
