"""The formulas behind every measured number, on small slices of tensors.

All inputs are detached float tensors with samples in dimension 0; results are Python floats. Non-finite values pass
through: a contract table makes them missing and names them.
"""

import math
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from recorder.activations import Floats, saturated

ROWS: Final = 16  # rows of a batch that activation measures look at
UNITS: Final = 256  # units of a row that they look at, evenly spread
WEIGHTS: Final = 4096  # elements of a parameter, evenly spread, whose update is compared before and after
DECAY: Final = 0.1  # weight of the newest value in running means and variances
TINY: Final = 1e-12


@dataclass(frozen=True)
class ActivationMeasure:
    """One look at an activation. Shares lie in 0..1; gradients are norms over the sampled rows."""

    saturation_rate: float
    saturation_events: float
    nonlinearity_strength: float
    mean_output: float
    gradient_out: float | None
    gradient_in: float | None

    @property
    def gradient_flow(self) -> float | None:
        """Norm of the gradient at the output over that at the input; None where either is unknown or the latter is 0."""
        if self.gradient_out is None or not self.gradient_in:
            return None
        return self.gradient_out / self.gradient_in


@dataclass
class Running:
    """Exponentially weighted mean and variance (West's update with weight `DECAY`); the variance needs two values."""

    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take one value in; a non-finite one leaves the state untouched."""
        if not math.isfinite(value):
            return
        delta = value - self.mean
        weight = max(DECAY, 1.0 / (self.count + 1))
        self.mean += weight * delta
        self.variance = (1.0 - weight) * (self.variance + weight * delta * delta)
        self.count += 1

    @property
    def known_variance(self) -> float | None:
        """Variance over time, or None before the second value."""
        return self.variance if self.count > 1 else None


def nonlinearity(before: Floats, after: Floats) -> float:
    """1 - R² of the best affine fit of the outputs on the inputs, over all sampled elements: 0 = acts linearly."""
    x, y = before.ravel(), after.ravel()
    if x.size != y.size:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x) * float(y @ y)
    return 0.0 if power <= TINY else max(0.0, 1.0 - float(x @ y) ** 2 / power)


def _norm(gradient: Tensor | None, stride: int) -> float | None:
    return None if gradient is None else float(gradient.norm()) * math.sqrt(stride)


def measure_activation(
    name: str, before: Tensor, after: Tensor, gradient_in: Tensor | None, gradient_out: Tensor | None, stride: int = 1
) -> ActivationMeasure:
    """Measure activation `name` on sampled inputs, outputs and their gradients (any may have any shape, rows first).

    saturation_rate: share of elements in a flat region. saturation_events: units (positions of one row) saturated in
    every sampled row, a count. nonlinearity_strength: see `nonlinearity`. mean_output: mean of the outputs. `stride` is how
    many units each sampled one stands for: counts are multiplied by it, norms by its root.
    """
    x, y = before.float().cpu().numpy(), after.float().cpu().numpy()  # a few thousand numbers: NumPy's calls cost less
    flat = saturated(name, x, y)
    return ActivationMeasure(
        saturation_rate=float(flat.mean()),
        saturation_events=float(flat.all(axis=0).sum()) * stride,
        nonlinearity_strength=nonlinearity(x, y),
        mean_output=float(y.mean()),
        gradient_out=_norm(gradient_out, stride),
        gradient_in=_norm(gradient_in, stride),
    )


def stability(history: Running, mean_output: float) -> float | None:
    """1 / (1 + |mean output - its running mean| / its running standard deviation), 0..1; None before two looks."""
    if history.count < 2:
        return None
    spread = math.sqrt(history.variance) + 1e-6 * (1.0 + abs(history.mean))
    return 1.0 / (1.0 + abs(mean_output - history.mean) / spread)


def convergence_rate(before: float, after: float, steps: int) -> float | None:
    """ln(before / after) / steps of a group's running mean gradient norm: positive while gradients shrink."""
    if steps <= 0 or before <= 0.0 or after <= 0.0:
        return None
    return math.log(before / after) / steps
