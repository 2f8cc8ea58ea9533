"""Alpha schedules: from 0 to 1, never back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.runs.schedules import alpha_at
from schemas.configuration import BLENDING_METHODS


@given(st.sampled_from(BLENDING_METHODS), st.integers(1, 60), st.floats(0.25, 4.0))
def test_every_schedule_rises_from_zero_to_one(method, total, temperature):
    values = [alpha_at(method, step, total, temperature) for step in range(total + 3)]
    assert values[0] == 0.0
    assert values[total:] == [1.0, 1.0, 1.0]
    assert all(0.0 <= a <= b + 1e-12 for a, b in pairwise(values))


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"'jump'.*linear"):
        alpha_at("jump", 1, 2)
