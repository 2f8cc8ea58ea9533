"""Columns as arrays: missing rows, missing values, and the same labels from few strings and from many."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gnn.join.rows import Rows, expand, lengths, offsets
from tests.gnn.tables import registries


@given(st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "a longer word"])), max_size=200))
def test_labels_give_back_the_strings(words: list[str | None]) -> None:
    array = pa.array(words, pa.string())
    labels = Rows(pa.table({"word": array})).labels("word")
    expected = [word or None for word in words]
    assert labels.arrow().to_pylist() == [*expected, None]
    padded = pa.concat_arrays([array, pa.array(["a"] * 100)])
    many = Rows(pa.table({"word": padded})).labels("word").take(np.arange(len(words)))
    assert many.arrow().to_pylist() == expected


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from(["linear", "sigmoid", "other"]), max_size=3)), max_size=20))
def test_lists_and_their_channels(values: list[list[str] | None]) -> None:
    column = pa.array([["skipped"], *values], pa.list_(pa.string()))
    rows = Rows(pa.table({"methods": column}).slice(1))
    lists = rows.lists("methods")
    assert lists.known.tolist() == [*(value is not None for value in values), False]
    assert lengths(lists.ptr).tolist() == [*(len(value or []) for value in values), 0]
    hots = rows.multi_hot("methods", registries()["schedule"], 4)
    place = {"linear": 0, "sigmoid": 3, "other": 3}
    expected = np.zeros((len(values) + 1, 4))
    for row, value in enumerate(values):
        for word in value or []:
            expected[row, place[word]] = 1.0
    np.testing.assert_array_equal(hots, expected)


def test_numbers_of_every_type_have_a_row_for_none() -> None:
    rows = Rows(
        pa.table(
            {
                "single": pa.array([1.5, None], pa.float32()),
                "double": pa.array([None, 2.5], pa.float64()),
                "whole": pa.array([3, None], pa.int64()),
                "flag": pa.array([True, False]),
                "untyped": pa.nulls(2),
            }
        )
    )
    nan = np.nan
    for name, expected in {
        "single": [1.5, nan, nan],
        "double": [nan, 2.5, nan],
        "whole": [3.0, nan, nan],
        "flag": [1.0, 0.0, nan],
        "untyped": [nan] * 3,
        "absent": [nan] * 3,
    }.items():
        np.testing.assert_array_equal(rows.numbers(name), expected, err_msg=name)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=20))
def test_expand_is_the_concatenated_ranges(segments: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in segments], dtype=np.int64)
    counts = np.array([count for _, count in segments], dtype=np.int64)
    assert expand(starts, counts).tolist() == [n for start, count in segments for n in range(start, start + count)]
    assert lengths(offsets(counts)).tolist() == counts.tolist()
