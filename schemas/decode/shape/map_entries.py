"""Read entries of map columns: the row and key of each, and their order."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
FEW: Final = 64  # values up to which Python lists are faster than whole-column operations
_ALIKE: Final = 4096  # keys of one map; larger maps are hardly ever alike


def map_entries(maps: pa.Array) -> tuple[Ints, pa.Array, pa.Array]:
    """Return the entries of a map column in order, as (row of each, keys, values); a NULL map has none."""
    offsets = np.asarray(maps.offsets, np.int64)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    rows = np.repeat(np.arange(len(maps), dtype=np.int64), np.diff(offsets))
    keys, items = maps.keys.slice(first, last - first), maps.items.slice(first, last - first)
    if maps.null_count:
        real = np.asarray(pc.is_valid(maps))[rows]
        if not real.all():
            kept = pa.array(np.flatnonzero(real))
            return rows[real], keys.take(kept), items.take(kept)
    return rows, keys, items


def entry_order(rows: Ints, keys: pa.Array) -> Ints | None:
    """Return the positions of map entries in order of (row, key), with only the last entry of a repeated key.

    None if the entries are already in this order without repeated keys.
    """
    if len(keys) <= FEW:
        return _order_of_few(rows, keys)
    width = _width(rows, keys)
    if width and _alike(rows.reshape(-1, width)):
        order = _order_of_one(keys.slice(0, width))
        if order is not None:
            in_order = (order == np.arange(width)).all()
            return None if in_order else (np.arange(0, len(rows), width)[:, None] + order).ravel()
    if (np.diff(rows) > 0).all():
        return None
    encoded = pc.dictionary_encode(keys)
    words = encoded.dictionary
    rank = np.empty(len(words), np.int64)
    rank[np.asarray(pc.sort_indices(words))] = np.arange(len(words))
    code = rows * len(words) + rank[np.asarray(encoded.indices)]
    if (np.diff(code) > 0).all():
        return None
    order = np.argsort(code, kind="stable")
    last = np.append(np.diff(code[order]) != 0, True)
    return np.asarray(order[last], np.int64)


def _alike(rows: Ints) -> bool:
    """Return whether each line of `rows`, as a matrix, holds all entries of one map; rows are sorted."""
    first, last = rows[:, 0], rows[:, -1]
    return bool((first == last).all() and (first[1:] > first[:-1]).all())


def _order_of_few(rows: Ints, keys: pa.Array) -> Ints | None:
    """Return `entry_order` of a few entries; code points sort as UTF-8 does."""
    last = {entry: place for place, entry in enumerate(zip(rows.tolist(), keys.to_pylist(), strict=True))}
    order = [last[entry] for entry in sorted(last)]
    return None if order == list(range(len(keys))) else np.array(order, np.int64)


def _order_of_one(keys: pa.Array) -> Ints | None:
    """Return the positions of one map's keys in sorted order; None if a key occurs twice."""
    if len(keys) <= FEW:
        words = keys.to_pylist()
        return np.array(sorted(range(len(words)), key=words.__getitem__), np.int64) if len(set(words)) == len(words) else None
    return None if len(pc.unique(keys)) < len(keys) else np.asarray(pc.sort_indices(keys), np.int64)


def key_codes(rows: Ints, keys: pa.Array) -> tuple[npt.NDArray[Any], list[str]]:
    """Return, for each map entry, the index of its key among the distinct keys, and the distinct keys."""
    if len(keys) <= FEW:
        code_of: dict[str, int] = {}
        few = [code_of.setdefault(word, len(code_of)) for word in keys.to_pylist()]
        return np.array(few, np.int64), list(code_of)
    width = _width(rows, keys)
    encoded = pc.dictionary_encode(keys.slice(0, width) if width else keys)
    codes = np.asarray(encoded.indices)
    return np.tile(codes, len(keys) // width) if width else codes, encoded.dictionary.to_pylist()


def _width(rows: Ints, keys: pa.Array) -> int:
    """Return the number of keys after which the same keys recur in the same order, up to the end; 0 if they do not.

    Maps of one producer mostly have the same keys in the same order. This test costs a tenth of encoding all keys.
    """
    width = int(np.searchsorted(rows, rows[0], side="right")) if len(rows) else 0
    if not 0 < width <= _ALIKE or len(rows) % width or not pa.types.is_string(keys.type) or keys.null_count:
        return 0
    _, bounds, text = keys.buffers()
    offsets = np.frombuffer(bounds, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    lengths = np.diff(offsets)
    if not np.array_equal(lengths[width:], lengths[:-width]):
        return 0
    data = np.frombuffer(text or b"", np.uint8)[offsets[0] : offsets[-1]]
    size = int(offsets[width] - offsets[0])
    return width if np.array_equal(data[size:], data[: len(data) - size]) else 0
