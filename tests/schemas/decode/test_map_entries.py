"""The order of map entries: what is found from maps that are alike is what is found from each entry."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decode.shape.map_entries import FEW, entry_order, key_codes, map_entries

Maps = list[list[tuple[str, float]] | None]
WORDS = ("loss", "lr", "a", "", "größe", "grad_norm")

ALIKE: dict[str, Maps] = {
    "in order": [[("a", 1.0), ("b", 2.0)]] * 3,
    "out of order": [[("b", 1.0), ("a", 2.0), ("c", 3.0)]] * 3,
    "a key twice": [[("b", 1.0), ("a", 2.0), ("b", 3.0)]] * 3,
    "one entry": [[("b", 1.0)]] * 3,
    "the last is shorter": [*[[("b", 1.0), ("a", 2.0)]] * 3, [("b", 1.0)]],
    "the last is another": [*[[("b", 1.0), ("a", 2.0)]] * 3, [("b", 1.0), ("x", 2.0)]],
    "keys of the same text in all": [[("ab", 1.0), ("c", 2.0)], [("a", 1.0), ("bc", 2.0)]],
    "the keys come again within a map": [[("b", 1.0), ("a", 2.0)], [("b", 1.0), ("a", 2.0), ("b", 3.0), ("a", 4.0)]],
    "empty and NULL between": [[("b", 1.0), ("a", 2.0)], [], None, [("b", 3.0), ("a", 4.0)]],
    "nothing": [[], None],
}


def check(maps: Maps) -> None:
    """Compare with Python's own dictionaries, of the whole column and of a slice of it."""
    whole = pa.array(maps, pa.map_(pa.string(), pa.float64()))
    for first in range(min(len(maps), 2)):
        rows, keys, items = map_entries(whole.slice(first))
        codes, words = key_codes(rows, keys)
        assert [words[code] for code in codes] == keys.to_pylist()
        order = entry_order(rows, keys)
        if order is not None:
            rows, keys, items = rows[order], keys.take(pa.array(order)), items.take(pa.array(order))
        found = list(zip(rows.tolist(), keys.to_pylist(), items.to_pylist(), strict=True))
        wanted = [(row, *entry) for row, one in enumerate(maps[first:]) for entry in sorted(dict(one or []).items())]
        assert found == wanted


@pytest.mark.parametrize("name", ALIKE)
def test_maps_that_are_alike_are_ordered_as_others(name: str) -> None:
    check(ALIKE[name])
    check(ALIKE[name] * FEW)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(WORDS), st.floats(0, 1)), max_size=4) | st.none(), max_size=5),
    st.sampled_from((1, 4, 30)),
)
def test_entries_of_any_maps_stand_in_order_of_their_keys(maps: Maps, times: int) -> None:
    check(maps * times)


def test_rows_of_maps_are_those_of_the_slice() -> None:
    whole = pa.array([[("a", 1.0)]] * 5, pa.map_(pa.string(), pa.float64()))
    rows, keys, _ = map_entries(whole.slice(3))
    assert (rows.tolist(), keys.to_pylist()) == ([0, 1], ["a", "a"])
    assert np.array_equal(key_codes(rows, keys)[0], [0, 0])
