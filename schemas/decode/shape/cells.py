"""Convert Parquet cells to the contract's types. A bad cell rejects its row; a column of a wrong type rejects its file."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import Column, Presence, Reason
from schemas.decode.shape.cell_text import cell_text
from schemas.decode.shape.columns import Findings, Mask, null_where, truth
from schemas.decode.shape.map_entries import map_entries
from schemas.decode.shape.times import EXACT_FLOAT, INT64_MAX, BadTime, fitting_ns

_UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY: Final = 86_400 * 10**9
_SHOWN: Final = 32  # bad cells of a column that get messages of their own; the others share one
_NO_NUMBER: Final = "nan"
_FAILURES: Final = (pa.ArrowInvalid, ValueError, OverflowError, TypeError)


class WrongColumns(ValueError):
    """The columns of a Parquet file are not those of a table of its folder."""


def shape_cells(array: pa.Array, column: Column, found: Findings, most: int | None = None) -> pa.Array:
    """Convert `array` to values that `columns.shape_column` takes; note bad cells as faults of their rows, and make them NULL.

    `most`: the largest value of a column of unsigned integers; None if values may be negative. Raises WrongColumns if no cell
    of the array's type can be a value of the column.
    """
    array = stored(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string() if column.enum else column.type)
    if column.is_time:
        return _times(array, column, found)
    if column.enum:
        return _names(array, column, found)
    if pa.types.is_integer(column.type):
        return _unsigned(array, _integers(array, column, found), column, most, found)
    if column.measured:
        return _floats(array, column, found)
    if pa.types.is_boolean(column.type):
        return _truths(array, column, found)
    return cast_cells(array, column.name, column.type, found)


def stored(array: pa.Array) -> pa.Array:
    """Return an array of plain values, without dictionary or run-length encoding or extension types."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif isinstance(array, pa.DictionaryArray):
            array = array.dictionary_decode()
        elif isinstance(array, pa.RunEndEncodedArray):
            array = pc.run_end_decode(array)
        else:
            return array


def cast_cells(array: pa.Array, name: str, kind: pa.DataType, found: Findings) -> pa.Array:
    """Return cells as texts, lists or maps; a cell that is not Unicode text, or holds a forbidden NULL, is bad."""
    values, bad = _each(array, lambda part: _valid(_convert(part, name, kind)), kind)
    if pa.types.is_list(kind) and values.values.null_count:
        owners = np.repeat(np.arange(len(values)), np.diff(np.asarray(values.offsets)))
        inner = values.values.slice(values.offsets[0].as_py(), len(owners))
        bad[owners[truth(pc.is_null(inner))]] = True
        bad &= truth(pc.is_valid(array))
    elif pa.types.is_map(kind) and pa.types.is_floating(kind.item_type):
        bad[_beyond(array, values)] = True
    _note(array, name, str(kind), bad, found)
    return null_where(values, bad)


def _beyond(array: pa.Array, values: pa.Array) -> npt.NDArray[np.int64]:
    """Return the rows of a map column with a finite number that the contract's float type can't hold."""
    if not pa.types.is_map(array.type) or not pa.types.is_float64(array.type.item_type):
        return np.zeros(0, np.int64)
    (rows, _, wide), (same, _, narrow) = map_entries(array), map_entries(values)
    if len(rows) != len(same):  # some rows are bad already
        return np.zeros(0, np.int64)
    return rows[truth(pc.is_finite(wide)) & ~truth(pc.is_finite(narrow))]


def _convert(array: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind) and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        array = array.cast(pa.binary() if pa.types.is_string(array.type) else pa.large_binary())
    try:
        return array if array.type.equals(kind) else array.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError) as error:
        raise WrongColumns(f"{name}: expected {kind}, found {array.type}: {error}") from None


def _valid(array: pa.Array) -> pa.Array:
    """Return the array. Raises ArrowInvalid if a text in it is not Unicode."""
    array.validate(full=True)
    return array


