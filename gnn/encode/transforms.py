"""Transform raw values to channels, float64 to float64 and elementwise; NaN stays NaN.

A value outside a transform's domain (log1p of -1 or less, a division by zero) gives a result that is not finite. The encoder
treats it as missing, so no NaN or infinity ever reaches a tensor. The caller of a function in `UNARY` ignores the errors
of floating-point arithmetic that such a value raises.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import EPSILON, EWMA_PRIORS
from schemas.features import Transform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _signed_log1p(values: Floats) -> Floats:
    return np.copysign(np.log1p(np.abs(values)), values)


def _loss_prior(values: Floats) -> Floats:
    mean, deviation = EWMA_PRIORS["loss"]
    return (values - mean) / deviation


UNARY: Final[Mapping[Transform, Callable[[Floats], Floats]]] = {
    Transform.IDENTITY: lambda values: values,
    Transform.CLAMP01: lambda values: np.minimum(np.maximum(values, 0.0), 1.0),
    Transform.CLAMP4: lambda values: np.minimum(np.maximum(values, 0.0), 4.0),
    Transform.LOG1P: np.log1p,
    Transform.SIGNED_LOG1P: _signed_log1p,
    Transform.LOG_VAR: lambda values: np.log10(values + 1e-12),
    Transform.LOSS_PRIOR: _loss_prior,
    Transform.PERCENT: lambda values: np.minimum(np.maximum(values / 100.0, 0.0), 1.0),
    Transform.CLAMP_ABS1: lambda values: np.minimum(np.maximum(values, -1.0), 1.0),
    Transform.CLAMP_ABS3: lambda values: np.minimum(np.maximum(values, -3.0), 3.0),
}


def ewma(values: Floats, mean: Floats, var: Floats) -> Floats:
    """Return z = (x - m) / sqrt(v + epsilon), with the run's state (m, v) before the packet; all float64 [n]."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (values - mean) / np.sqrt(var + EPSILON)


def ln_chance(values: Floats, classes: Floats) -> Floats:
    """Return ln(x / ln C), clamped to -8..4: 0 is the loss of a guess among C `classes`.

    If C is missing or at most 1, it is ln(x).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(classes > 1.0, np.log(np.ascontiguousarray(classes)), 1.0)
        return np.minimum(np.maximum(np.log(np.ascontiguousarray(values) / chance), -8.0), 4.0)


def graph_max(values: Floats, ptr: Ints) -> Floats:
    """Divide x by max |x| over each graph's measured edges (rows ptr[g]..ptr[g+1]); 0 if that maximum is 0."""
    counts = ptr[1:] - ptr[:-1]
    filled = counts > 0
    if not filled.any():
        return values.copy()
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = np.zeros(len(counts))
    largest[filled] = np.maximum.reduceat(sizes, ptr[:-1][filled])
    divisor = np.where(largest > 0.0, largest, 1.0)
    return np.asarray(values / np.repeat(divisor, counts), dtype=np.float64)
