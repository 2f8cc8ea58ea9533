"""Digest content: single rows (to break ties between records of one key) and whole tables (data versions).

Digests cover the content alone: `export_digest`, `position` and `arrival`, which say where a row came from, are left out.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import Table

PROVENANCE: Final = frozenset({"export_digest", "position", "arrival"})
_MISSING: Final = "~"
_TEXT_ROWS: Final = 32_768  # rows whose text is in memory at once


def content(rows: pa.Table) -> pa.Table:
    """Return the columns that take part in equality, sorted by name."""
    return rows.select(sorted(name for name in rows.column_names if name not in PROVENANCE))


def row_digests(rows: pa.Table) -> list[str]:
    """Return the hex SHA-256 of each row's canonical text.

    The text has one line per column, sorted by name. Floats are written as their bits, text as its length and bytes.
    """
    chosen = content(rows)
    found: list[str] = []
    for start in range(0, rows.num_rows, _TEXT_ROWS):
        part = chosen.slice(start, _TEXT_ROWS)
        lines = pc.binary_join_element_wise(*(_text(_array(part.column(name))) for name in part.column_names), "\n")
        found += [hashlib.sha256(line.encode("utf-8")).hexdigest() for line in lines.to_pylist()]
    return found


def table_digest(table: Table | Sequence[str], rows: pa.Table) -> str:
    """Return the hex SHA-256 of the rows sorted by key; the order in which they are stored does not matter.

    `table`: the contract table, or the names of the key columns. The key must be unique, as it is after `merge`.
    """
    key = table.key if isinstance(table, Table) else tuple(table)
    order = pc.sort_indices(rows.select(list(key)), [(name, "ascending") for name in key])
    return _digests(rows, order, np.array([0, rows.num_rows]))[0]


def part_digests(table: Table | Sequence[str], rows: pa.Table, column: str) -> dict[str, tuple[str, int]]:
    """Return `table_digest` (hex) and row count of the rows of each value of `column` (text without NULLs), sorted by value.

    All parts are sorted and encoded at once: of 100,000 small parts, ten times as fast as one by one.
    """
    key = table.key if isinstance(table, Table) else tuple(table)
    names = [column, *(name for name in key if name != column)]
    order = pc.sort_indices(rows.select(names), [(name, "ascending") for name in names])
    coded = _array(rows.column(column)).take(order).dictionary_encode()
    cuts = np.append(0, np.cumsum(np.bincount(coded.indices.to_numpy())))
    digests = _digests(rows, order, cuts)
    return dict(zip(coded.dictionary.to_pylist(), zip(digests, np.diff(cuts).tolist(), strict=True), strict=True))


def _digests(rows: pa.Table, order: pa.Array, cuts: npt.NDArray[np.int64]) -> list[str]:
    """Return the digest of each part of the rows in `order`; part i holds those from `cuts[i]` to `cuts[i + 1]`."""
    chosen = content(rows)
    digests = [hashlib.sha256(b"%d\n" % size) for size in np.diff(cuts).tolist()]
    for name in chosen.column_names:
        array = _array(chosen.column(name))
        head = f"{name}:{_kind(array.type)}\n".encode()
        for digest in digests:
            digest.update(head)
        _update(digests, cuts, array.take(order))
    return [digest.hexdigest() for digest in digests]


def can_hash(schema: pa.Schema) -> bool:
    """Return whether `hashed_runs` takes rows of this schema: only plain values and lists of texts."""
    return all(not pa.types.is_nested(one.type) or one.type == pa.list_(pa.string()) for one in schema)


def hashed_runs(rows: pa.Table, column: str) -> dict[str, tuple[str, int]]:
    """Return digest (hex) and row count by value of `column`, sorted by value; the order of the rows does not matter.

    Polars hashes rows to 128 bits: 20 times as fast as `table_digest`, but not safe against an adversary, and different with
    another version of polars. Use it only for derived tables, which are then made again.
    """
    import polars as pl

    if not rows.num_rows:
        return {}
    chosen = content(rows)
    kinds = ",".join(f"{one.name}:{_kind(one.type)}" for one in chosen.schema)
    frame = pl.from_arrow(chosen)
    if isinstance(frame, pl.Series):
        frame = frame.to_frame()
    hashes = np.stack([frame.hash_rows(seed).to_numpy() for seed in (0, 1)], axis=1)
    coded = _array(rows.column(column)).dictionary_encode()
    order = np.lexsort((hashes[:, 1], hashes[:, 0], coded.indices.to_numpy()))
    bounds = np.append(0, np.cumsum(np.bincount(coded.indices.to_numpy())))
    found, ordered = {}, hashes[order]
    for code, name in enumerate(coded.dictionary.to_pylist()):
        part = ordered[bounds[code] : bounds[code + 1]]
        found[name] = (hashlib.sha256(kinds.encode() + part.tobytes()).hexdigest(), len(part))
    return dict(sorted(found.items()))


def ordered_digest(rows: pa.Table) -> str:
    """Return the hex SHA-256 of all columns, with rows in stored order: cheap, but depends on that order."""
    digest = hashlib.sha256(f"{rows.num_rows}\n".encode())
    for name in rows.column_names:
        array = _array(rows.column(name))
        digest.update(f"{name}:{_kind(array.type)}\n".encode())
        _update([digest], np.array([0, rows.num_rows]), array)
    return digest.hexdigest()


def _array(column: Any) -> pa.Array:
    """Return a column, which may be chunked or dictionary-encoded, as one plain array."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _lengths(array: pa.Array) -> tuple[npt.NDArray[np.int64], list[pa.Array]]:
    """Return the entries per row (int64 [rows], 0 if NULL) of a list or map, and its flat children."""
    offsets = np.asarray(array.offsets, np.int64)
    lengths = np.diff(offsets)
    children = [array.keys, array.items] if pa.types.is_map(array.type) else [array.values]
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    flat = np.flatnonzero(np.repeat(valid, lengths)) + int(offsets[0] if len(offsets) else 0)
    return np.where(valid, lengths, 0), [child.take(pa.array(flat)) for child in children]


