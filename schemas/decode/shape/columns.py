"""Convert one raw Arrow column to a contract column: presence, NaN, enums, 64-bit limits, maps (contracts.md 1 and 2).

Every function works on whole columns. A raw column comes from a protobuf batch (no NULLs, enums as numbers, u64) or from a
Parquet file (NULLs, enums as short names); both take the same path.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import Column, Presence, Reason
from schemas.contracts.enums import EnumSpec
from schemas.decode.shape.constant import empty_lists, nulls
from schemas.decode.shape.map_entries import FEW, entry_order, map_entries

INT64_MAX: Final = 2**63 - 1
Mask = npt.NDArray[np.bool_]
_Int = TypeVar("_Int", np.int32, np.int64)


@dataclass
class Findings:
    """What shaping found besides the values: faulty rows, names of non-finite values by row, unknown enum numbers."""

    rows: int
    faults: list[tuple[Mask, Reason, str]] = field(default_factory=list)
    non_finite: list[tuple[npt.NDArray[np.int64], pa.Array]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def fault(self, mask: Mask, reason: Reason, message: str) -> None:
        """Note that the rows of `mask` break the contract."""
        if mask.any():
            self.faults.append((mask, reason, message))

    def missing(self, rows: npt.NDArray[np.int64], names: pa.Array) -> None:
        """Note names of non-finite values, one per entry of `rows`."""
        if len(rows):
            self.non_finite.append((rows, names))

    def count_unknown(self, name: str, count: int) -> None:
        """Count rows with an undeclared enum number."""
        self.unknown[name] = self.unknown.get(name, 0) + count

    def non_finite_lists(self) -> pa.Array:
        """Return the sorted names of non-finite values per row (list<string> [rows]); empty if all were finite."""
        if not self.non_finite:
            return empty_lists(self.rows)
        rows = np.concatenate([r for r, _ in self.non_finite])
        names = pa.concat_arrays([n.cast(pa.string()) for _, n in self.non_finite])
        order = pc.sort_indices(pa.table({"row": rows, "name": names}), [("row", "ascending"), ("name", "ascending")])
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.rows))])
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), names.take(order))


def truth(mask: Any) -> Mask:
    """Return a boolean Arrow array as NumPy, NULL as False."""
    known = pc.fill_null(mask, False) if mask.null_count else mask
    return np.asarray(known.to_numpy(zero_copy_only=False), dtype=np.bool_)


def null_where(array: pa.Array, mask: Mask) -> pa.Array:
    """Return `array` with NULL wherever `mask` is set."""
    marked = np.count_nonzero(mask)
    if not marked:
        return array
    if marked == len(array):
        return nulls(len(array), array.type)
    if not array.null_count and pa.types.is_primitive(array.type) and not pa.types.is_boolean(array.type):
        return pa.array(array.to_numpy(), array.type, mask=mask)
    return pc.if_else(pa.array(mask), pa.scalar(None, array.type), array)


def shape_column(column: Column, raw: pa.Array, found: Findings) -> pa.Array:
    """Return the contract column of `raw`, of the declared type; what does not fit is noted in `found`."""
    if raw.null_count == len(raw) and column.presence is not Presence.ZERO_OK:
        return nulls(len(raw), column.type)
    if column.measured:
        return _float(column, raw, found)
    if column.enum_spec is not None:
        return _enum(column, column.enum_spec, raw, found)
    if column.is_text:
        text = as_type(raw, pa.string())
        empty = empties(text) if column.presence is Presence.IMPLICIT else None
        return text if empty is None else null_where(text, empty)
    if pa.types.is_map(column.type):
        return _map(column, raw, found)
    if pa.types.is_list(column.type):
        return _list(column, raw)
    if pa.types.is_integer(column.type):
        return _integer(column, raw, found)
    return as_type(raw, column.type)


def plain_floats(columns: Sequence[Column], raws: Mapping[str, pa.Array | None], rows: int) -> dict[str, pa.Array]:
    """Shape float32 columns with nothing to note, all in one matrix, which takes a fraction of the calls; leave out the others.

    Left out are columns with a number that is not finite or out of range, of another type, or where NULL means zero.
    """
    found: dict[str, pa.Array] = {}
    chosen: list[tuple[Column, pa.Array, int]] = []
    for column in columns:
        raw = raws.get(column.name)
        if raw is None or (column.presence is Presence.ZERO_OK and raw.null_count):
            continue
        if raw.null_count == rows:
            found[column.name] = nulls(rows, column.type)
        elif raw.type == column.type:
            chosen.append((column, raw, raw.null_count))
    if not chosen:
        return found
    batch = pa.RecordBatch.from_arrays([raw for _, raw, _ in chosen], names=[column.name for column, _, _ in chosen])
    numbers = batch.to_tensor(null_to_nan=True, row_major=False).to_numpy().T
    finite = np.isfinite(numbers)
    sound = np.count_nonzero(finite) == finite.size - sum(missing for _, _, missing in chosen)
    for values, known, (column, raw, missing) in zip(numbers, finite, chosen, strict=True):
        not_finite = not sound and np.count_nonzero(known) < rows - missing
        if not_finite or (column.bounded and _outside(column, values).any()):
            continue
        some_zero = column.presence is Presence.IMPLICIT and not values.all()
        found[column.name] = null_where(raw, values == 0) if some_zero else raw
    return found


def as_type(array: pa.Array, kind: pa.DataType, *, safe: bool = True) -> pa.Array:
    """Return the array as type `kind`; return it unchanged if it has that type, which a cast takes long to find out."""
    return array if array.type == kind else array.cast(kind, safe=safe)


def empties(text: pa.Array) -> Mask | None:
    """Return which strings are empty (arbitrary for a NULL); None if all strings have characters."""
    if len(text) <= FEW:
        words = text.to_pylist()
        return np.array([word == "" for word in words], np.bool_) if "" in words else None
    empty = byte_lengths(text) == 0
    return empty if empty.any() else None


def byte_lengths(text: pa.Array) -> npt.NDArray[np.int32]:
    """Return the length in bytes of each string (int32 [rows]); the length of a NULL is arbitrary."""
    buffer = text.buffers()[1]
    if buffer is None or not len(text):
        return np.zeros(len(text), np.int32)
    return differences(np.frombuffer(buffer, np.int32)[text.offset : text.offset + len(text) + 1])


def differences(offsets: npt.NDArray[_Int]) -> npt.NDArray[_Int]:
    """Return the length of each segment between offsets, [n] from [n + 1]; `np.diff` costs three times as much on a few."""
    return offsets[1:] - offsets[:-1]


def list_lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Return the number of elements of each list (int64 [rows]); 0 for a NULL."""
    counts = differences(np.asarray(lists.offsets, np.int64))
    return np.where(truth(pc.is_valid(lists)), counts, 0) if lists.null_count else counts


