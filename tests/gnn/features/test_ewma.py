"""The EWMA recurrence against a plain loop, and its laws."""

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnn.norms.ewma import EwmaState, all_states, run_states
from gnn.norms.published import Norms, Observation

VALUES = arrays(
    np.float64,
    st.integers(0, 40),
    elements=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])),
)


def loop(values: np.ndarray, state: EwmaState) -> tuple[list[float], list[float], list[int], EwmaState]:
    mean, var, count = state.mean, state.var, state.count
    means, variances, counts = [], [], []
    for value in values:
        means.append(mean)
        variances.append(var)
        counts.append(count)
        if math.isfinite(value):
            jump = value - mean
            mean += 0.1 * jump
            var = 0.9 * (var + 0.1 * jump * jump)
            count += 1
    return means, variances, counts, EwmaState(mean, var, count)


@given(VALUES, st.sampled_from(["loss", "gradient_norm", "samples_per_s", "hook_latency_ms"]))
def test_equals_the_recurrence_of_the_design(values: np.ndarray, metric: str) -> None:
    start = EwmaState.start(metric)
    trace = run_states(values, start)
    means, variances, counts, final = loop(values, start)
    np.testing.assert_allclose(trace.mean, means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(trace.var, variances, rtol=1e-9, atol=1e-6)
    assert trace.count.tolist() == counts
    assert trace.final.count == final.count
    np.testing.assert_allclose([trace.final.mean, trace.final.var], [final.mean, final.var], rtol=1e-9, atol=1e-6)


@given(VALUES, st.integers(0, 40))
def test_carried_state_gives_the_same_bits(values: np.ndarray, cut: int) -> None:
    whole = run_states(values, EwmaState.start("loss"))
    first = run_states(values[:cut], EwmaState.start("loss"))
    second = run_states(values[cut:], first.final)
    assert np.array_equal(whole.mean, np.concatenate([first.mean, second.mean]))
    assert np.array_equal(whole.var, np.concatenate([first.var, second.var]))
    assert whole.final == second.final


def test_starts_at_the_prior_and_uses_the_state_before() -> None:
    trace = run_states(np.array([1.8]), EwmaState.start("loss"))
    assert (trace.mean[0], trace.var[0], trace.count[0]) == (0.8, 0.3**2, 0)
    np.testing.assert_allclose(trace.final.mean, 0.9)
    np.testing.assert_allclose(trace.final.var, 0.9 * (0.09 + 0.1))


METRICS = ("loss", "gradient_norm", "samples_per_s")


@given(arrays(np.float64, (3, 12), elements=st.one_of(st.floats(-1e6, 1e6), st.just(math.nan))), st.booleans())
def test_several_metrics_at_once_give_the_bits_of_each_alone(values: np.ndarray, measured: bool) -> None:
    values = np.nan_to_num(values) if measured else values
    states = [EwmaState(0.5 * place, 1.0 + place, place) for place in range(3)]
    for alone, row, state in zip(all_states(values, states), values, states, strict=True):
        single = run_states(row, state)
        assert np.array_equal(alone.mean, single.mean)
        assert np.array_equal(alone.var, single.var)
        assert np.array_equal(alone.count, single.count)
        assert alone.final == single.final
    assert [trace.final.count for trace in all_states(np.zeros((3, 2)), states)] == [2, 3, 4]


def test_alpha_weighs_the_newest_value() -> None:
    trace = run_states(np.array([2.0]), EwmaState(1.0, 4.0), alpha=0.25)
    assert (trace.final.mean, trace.final.var) == (1.25, 0.75 * (4.0 + 0.25))
    (several,) = all_states(np.array([[2.0]]), [EwmaState(1.0, 4.0)], alpha=0.25)
    assert several.final == trace.final
    (gappy,) = all_states(np.array([[math.nan, 2.0]]), [EwmaState(1.0, 4.0)], alpha=0.25)
    assert gappy.final == trace.final


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
@example([-1.7e308, 1.7e308] * 15)
def test_no_finite_observation_makes_a_state_that_is_not(values: list[float]) -> None:
    with np.errstate(over="raise", invalid="raise"):
        trace = run_states(np.array(values), EwmaState.start("loss"))
    assert np.isfinite([*trace.mean, *trace.var, trace.final.mean, trace.final.var]).all()
    assert trace.final.var >= 0.0


def test_one_wild_loss_does_not_stop_the_norms_of_all_runs() -> None:
    final = run_states(np.array([1.0, 1e200, 1.0]), EwmaState.start("loss")).final
    assert Norms.of({}, {"loss": Observation(final, "run", 7)}).digest
