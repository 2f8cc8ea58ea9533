"""Compute the rolling mean and variance of a run's metrics (features.md, EWMA), vectorized, with state carried over.

For an observation x with state (m, v): z = (x - m) / sqrt(v + epsilon), then d = x - m, m' = m + alpha d,
v' = (1 - alpha)(v + alpha d^2). Both recurrences are first-order filters, so that a run is two calls of
`scipy.signal.lfilter`, and one packet at a time gives the very same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import ALPHA, EWMA_PRIORS

LARGEST: Final = 1e150  # farther from zero, an observation counts as this: its square must leave the variance finite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class EwmaState:
    """State of one metric of one run: mean, variance, and number of observations so far."""

    mean: float
    var: float
    count: int = 0

    @classmethod
    def start(cls, metric: str) -> "EwmaState":
        """Return the state before a run's first observation: the metric's prior mean and squared standard deviation."""
        mean, deviation = EWMA_PRIORS[metric]
        return cls(mean, deviation**2)


@dataclass(frozen=True)
class EwmaTrace:
    """States *before* each of n packets (`mean`, `var` float64 [n], `count` int64 [n]) and the state after the last."""

    mean: Floats
    var: Floats
    count: Ints
    final: EwmaState


def _filtered(inputs: Floats, start: Floats, alpha: float) -> Floats:
    """Return y[m, i] = inputs[m, i] + (1 - alpha) y[m, i - 1] with y[m, -1] = start[m], float64 [metrics, n]."""
    decay = 1.0 - alpha
    if inputs.shape[1] == 1:
        return np.asarray(inputs + decay * start[:, None], dtype=np.float64)  # a call of the filter takes ten times as long
    from scipy.signal import lfilter  # imported late: it takes 0.7 s, and readers of published norms don't need it

    found = lfilter([1.0], [1.0, -decay], inputs, axis=1, zi=decay * start[:, None])[0]
    return np.asarray(found, dtype=np.float64)


def run_states(values: Floats, state: EwmaState, alpha: float = ALPHA) -> EwmaTrace:
    """Return the states of one metric before each packet of one run, in the packets' order.

    `values` float64 [n]: the metric at each packet; a value that is not finite (missing) leaves the state unchanged. `state` is
    the state before the first packet: `EwmaState.start(metric)`, or the final state of an earlier call.
    """
    seen = np.isfinite(values)
    return _traces(values[None, seen], seen, [state], alpha)[0]


def all_states(values: Floats, states: Sequence[EwmaState], alpha: float = ALPHA) -> list[EwmaTrace]:
    """Return `run_states` of several metrics of one run, bit for bit, in fewer calls; `values` is float64 [metrics, n]."""
    seen = np.isfinite(values)
    if seen.all():
        return _traces(values, seen[0], states, alpha)
    return [run_states(row, state, alpha) for row, state in zip(values, states, strict=True)]


def _traces(observed: Floats, seen: Bools, states: Sequence[EwmaState], alpha: float) -> list[EwmaTrace]:
    """Return the traces of metrics that were all observed at the same packets.

    `seen` bool [n] marks these packets, `observed` float64 [metrics, packets seen] holds the values there.
    """
    start = np.array([[state.mean, state.var] for state in states])
    means, variances = start[:, :1], start[:, 1:]
    if observed.shape[1]:
        observed = observed.clip(-LARGEST, LARGEST)
        means = np.concatenate([means, _filtered(alpha * observed, start[:, 0], alpha)], axis=1)
        jumps = observed - means[:, :-1]
        spread = (1.0 - alpha) * alpha * (jumps * jumps)
        variances = np.concatenate([variances, _filtered(spread, start[:, 1], alpha)], axis=1)
    before: Ints = np.cumsum(seen, dtype=np.int64) - seen
    return [
        EwmaTrace(
            means[row, before],
            variances[row, before],
            state.count + before,
            EwmaState(float(means[row, -1]), float(variances[row, -1]), state.count + observed.shape[1]),
        )
        for row, state in enumerate(states)
    ]
