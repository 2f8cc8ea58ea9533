"""Fitted priors: population deviation, fallbacks, training hosts only, order does not matter."""

import math
from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gnn.norms.priors import DEFAULT_PRIORS, fit_prior, fit_priors


def catalogue(rates: dict[str, float | None], counts: list[tuple[str, int]] | None = None) -> dict[str, pa.Table]:
    rows = counts or []
    return {
        "urza.blueprint": pa.table(
            {
                "blueprint_id": pa.array(list(rates), pa.string()),
                "optimizer_learning_rate": pa.array(list(rates.values()), pa.float32()),
                "optimizer_momentum": pa.array([None] * len(rates), pa.float32()),
                "optimizer_gradient_variance": pa.array([None] * len(rates), pa.float32()),
            }
        ),
        "urza.parameter": pa.table(
            {
                "blueprint_id": pa.array([host for host, _ in rows], pa.string()),
                "parameter_count": pa.array([count for _, count in rows], pa.int64()),
            }
        ),
    }


def test_population_standard_deviation_of_the_logarithm() -> None:
    fitted = fit_priors(catalogue({"a": 0.1, "b": 0.5, "c": None}), None)["learning_rate"]
    logs = [math.log1p(np.float32(0.1)), math.log1p(np.float32(0.5))]
    np.testing.assert_allclose([fitted.mean, fitted.var], [np.mean(logs), np.var(logs)])


def test_defaults_without_two_distinct_values_or_with_a_tiny_deviation() -> None:
    assert fit_priors(catalogue({"a": 0.1, "b": 0.1}), None) == dict(DEFAULT_PRIORS)
    assert fit_prior("learning_rate", np.array([0.1, 0.1001])) == DEFAULT_PRIORS["learning_rate"]
    assert fit_priors({}, None) == dict(DEFAULT_PRIORS)


def test_the_deviation_decides_from_a_tenth_of_the_default_on() -> None:
    # momentum: the default's standard deviation is 0.05, so a fitted one counts from 0.005 on
    just = fit_prior("momentum", np.array([0.5, 0.5 + 2 * 0.00501]))
    assert (just.transform, just.var) == ("identity", np.var([0.5, 0.5 + 2 * 0.00501]))
    assert fit_prior("momentum", np.array([0.5, 0.5 + 2 * 0.00499])) == DEFAULT_PRIORS["momentum"]


def test_what_is_missing_or_outside_the_logarithm_is_left_out() -> None:
    fitted = fit_prior("gradient_variance", np.array([0.1, math.nan, -1.0, -5.0, math.inf, 0.5]))
    assert fitted == fit_prior("gradient_variance", np.array([0.1, 0.5]))
    assert fitted.transform == "log1p"
    assert fit_prior("momentum", np.array([0.5, 0.9])).mean == 0.7


def test_a_catalogue_of_no_training_host_gives_the_defaults() -> None:
    tables = catalogue({"a": 0.1, "b": 0.5}, [("a", 10), ("b", 1000)])
    assert fit_priors(tables, set()) == dict(DEFAULT_PRIORS)
    assert fit_priors(tables, {"a", "gone"}) == dict(DEFAULT_PRIORS)


def test_defaults_are_those_of_the_design() -> None:
    found = {metric: (prior.mean, math.sqrt(prior.var), prior.transform) for metric, prior in DEFAULT_PRIORS.items()}
    assert found["momentum"] == (0.9, 0.05, "identity")
    np.testing.assert_allclose(found["parameter_count"][:2], (math.log1p(1e6), 4.0))
    np.testing.assert_allclose(found["learning_rate"][:2], (math.log1p(0.01), 0.02))
    np.testing.assert_allclose(found["gradient_variance"][:2], (math.log1p(0.001), 0.01))


def test_only_training_hosts_count() -> None:
    tables = catalogue({"a": 0.1, "b": 0.5, "c": 0.9}, [("a", 10), ("b", 1000), ("c", 10**9)])
    trained = fit_priors(tables, {"a", "b"})
    assert trained == fit_priors(catalogue({"a": 0.1, "b": 0.5}, [("a", 10), ("b", 1000)]), None)
    assert trained != fit_priors(tables, None)


@given(st.lists(st.floats(0.0, 1e9), max_size=12), st.randoms())
def test_order_does_not_matter(values: list[float], random: Random) -> None:
    mixed = values.copy()
    random.shuffle(mixed)
    assert fit_prior("parameter_count", np.array(values)) == fit_prior("parameter_count", np.array(mixed))
