"""Columns of Arrow tables as NumPy arrays with one more row at the end that stands for "no row".

A join that finds nothing gives row -1, and NumPy's index -1 picks that last row: NaN, code -1, an all-zero multi-hot. So
one packet and a million are read by the same few array operations, without a data frame and without a branch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Vocabulary(Protocol):
    """What a registry does here: 0 for a missing key, capacity-1 for an unknown one."""

    def encode(self, keys: Sequence[str | None]) -> Ints:
        """Ids (int64 [n]) of n keys."""
        ...


@dataclass(frozen=True)
class Labels:
    """n strings as `codes` (int64 [n], -1 missing) into `words`."""

    codes: Ints
    words: tuple[str, ...]

    def take(self, rows: Ints) -> "Labels":
        """The labels of those rows."""
        return Labels(self.codes[rows], self.words)

    def otherwise(self, other: "Labels") -> "Labels":
        """These labels, and those of `other` where one is missing here."""
        moved = np.where(other.codes >= 0, other.codes + len(self.words), -1)
        return Labels(np.where(self.codes >= 0, self.codes, moved), self.words + other.words)

    def only(self, keep: Bools) -> "Labels":
        """The labels where `keep`, missing elsewhere."""
        return Labels(np.where(keep, self.codes, -1), self.words)

    def ids(self, registry: Vocabulary) -> Ints:
        """Registry ids: 0 where missing."""
        return np.append(registry.encode(self.words), 0)[self.codes]

    def translate(self, codes_of: Mapping[str, int]) -> Ints:
        """Codes (int64 [n]) of another vocabulary: -1 where missing here or there."""
        table = np.fromiter((codes_of.get(word, -1) for word in self.words), dtype=np.int64, count=len(self.words))
        return np.append(table, -1)[self.codes]

    def arrow(self) -> pa.Array:
        """The strings, NULL where missing."""
        return pa.array(np.asarray([*self.words, None], dtype=object)[self.codes], pa.string())


@dataclass(frozen=True)
class Lists:
    """n lists of strings: `known` bool [n] (a list was sent), offsets `ptr` int64 [n + 1] into `items`."""

    known: Bools
    ptr: Ints
    items: Labels
    arrow: pa.Array

    def multi_hot(self, registry: Vocabulary, width: int) -> Singles:
        """float32 [n, width]: channel id-1 for an entry, the last channel for all that do not fit or are unknown."""
        hots = np.zeros((len(self.known), width), dtype=np.float32)
        ids = self.items.ids(registry)
        rows = np.repeat(np.arange(len(self.known)), np.diff(self.ptr))
        said = ids > 0
        hots[rows[said], np.minimum(ids[said] - 1, width - 1)] = 1.0
        return hots


def offsets(counts: Ints) -> Ints:
    """int64 [n + 1]: where each of n segments of these lengths starts, and where the last one ends."""
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ptr[1:])
    return ptr


def expand(starts: Ints, counts: Ints) -> Ints:
    """starts[0] .. starts[0]+counts[0]-1, starts[1] .., as one int64 array."""
    ptr = offsets(counts)
    return np.repeat(starts - ptr[:-1], counts) + np.arange(ptr[-1])


def _whole(table: pa.Table, name: str) -> pa.Array | None:
    if name not in table.column_names:
        return None
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _codes(coded: pa.DictionaryArray) -> Labels:
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    words = tuple(coded.dictionary.to_pylist())
    if "" in words:  # an empty string is a missing one (contracts.md section 2)
        codes[codes == words.index("")] = -1
    return Labels(codes, words)


class Rows:
    """The columns of one table; a column that the table lacks is missing throughout. Extracted once, kept."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap `table` in its order."""
        self.table = table
        self.size = int(table.num_rows)
        self._numbers: dict[str, Floats] = {}
        self._labels: dict[str, Labels] = {}
        self._lists: dict[str, Lists] = {}
        self._hots: dict[tuple[str, int], Singles] = {}

    def numbers(self, name: str) -> Floats:
        """float64 [size + 1] of a number or boolean column, NaN where missing."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = self._read_numbers(name)
        return found

    def labels(self, name: str) -> Labels:
        """[size + 1] strings."""
        found = self._labels.get(name)
        if found is None:
            array = _whole(self.table, name)
            if array is None or pa.types.is_null(array.type):
                found = Labels(np.full(self.size + 1, -1, dtype=np.int64), ())
            else:
                coded = _codes(array.dictionary_encode())
                found = Labels(np.append(coded.codes, -1), coded.words)
            self._labels[name] = found
        return found

    def lists(self, name: str) -> Lists:
        """[size + 1] lists of strings."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self._read_lists(name)
        return found

    def multi_hot(self, name: str, registry: Vocabulary, width: int) -> Singles:
        """float32 [size + 1, width] of a list column; a table is read with one registry per column only."""
        found = self._hots.get((name, width))
        if found is None:
            found = self._hots[name, width] = self.lists(name).multi_hot(registry, width)
        return found

    def times(self, name: str) -> Ints:
        """int64 [size] without NULLs changed: the smallest int64 stands for a missing time."""
        array = _whole(self.table, name)
        if array is None or pa.types.is_null(array.type):
            return np.full(self.size, np.iinfo(np.int64).min)
        return np.asarray(pc.fill_null(array.cast(pa.int64()), np.iinfo(np.int64).min).to_numpy(zero_copy_only=False))

    def _read_numbers(self, name: str) -> Floats:
        values = np.full(self.size + 1, np.nan)
        array = _whole(self.table, name)
        if array is not None and not pa.types.is_null(array.type):
            if pa.types.is_boolean(array.type):
                array = array.cast(pa.uint8())
            values[:-1] = array.to_numpy(zero_copy_only=False)
        return values

    def _read_lists(self, name: str) -> Lists:
        array = _whole(self.table, name)
        if array is None or pa.types.is_null(array.type):
            array = pa.nulls(self.size, pa.list_(pa.string()))
        known = array.is_valid().to_numpy(zero_copy_only=False)
        counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        items = _codes(array.flatten().dictionary_encode())
        whole = pa.concat_arrays([array, pa.nulls(1, array.type)])
        return Lists(np.append(known, False), offsets(np.append(counts, 0)), items, whole)