def _kind(kind: pa.DataType) -> str:
    """Return the name of a type without what storage may change: names of list items, nullability, width of offsets."""
    if pa.types.is_map(kind):
        return f"map<{_kind(kind.key_type)},{_kind(kind.item_type)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{one.name}:{_kind(one.type)}' for one in kind)}>"
    return str(kind).removeprefix("large_").removesuffix("_view")


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _text(array: pa.Array) -> pa.Array:
    """Return the canonical text of each value; different values have different texts."""
    kind = array.type
    if _is_nested(kind):
        lengths, children = _lengths(array)
        words = _joined([_text(child) for child in children])
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        inner = pc.binary_join(pa.ListArray.from_arrays(offsets, words), ",")
        text = pc.binary_join_element_wise("[", inner, "]", "")
    elif pa.types.is_struct(kind):
        fields = [_text(pc.struct_field(array, index)) for index in range(kind.num_fields)]
        text = pc.binary_join_element_wise("(", _joined(fields), ")", "")
    elif pa.types.is_floating(kind):
        text = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.string())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        size = pc.binary_length(array).cast(pa.string())
        text = pc.binary_join_element_wise(size, array.cast(pa.string()), ":")
    else:
        text = array.cast(pa.string())
    valid = array.is_valid()
    return pc.if_else(valid, text, pa.scalar(_MISSING, pa.string()))


def _joined(words: list[pa.Array]) -> pa.Array:
    return words[0] if len(words) == 1 else pc.binary_join_element_wise(*words, "=")


def _bytes(array: pa.Array) -> memoryview:
    """Return the bytes of a large_binary column without NULLs, one value after the other."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]


def _update(digests: Sequence[Any], cuts: npt.NDArray[np.int64], array: pa.Array) -> None:
    """Feed validity, lengths and values of each part of a column to its digest.

    `cuts` (int64 [parts + 1]): where the parts begin and end. NULL slots count as zero, whatever bytes are under them.
    """
    _feed_bits(digests, cuts, array.is_valid())
    kind = array.type
    if _is_nested(kind):
        lengths, children = _lengths(array)
        _feed(digests, cuts, lengths)
        inner = np.append(0, np.cumsum(lengths))[cuts]
        for child in children:
            _update(digests, inner, child)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            _update(digests, cuts, pc.struct_field(array, index))
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        filled = pc.fill_null(array.cast(pa.large_binary()), b"")
        lengths = np.asarray(pc.binary_length(filled), np.int64)
        _feed(digests, cuts, lengths)
        _feed(digests, np.append(0, np.cumsum(lengths))[cuts], np.frombuffer(_bytes(filled), np.uint8))
    elif pa.types.is_null(kind):
        for digest in digests:
            digest.update(b"null")
    elif pa.types.is_boolean(kind):
        _feed_bits(digests, cuts, pc.fill_null(array, False))
    else:
        _feed(digests, cuts, pc.fill_null(array, pa.scalar(0, kind)).to_numpy(zero_copy_only=False))


def _feed(digests: Sequence[Any], cuts: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
    """Feed the bytes of each part of `values` to its digest."""
    data = np.ascontiguousarray(values).view(np.uint8).data
    bounds = (cuts * values.itemsize).tolist()
    for digest, start, end in zip(digests, bounds, bounds[1:], strict=False):
        digest.update(data[start:end])


def _feed_bits(digests: Sequence[Any], cuts: npt.NDArray[np.int64], flags: pa.Array) -> None:
    """Feed the flags of each part, packed into bytes part by part, to its digest."""
    values = np.asarray(flags.to_numpy(zero_copy_only=False), np.bool_)
    bounds = cuts.tolist()
    for digest, start, end in zip(digests, bounds, bounds[1:], strict=False):
        digest.update(np.packbits(values[start:end]))
