"""Read columns of Arrow tables as NumPy arrays with one extra row at the end, which stands for "no row".

A join that finds nothing returns row -1, and NumPy's index -1 selects that last row: NaN, code -1, an all-zero multi-hot. So
the same few array operations read one packet and a million, without a data frame and without a branch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.contracts import TABLES

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Vocabulary(Protocol):
    """What is needed of a registry: ids of keys, 0 for a missing key and capacity-1 for an unknown one."""

    def encode(self, keys: Sequence[str | None]) -> Ints:
        """Return ids (int64 [n]) of n keys."""
        ...


_FEW: Final = 64


def ids_of(registry: Vocabulary, words: tuple[str, ...]) -> Ints:
    """Return the registry ids of words, int64 [words + 1]; the last is 0, for a missing word."""
    ids = np.zeros(len(words) + 1, dtype=np.int64)
    if words:
        ids[:-1] = registry.encode(words)
    return ids


@dataclass(frozen=True)
class Labels:
    """n strings as `codes` (int64 [n], -1 missing) into `words`."""

    codes: Ints
    words: tuple[str, ...]

    @property
    def key(self) -> tuple[tuple[str, ...], bytes]:
        """The labels as a value that has a hash."""
        return self.words, self.codes.tobytes()

    def take(self, rows: Ints) -> "Labels":
        """Return the labels of those rows."""
        return Labels(self.codes[rows], self.words)

    def ranks(self) -> Ints:
        """Return the place (int64 [n]) of each label among the sorted words; -1 if missing."""
        place = {word: rank for rank, word in enumerate(sorted(self.words))}
        return self.translate(place)

    def otherwise(self, other: "Labels") -> "Labels":
        """Return these labels, with missing ones taken from `other`."""
        moved = np.where(other.codes >= 0, other.codes + len(self.words), -1)
        return Labels(np.where(self.codes >= 0, self.codes, moved), self.words + other.words)

    def only(self, keep: Bools) -> "Labels":
        """Return the labels that `keep` (bool [n]) marks; the others become missing."""
        return Labels(np.where(keep, self.codes, -1), self.words)

    def ids(self, registry: Vocabulary) -> Ints:
        """Return the registry ids, int64 [n]: 0 if missing."""
        return ids_of(registry, self.words)[self.codes]

    def translate(self, codes_of: Mapping[str, int]) -> Ints:
        """Return the codes (int64 [n]) of the labels in another vocabulary; -1 if missing here or there."""
        return np.array([*(codes_of.get(word, -1) for word in self.words), -1], dtype=np.int64)[self.codes]

    def arrow(self) -> pa.Array:
        """Return the strings, NULL if missing."""
        return pa.array(np.asarray([*self.words, None], dtype=object)[self.codes], pa.string())


@dataclass(frozen=True)
class Lists:
    """n lists of strings: `known` bool [n] (a list was sent), offsets `ptr` int64 [n + 1] into `items`.

    `arrow` is the column that they come from; it lacks the last of the n lists, which stands for "no row".
    """

    known: Bools
    ptr: Ints
    items: Labels
    arrow: pa.Array

    def multi_hot(self, registry: Vocabulary, out: Bools) -> None:
        """Mark channel id-1 of each entry in `out`, bool [n or n - 1, width]; unknown and large ids share the last one."""
        ids = self.items.ids(registry)
        rows = np.arange(len(self.known)).repeat(lengths(self.ptr))
        known = ids > 0
        if not known.all():
            rows, ids = rows[known], ids[known]
        out[rows, np.minimum(ids - 1, out.shape[1] - 1)] = True


def offsets(counts: Ints) -> Ints:
    """Return where each of n segments of these lengths starts, and where the last one ends: int64 [n + 1]."""
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    counts.cumsum(out=ptr[1:])
    return ptr


def lengths(ptr: Ints) -> Ints:
    """Return the length of each segment between offsets: int64 [n] from [n + 1]."""
    return ptr[1:] - ptr[:-1]


def expand(starts: Ints, counts: Ints) -> Ints:
    """Return starts[0] .. starts[0]+counts[0]-1, starts[1] .., as one int64 array."""
    ptr = offsets(counts)
    return (starts - ptr[:-1]).repeat(counts) + np.arange(ptr[-1])


def codes_of(strings: pa.Array) -> Labels:
    """Return the labels of n strings, with one extra that is missing: [n + 1]."""
    if len(strings) <= _FEW:
        return _few_codes(strings)
    coded = strings if isinstance(strings, pa.DictionaryArray) else strings.dictionary_encode()
    indices = coded.indices if coded.null_count == 0 else coded.indices.fill_null(-1)
    codes = np.full(len(indices) + 1, -1, dtype=np.int64)
    codes[:-1] = indices.to_numpy(zero_copy_only=False)
    words = tuple(coded.dictionary.to_pylist())
    if "" in words:  # an empty string is a missing one (contracts.md section 2)
        codes[codes == words.index("")] = -1
    return Labels(codes, words)


def _few_codes(strings: pa.Array) -> Labels:
    """Return `codes_of` a few strings, for which a loop is faster than Arrow's dictionary; codes are in the same order."""
    place: dict[str, int] = {}
    codes = [place.setdefault(word, len(place)) if word else -1 for word in strings.to_pylist()]
    return Labels(np.array([*codes, -1], dtype=np.int64), tuple(place))