def flat(lists: pa.Array) -> pa.Array:
    """Return the elements of all lists, one list after the other; a NULL has none."""
    if lists.null_count or not len(lists):
        return lists.flatten()
    offsets = lists.offsets
    first = offsets[0].as_py()
    return lists.values.slice(first, offsets[len(lists)].as_py() - first)


def least(values: pa.Array) -> int | None:
    """Return the smallest of int64 values; None if there is none."""
    if not len(values) or values.null_count:
        found: int | None = pc.min(values).as_py()
        return found
    return int(values.to_numpy().min())


def _float(column: Column, raw: pa.Array, found: Findings) -> pa.Array:
    """Return floats: NaN and infinities become NULL and are named, zero is missing without presence, ranges are checked."""
    values = as_type(raw, column.type, safe=False)
    numbers = values.to_numpy(zero_copy_only=False)
    missing = ~np.isfinite(numbers)
    non_finite = missing
    if missing.any():
        non_finite = missing & truth(pc.is_valid(values))
        rows = np.flatnonzero(non_finite)
        found.missing(rows, pa.array([column.name] * len(rows), pa.string()))
    if column.presence is Presence.IMPLICIT:
        missing = missing | (numbers == 0)
    _check_range(column, numbers, missing, found)
    if column.presence is Presence.ZERO_OK and "." not in column.field_path and values.null_count:
        values = pc.fill_null(values, 0.0)
        return null_where(values, non_finite)
    return null_where(values, missing)


