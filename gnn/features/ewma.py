"""The rolling mean and variance of a run's metrics (features.md, EWMA), vectorized with its state carried.

For an observation x with state (m, v): z = (x - m) / sqrt(v + epsilon), then d = x - m, m' = m + alpha d,
v' = (1 - alpha)(v + alpha d^2). Both recurrences are first-order filters, so that a run is two calls of
`scipy.signal.lfilter`, and one packet at a time gives the very same bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from schemas.artifacts import ALPHA, EWMA_PRIORS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EwmaState:
    """State of one metric of one run: mean, variance, and how many observations made it."""

    mean: float
    var: float
    count: int = 0

    @classmethod
    def start(cls, metric: str) -> "EwmaState":
        """The state before a run's first observation: the metric's prior mean and squared standard deviation."""
        mean, deviation = EWMA_PRIORS[metric]
        return cls(mean, deviation**2)


@dataclass(frozen=True)
class EwmaTrace:
    """States *before* each of n packets (`mean`, `var` float64 [n], `count` int64 [n]) and the state after the last."""

    mean: Floats
    var: Floats
    count: Ints
    final: EwmaState


def _filtered(inputs: Floats, start: float, alpha: float) -> Floats:
    """y[i] = inputs[i] + (1 - alpha) y[i - 1] with y[-1] = start."""
    decay = 1.0 - alpha
    return np.asarray(lfilter([1.0], [1.0, -decay], inputs, zi=[decay * start])[0], dtype=np.float64)


def run_states(values: Floats, state: EwmaState, alpha: float = ALPHA) -> EwmaTrace:
    """States before each packet of one run, in the packets' order.

    `values` float64 [n] of one metric; what is missing or not finite leaves the state untouched. `state` is the one
    before the first of them: `EwmaState.start(metric)`, or the final one of an earlier call.
    """
    seen = np.isfinite(values)
    observed = values[seen]
    means = np.concatenate(([state.mean], _filtered(alpha * observed, state.mean, alpha))) if len(observed) else None
    if means is None:
        size = len(values)
        return EwmaTrace(np.full(size, state.mean), np.full(size, state.var), np.full(size, state.count, dtype=np.int64), state)
    with np.errstate(over="ignore"):
        jumps = observed - means[:-1]
        spread = (1.0 - alpha) * alpha * (jumps * jumps)
    variances = np.concatenate(([state.var], _filtered(spread, state.var, alpha)))
    before = np.cumsum(seen) - seen
    final = EwmaState(float(means[-1]), float(variances[-1]), state.count + len(observed))
    return EwmaTrace(means[before], variances[before], state.count + before, final)
