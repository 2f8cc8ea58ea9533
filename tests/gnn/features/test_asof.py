"""As-of joins against a loop over all rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gnn.join.asof import AsOf

ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-5, 5), st.integers(0, 2)), max_size=20)
QUESTIONS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-6, 6)), max_size=10)


def ints(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(ROWS, QUESTIONS)
def test_newest_and_exact(rows: list[tuple[int, int, int]], questions: list[tuple[int, int]]) -> None:
    index = AsOf(ints([r[0] for r in rows]), ints([r[1] for r in rows]), ints([r[2] for r in rows]))
    groups, times = ints([q[0] for q in questions]), ints([q[1] for q in questions])
    newest, exact = index.newest(groups, times).tolist(), index.exact(groups, times).tolist()
    for place, (group, now) in enumerate(questions):
        own = [(time, rank, -row) for row, (of, time, rank) in enumerate(rows) if of == group >= 0 and time <= now]
        expected = -max(own)[2] if own else -1
        assert newest[place] == expected
        assert exact[place] == (expected if own and max(own)[0] == now else -1)


def test_no_rows_and_no_questions() -> None:
    none = ints([])
    assert AsOf(none, none).newest(ints([0]), ints([0])).tolist() == [-1]
    assert AsOf(ints([0]), ints([0])).newest(none, none).tolist() == []