def _each(array: pa.Array, convert: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """Apply `convert` to the array, part by part if it fails; return the values and a mask of the cells that fail (NULL)."""
    bad = np.zeros(len(array), np.bool_)
    parts: list[pa.Array] = []
    pending = [(0, len(array))]
    while pending:
        first, last = pending.pop()
        # a slice shares the children of the whole array, bad values included
        part = array if last - first == len(array) else array.take(pa.array(range(first, last)))
        try:
            parts.append(convert(part))
        except WrongColumns:
            raise
        except _FAILURES:
            if last - first > 1:
                middle = (first + last) // 2
                pending += [(middle, last), (first, middle)]
            else:
                bad[first:last] = True
                parts.append(pa.nulls(last - first, kind))
    return (parts[0] if len(parts) == 1 else pa.concat_arrays(parts)), bad


def _note(array: pa.Array, name: str, expected: str, bad: Mask, found: Findings) -> None:
    """Note bad cells as faults of their rows; the messages name the column and show the first cells."""
    rows = np.flatnonzero(bad)
    for row in rows[:_SHOWN].tolist():
        mask = np.zeros(len(bad), np.bool_)
        mask[row] = True
        found.fault(mask, Reason.BAD_VALUE, f"{name}: expected {expected}, found {cell_text(array[row])[:80]!r}")
    rest = bad.copy()
    rest[rows[:_SHOWN]] = False
    found.fault(rest, Reason.BAD_VALUE, f"{name}: expected {expected}, found another value")


def _integers(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return whole numbers; NaN counts as missing. A fraction, or a float too large to be exact, is bad."""
    kind = array.type
    if pa.types.is_temporal(kind):
        raise WrongColumns(f"{column.name}: expected {column.type}, found {kind}")
    if pa.types.is_integer(kind):
        return array if pa.types.is_uint64(kind) else array.cast(pa.int64())
    if pa.types.is_floating(kind):
        numbers = np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        missing = np.isnan(numbers)
        bad = ~missing & ~(np.abs(numbers) <= EXACT_FLOAT)
        bad |= ~missing & ~bad & (np.trunc(numbers) != numbers)
        _note(array, column.name, f"a whole number up to 2^53 for {column.type}", bad, found)
        return pa.array(np.where(missing | bad, 0, numbers).astype(np.int64), mask=missing | bad)
    if _is_text(kind):
        array = _texts(array, column, found)
        array = null_where(array, truth(pc.equal(pc.utf8_lower(array), _NO_NUMBER)))
    values, bad = _each(array, lambda part: _convert(part, column.name, pa.int64()), pa.int64())
    _note(array, column.name, str(column.type), bad, found)
    return values


def _unsigned(array: pa.Array, values: pa.Array, column: Column, most: int | None, found: Findings) -> pa.Array:
    """Note negative and too large values as faults, as protobuf's JSON refuses them; return the others. Skips u64 arrays."""
    if most is None or not pa.types.is_int64(values.type):
        return values
    bounds = pc.min_max(values).as_py()
    if bounds["min"] is None or (bounds["min"] >= 0 and bounds["max"] <= most):
        return values
    bad = truth(pc.or_(pc.less(values, 0), pc.greater(values, min(most, INT64_MAX))))
    _note(array, column.name, f"a whole number from 0 to {most}", bad, found)
    return null_where(values, bad)


def _is_text(kind: pa.DataType) -> bool:
    wide = (pa.types.is_large_string, pa.types.is_large_binary, pa.types.is_string_view, pa.types.is_binary_view)
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_binary, pa.types.is_fixed_size_binary, *wide))


