"""Each transform against its formula, and the bounds that the encoder relies on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.encode.transforms import UNARY, ewma, graph_max
from schemas.features import Transform

FORMULAS = {
    Transform.IDENTITY: lambda x: x,
    Transform.CLAMP01: lambda x: min(max(x, 0.0), 1.0),
    Transform.CLAMP4: lambda x: min(max(x, 0.0), 4.0),
    Transform.LOG1P: math.log1p,
    Transform.SIGNED_LOG1P: lambda x: math.copysign(math.log1p(abs(x)), x),
    Transform.LOG_VAR: lambda x: math.log10(x + 1e-12),
    Transform.LOSS_PRIOR: lambda x: (x - 0.8) / 0.3,
    Transform.PERCENT: lambda x: min(max(x / 100.0, 0.0), 1.0),
    Transform.CLAMP_ABS1: lambda x: min(max(x, -1.0), 1.0),
    Transform.CLAMP_ABS3: lambda x: min(max(x, -3.0), 3.0),
}


@pytest.mark.parametrize("transform", sorted(UNARY))
@given(value=st.floats(0.0, 1e12))
def test_unary_formula(transform: Transform, value: float) -> None:
    found = UNARY[transform](np.array([value]))[0]
    np.testing.assert_allclose(found, FORMULAS[transform](value), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", sorted(UNARY))
def test_missing_stays_missing(transform: Transform) -> None:
    assert np.isnan(UNARY[transform](np.array([math.nan]))).all()


def test_outside_the_domain_is_not_finite() -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        assert not np.isfinite(UNARY[Transform.LOG1P](np.array([-1.0, -2.0]))).any()


def test_ewma_uses_epsilon() -> None:
    np.testing.assert_allclose(ewma(np.array([2.0]), np.array([1.0]), np.array([0.0])), 1.0 / math.sqrt(1e-6))


def test_graph_max_is_per_graph_and_survives_empty_and_zero_graphs() -> None:
    values = np.array([2.0, -4.0, math.nan, 0.0, 0.0, math.nan])
    found = graph_max(values, np.array([0, 0, 3, 5, 6, 6]))
    np.testing.assert_array_equal(found, [0.5, -1.0, math.nan, 0.0, 0.0, math.nan])
