"""Telemetry that is derived from several measurements; every definition is the one of features.md."""

from typing import Final

import numpy as np

from gnn.join.packets import first_finite
from gnn.join.rows import Floats, Ints, Labels

INSTABILITY: Final = ("vanishing", "stable", "noisy", "exploding")


def gradient_instability(norm: Floats, variance: Floats, mean: Floats, earlier: Ints) -> Labels:
    """Class of each layer's gradient, from its norm and variance (float64 [N], NaN missing).

    With r = norm / (the run's EWMA mean of gradient_norm before the packet, `mean`) and cv = sqrt(variance) / norm:
    exploding where r > 10, vanishing where r < 0.1, else noisy where cv > 1 is known, else stable. Missing where the norm
    is, and until the run has an earlier gradient_norm (`earlier` int64 [N] counts them).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = norm / mean
        variation = np.sqrt(variance) / norm
    codes = np.select([ratio > 10.0, ratio < 0.1, variation > 1.0], [3, 0, 2], default=1).astype(np.int64)
    return Labels(np.where(np.isfinite(norm) & (earlier > 0), codes, -1), INSTABILITY)


def latency_budget_utilisation(latency_ms: Floats, budget_ms: Floats) -> Floats:
    """hook_latency_ms / latency_budget_ms, float64 [N]; missing where either is, or where the budget is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = latency_ms / budget_ms
    return np.where(np.isfinite(share), share, np.nan)


def rolling_loss(loss: Floats, mean: Floats, earlier: Ints) -> Floats:
    """The run's EWMA mean of loss before the packet; at the run's first measured loss, that loss; before it, missing."""
    return np.where(earlier > 0, mean, first_finite(loss))