def _flat(lists: pa.ListArray, ends: NDArray[np.int32]) -> pa.Array:
    """Return the items of all lists that are not NULL."""
    if lists.null_count:
        return lists.flatten()
    return lists.values.slice(int(ends[0]), int(ends[-1] - ends[0]))


def _floats_of(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if field.type == pa.float32()]


@cache
def float_columns(contract: str) -> list[str]:
    """Return the names of a contract table's float32 columns."""
    return _floats_of(TABLES[contract].arrow_schema)


class Rows:
    """The columns of one table, each extracted once; a column that the table lacks is missing in every row."""

    def __init__(self, table: pa.Table, contract: str | None = None) -> None:
        """Wrap `table`, rows in its order; `contract` names the contract table that it conforms to, if any."""
        self.table = table
        self._contract = contract
        self.size = int(table.num_rows)
        self._schema: pa.Schema = table.schema
        batches = table.to_batches()
        # a column of a single batch is read directly; chunks of a longer table are combined when the column is first read
        self._batch: pa.RecordBatch | None = batches[0] if len(batches) == 1 else None
        self._numbers: dict[str, Floats] = {}
        self._singles: dict[str, Floats] | None = None
        self._labels: dict[str, Labels] = {}
        self._lists: dict[str, Lists] = {}
        self._hots: dict[tuple[str, int], Bools] = {}

    def array(self, name: str) -> pa.Array | None:
        """Return the column as one Arrow array; None if the table lacks it or it has no type."""
        place = self._schema.get_field_index(name)
        if place < 0:
            return None
        if self._batch is not None:
            array = self._batch.column(place)
        else:
            column = self.table.column(place)
            array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        return None if pa.types.is_null(array.type) else array

    def numbers(self, name: str) -> Floats:
        """Return a number or boolean column: float64 [size + 1], NaN if missing."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = self._read_numbers(name)
        return found

    def labels(self, name: str) -> Labels:
        """Return a string column: labels [size + 1]."""
        found = self._labels.get(name)
        if found is None:
            array = self.array(name)
            if array is None or array.null_count == self.size:
                found = Labels(np.full(self.size + 1, -1, dtype=np.int64), ())
            else:
                found = codes_of(array)
            self._labels[name] = found
        return found

    def lists(self, name: str) -> Lists:
        """Return a column of string lists: [size + 1]."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self._read_lists(name)
        return found

    def multi_hot(self, name: str, registry: Vocabulary, width: int) -> Bools:
        """Return a list column as multi-hot rows: bool [size + 1, width]; always pass the same registry for a column."""
        found = self._hots.get((name, width))
        if found is None:
            found = self._hots[name, width] = np.zeros((self.size + 1, width), dtype=np.bool_)
            self.lists(name).multi_hot(registry, found)
        return found

    def times(self, name: str) -> Ints:
        """Return a time column: int64 [size], the smallest int64 for a missing time."""
        array = self.array(name)
        if array is None:
            return np.full(self.size, np.iinfo(np.int64).min)
        whole = array if array.null_count == 0 else array.cast(pa.int64()).fill_null(np.iinfo(np.int64).min)
        return np.asarray(whole.to_numpy(), dtype=np.int64)

    def _read_numbers(self, name: str) -> Floats:
        if self._singles is None:
            self._singles = self._read_singles()
        if name in self._singles:
            return self._singles[name]
        array = self.array(name)
        if array is None or array.null_count == self.size:
            return np.full(self.size + 1, np.nan)
        if pa.types.is_boolean(array.type) and array.null_count:
            array = array.cast(pa.uint8())
        values = np.empty(self.size + 1)
        values[:-1] = array.to_numpy(zero_copy_only=False)
        values[-1] = np.nan
        return values

    def _read_singles(self) -> dict[str, Floats]:
        """Return all float32 columns together, which costs little more than one."""
        names = float_columns(self._contract) if self._contract else _floats_of(self._schema)
        if not names or not self.size:
            return {}
        whole = self._batch if self._batch is not None else self.table.select(names).combine_chunks().to_batches()[0]
        batch = whole.select(names)
        values = np.empty((len(names), self.size + 1))
        values[:, :-1] = batch.to_tensor(null_to_nan=True, row_major=False).to_numpy().T
        values[:, -1] = np.nan
        return dict(zip(names, values, strict=True))

    def _read_lists(self, name: str) -> Lists:
        array = self.array(name)
        if array is None:
            array = pa.nulls(self.size, pa.list_(pa.string()))
        known = np.zeros(self.size + 1, dtype=np.bool_)
        known[:-1] = True if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
        ends = array.offsets.to_numpy()
        counts = np.zeros(self.size + 1, dtype=np.int64)
        counts[:-1] = np.where(known[:-1], lengths(ends), 0)
        items = codes_of(_flat(array, ends))
        return Lists(known, offsets(counts), Labels(items.codes[:-1], items.words), array)