def _check_range(column: Column, numbers: npt.NDArray[Any], missing: Mask, found: Findings) -> None:
    """Note values outside the bounds that the contract states as faults."""
    if not column.bounded:
        return
    bad = _outside(column, numbers)
    bounds = f"{'' if column.low is None else column.low}..{'' if column.high is None else column.high}"
    found.fault(bad & ~missing, Reason.OUT_OF_RANGE, f"{column.name}: expected a value within {bounds}, found one outside")


def _outside(column: Column, numbers: npt.NDArray[Any]) -> Mask:
    """Return which numbers are outside the bounds that the contract states."""
    bad = np.zeros(len(numbers), np.bool_)
    if column.low is not None:
        bad |= numbers < column.low
    if column.high is not None:
        bad |= numbers > column.high
    return bad


def _integer(column: Column, raw: pa.Array, found: Findings) -> pa.Array:
    """Return int64: larger u64 and times that do not fit are faults; zero is missing if the field has no presence."""
    if len(raw) <= FEW and pa.types.is_integer(raw.type) and not column.bounded:
        few = raw.to_pylist()
        if all(number is None or 0 <= number <= INT64_MAX for number in few):
            return _few_integers(column, few)
    if pa.types.is_timestamp(raw.type):
        raw = raw.cast(pa.timestamp("ns")).cast(pa.int64())
        raw = _fitting(column, raw, truth(pc.equal(raw, INT64_MAX)), found)
    elif pa.types.is_uint64(raw.type):
        largest = pc.max(raw).as_py() if raw.null_count else raw.to_numpy().max(initial=0)
        if largest is not None and largest > INT64_MAX:
            raw = _fitting(column, raw, truth(pc.greater(raw, pa.scalar(INT64_MAX, pa.uint64()))), found)
    if pa.types.is_unsigned_integer(raw.type) and not raw.null_count:
        values = pa.array(raw.to_numpy().astype(np.int64))  # all fit: those that do not are NULL by now
    else:
        values = as_type(raw, pa.int64())
    if column.is_time:
        earliest = least(values)
        if earliest is not None and earliest < 0:
            values = _fitting(column, values, truth(pc.less(values, 0)), found)
    if column.presence is Presence.IMPLICIT:
        zero = truth(pc.equal(values, 0)) if values.null_count else values.to_numpy() == 0
        values = null_where(values, zero)
    elif column.presence is Presence.ZERO_OK and "." not in column.field_path and values.null_count:
        values = pc.fill_null(values, 0)
    if column.bounded:
        _check_range(column, pc.fill_null(values, 0).to_numpy(), truth(pc.is_null(values)), found)
    return values


def _few_integers(column: Column, numbers: list[int | None]) -> pa.Array:
    """Return the column of a few numbers that fit."""
    if column.presence is Presence.IMPLICIT:
        numbers = [number or None for number in numbers]
    elif column.presence is Presence.ZERO_OK and "." not in column.field_path:
        numbers = [number or 0 for number in numbers]
    return pa.array(numbers, pa.int64())


def _fitting(column: Column, values: pa.Array, bad: Mask, found: Findings) -> pa.Array:
    """Return the values that fit; note the others as faults and make them NULL."""
    if column.is_time:
        message = f"{column.name}: expected nanoseconds since 1970 within 64 bits, found a time before or beyond"
        found.fault(bad, Reason.TIME_OUT_OF_RANGE, message)
    else:
        found.fault(
            bad, Reason.INTEGER_TOO_LARGE, f"{column.name}: expected at most {INT64_MAX}, found a larger unsigned integer"
        )
    return null_where(values, bad)


def _enum(column: Column, spec: EnumSpec, raw: pa.Array, found: Findings) -> pa.Array:
    """Return short names; zero is missing, and an unknown number is kept in decimal and counted."""
    if len(raw) <= FEW:
        numbers = raw.to_pylist()
        word_of = {number: _word(spec, number) for number in dict.fromkeys(numbers)}
        for number, word in word_of.items():
            if word and word not in spec.numbers:
                found.count_unknown(f"{column.enum}={word}", numbers.count(number))
        return pa.array([word_of[number] for number in numbers], pa.string())
    encoded = pc.dictionary_encode(raw)
    words = []
    for value in encoded.dictionary.to_pylist():
        words.append(_word(spec, value))
        if words[-1] and words[-1] not in spec.numbers:
            found.count_unknown(f"{column.enum}={words[-1]}", int(pc.sum(pc.equal(raw, value)).as_py()))
    return pa.array(words, pa.string()).take(encoded.indices)


