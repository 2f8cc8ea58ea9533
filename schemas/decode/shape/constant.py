"""Make Arrow arrays of one repeated value, cached by length: many columns are alike, and arrays never change."""

from functools import lru_cache

import pyarrow as pa


@lru_cache(maxsize=128)
def nulls(rows: int, kind: pa.DataType) -> pa.Array:
    """Return `rows` NULLs of type `kind`."""
    return pa.nulls(rows, kind)


@lru_cache(maxsize=16)
def repeated(text: str, rows: int) -> pa.Array:
    """Return `rows` copies of a string."""
    return pa.repeat(pa.scalar(text, pa.string()), rows)


@lru_cache(maxsize=16)
def empty_lists(rows: int) -> pa.Array:
    """Return `rows` empty lists of strings."""
    return pa.ListArray.from_arrays(pa.array([0] * (rows + 1), pa.int32()), pa.array([], pa.string()))