def _texts(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return texts without surrounding spaces."""
    return pc.utf8_trim_whitespace(cast_cells(array, column.name, pa.string(), found))


def _floats(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return numbers in the column's float type; a finite number that it can't hold is bad."""
    if _is_text(array.type):
        array = _texts(array, column, found)
    wide, bad = _each(array, lambda part: _loose(part, column), pa.float64())
    _note(array, column.name, str(column.type), bad, found)
    values = wide.cast(column.type, safe=False)
    beyond = truth(pc.is_finite(wide)) & ~truth(pc.is_finite(values))
    _note(array, column.name, f"a number within {column.type}", beyond, found)
    return null_where(values, beyond)


def _loose(array: pa.Array, column: Column) -> pa.Array:
    try:
        return array.cast(pa.float64(), safe=False)
    except pa.ArrowNotImplementedError as error:
        raise WrongColumns(f"{column.name}: expected {column.type}, found {array.type}: {error}") from None


def _truths(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return booleans from true and false, 1 and 0, or text; NaN is missing."""
    if pa.types.is_floating(array.type) or (pa.types.is_integer(array.type)):
        numbers = np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
        missing = np.isnan(numbers)
        bad = ~missing & (numbers != 0) & (numbers != 1)
        _note(array, column.name, "true or false", bad, found)
        return pa.array(numbers == 1, mask=missing | bad)
    if _is_text(array.type):
        array = _texts(array, column, found)
    values, bad = _each(array, lambda part: _convert(part, column.name, pa.bool_()), pa.bool_())
    _note(array, column.name, "true or false", bad, found)
    return values


def _names(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return names of enum values, or their numbers in decimal. An unknown name is a fault, as in JSON."""
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        array = _integers(array, column, found)
    values = cast_cells(array, column.name, pa.string(), found)
    spec = column.enum_spec
    if spec is None or column.presence is not Presence.IMPLICIT:
        return values
    encoded = pc.dictionary_encode(values)
    words = encoded.dictionary.to_pylist()
    unknown = pa.array([bool(word) and spec.number(word) is None for word in words], pa.bool_())
    bad = truth(unknown.take(encoded.indices)) if len(words) else np.zeros(len(values), np.bool_)
    message = f"{column.name}: expected {', '.join(list(spec.numbers)[:4])}, ... or a number, found another name"
    found.fault(bad, Reason.UNKNOWN_ENUM_NAME, message)
    return null_where(values, bad)


def _times(array: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return nanoseconds since 1970 from typed times, from numbers (nanoseconds), or from text (ISO 8601 or digits)."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _scaled(array.cast(pa.int64()), _UNITS[kind.unit], column, found)
    if pa.types.is_date32(kind):
        return _scaled(array.cast(pa.int32()).cast(pa.int64()), _DAY, column, found)
    if pa.types.is_date64(kind):
        return _scaled(array.cast(pa.int64()), _UNITS["ms"], column, found)
    if _is_text(kind):
        return _parsed(_texts(array, column, found), column, found)
    if pa.types.is_boolean(kind):
        raise WrongColumns(f"{column.name}: expected a time, found {kind}")
    return _integers(array, column, found)


def _scaled(values: pa.Array, factor: int, column: Column, found: Findings) -> pa.Array:
    """Convert times of another unit to nanoseconds; times that are negative or do not fit are faults."""
    numbers = np.asarray(pc.fill_null(values, 0), np.int64)
    absent = truth(pc.is_null(values))
    bad = ~absent & ((numbers < 0) | (numbers > INT64_MAX // factor))
    time_fault(bad, column, found)
    return pa.array(np.where(bad, 0, numbers) * factor, mask=absent | bad)


def time_fault(bad: Mask, column: Column, found: Findings) -> None:
    """Note times that do not fit as faults."""
    message = f"{column.name}: expected nanoseconds since 1970 within 64 bits, found a time before or beyond"
    found.fault(bad, Reason.TIME_OUT_OF_RANGE, message)


def _parsed(texts: pa.Array, column: Column, found: Findings) -> pa.Array:
    """Return texts as nanoseconds: digits are nanoseconds, other text must be ISO 8601."""
    encoded = pc.dictionary_encode(texts)
    numbers: list[int | None] = []
    faults: list[tuple[int, BadTime]] = []
    for place, word in enumerate(encoded.dictionary.to_pylist()):
        try:
            numbers.append(None if word.lower() == _NO_NUMBER else _time(word))
        except BadTime as error:
            numbers.append(None)
            faults.append((place, error))
    indices: npt.NDArray[Any] = np.asarray(pc.fill_null(encoded.indices, -1))
    for reason in (Reason.BAD_VALUE, Reason.TIME_OUT_OF_RANGE):
        wrong = [(place, error) for place, error in faults if error.reason is reason]
        for place, fault in wrong[:_SHOWN]:
            found.fault(indices == place, reason, f"{column.name}: {fault}")
        rest = np.isin(indices, [place for place, _ in wrong[_SHOWN:]])
        found.fault(rest, reason, f"{column.name}: expected a time, found another value")
    return pa.array(numbers, pa.int64()).take(encoded.indices)


def _time(word: str) -> int:
    digits = word.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return fitting_ns(word)
    number = int(word) if len(digits) < 30 else INT64_MAX + 1
    if not 0 <= number <= INT64_MAX:
        raise BadTime(Reason.TIME_OUT_OF_RANGE, f"expected nanoseconds since 1970 within 64 bits, found {word[:80]!r}")
    return number