def _word(spec: EnumSpec, value: int | str | None) -> str | None:
    """Return the short name of an enum's number or name, else the number in decimal or the name; None if it is missing."""
    if value is None:
        return None
    number = value if isinstance(value, int) else spec.number(value)
    return (str(value) if number is None else spec.text(number)) or None


def _list(column: Column, raw: pa.Array) -> pa.Array:
    """Return the lists; an empty bare list is missing, but an empty list inside a message that was sent is known."""
    values = raw
    if pa.types.is_list(raw.type) and raw.type != column.type and not raw.null_count:
        values = pa.ListArray.from_arrays(raw.offsets, raw.values)  # a cast from required elements to these costs more
    values = as_type(values, column.type)
    if column.presence is Presence.IMPLICIT:
        values = null_where(values, list_lengths(values) == 0)
    return values


def _map(column: Column, raw: pa.Array, found: Findings) -> pa.Array:
    """Return maps with entries sorted by key; drop non-finite values and name them.

    Of a repeated key the last entry is kept, as protobuf does.
    """
    few = _few_numbers(column, raw) if len(raw.keys) <= FEW and raw.type.item_type == column.type.item_type else None
    if few is not None:
        return few
    rows, keys, items = map_entries(raw)
    order = entry_order(rows, keys)
    if order is not None:
        rows, keys, items = rows[order], keys.take(pa.array(order)), items.take(pa.array(order))
    item_type = column.type.item_type
    if pa.types.is_floating(item_type):
        items = as_type(items, item_type, safe=False)
        good = np.isfinite(items.to_numpy(zero_copy_only=False))  # a NULL is NaN here
        if not good.all():
            non_finite = keys.filter(pa.array(~good))
            found.missing(rows[~good], pc.binary_join_element_wise(pa.scalar(column.name), non_finite, "."))
            rows, keys, items = rows[good], keys.filter(pa.array(good)), items.filter(pa.array(good))
    elif pa.types.is_struct(item_type):
        items = _map_structs(column, rows, keys, items, found)
    lengths = np.bincount(rows, minlength=len(raw)) if len(rows) else np.zeros(len(raw), np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    absent = lengths == 0 if column.presence is Presence.IMPLICIT else truth(pc.is_null(raw))
    starts = pa.array(offsets, mask=np.append(absent, False))
    return as_type(pa.MapArray.from_arrays(starts, keys, as_type(items, item_type)), column.type)


def _few_numbers(column: Column, raw: pa.Array) -> pa.Array | None:
    """Return maps with a few entries of the column's own type; None if they are not numbers, or not all finite."""
    if not pa.types.is_floating(raw.type.item_type):
        return None
    maps = [None if entries is None else sorted(dict(entries).items()) for entries in raw.to_pylist()]
    if not all(value is not None and math.isfinite(value) for one in maps for _, value in one or ()):
        return None
    if column.presence is Presence.IMPLICIT:
        maps = [one or None for one in maps]
    return pa.array(maps, column.type)


def _map_structs(column: Column, rows: npt.NDArray[np.int64], keys: pa.Array, items: pa.Array, found: Findings) -> pa.Array:
    """Return the messages in a map's entries; zero, NaN and infinite numbers are missing.

    NaN and infinities are named `map.key.field`.
    """
    fields = []
    for one in column.type.item_type:
        values = pc.struct_field(items, one.name).cast(one.type)
        non_finite = truth(pc.invert(pc.is_finite(values)))
        if non_finite.any():
            names = pc.binary_join_element_wise(
                pa.scalar(column.name), keys.filter(pa.array(non_finite)), pa.scalar(one.name), "."
            )
            found.missing(rows[non_finite], names)
        fields.append(null_where(values, non_finite | truth(pc.equal(values, 0))))
    return pa.StructArray.from_arrays(fields, fields=list(column.type.item_type))
