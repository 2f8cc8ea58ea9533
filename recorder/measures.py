"""The formulas behind every measured number, on small slices of tensors.

All inputs are detached float tensors with samples in dimension 0; results are Python floats. Non-finite values pass
through: a contract table makes them missing and names them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from recorder.activations import saturated

ROWS: Final = 16  # rows of a batch that activation measures look at
UNITS: Final = 128  # units of a row that they look at, evenly spread
DECAY: Final = 0.1  # weight of the newest value in running means and variances
TINY: Final = 1e-12


@dataclass(frozen=True)
class ActivationMeasure:
    """One look at an activation. Shares lie in 0..1; gradients are norms over the sampled rows."""

    saturation_rate: float
    saturation_events: float
    nonlinearity_strength: float | None
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


@dataclass(slots=True)
class ActivationTrace:
    """One activation in one step: sampled units before and after its first call, and the gradients there after backward.

    Tensors have sampled rows first. `stride` is how many units each sampled one stands for; `units` how many a row has.
    """

    calls: int = 0
    stride: int = 1
    units: int = 0
    before: Tensor | None = None
    after: Tensor | None = None
    gradient_in: Tensor | None = None
    gradient_out: Tensor | None = None


def nonlinearity(count: float, x: float, y: float, xx: float, yy: float, xy: float) -> float:
    """1 - R² of the best affine fit of outputs y on inputs x (0 = acts linearly), from sums over `count` elements."""
    power = (xx - x * x / count) * (yy - y * y / count)
    return 0.0 if power <= TINY else min(1.0, max(0.0, 1.0 - (xy - x * y / count) ** 2 / power))


def _products(parts: Mapping[str, Tensor]) -> Callable[[str, str], float]:
    """Sum of the products of any two parts (all of one size) in float64, from one matrix product.

    Few different operations: each is cold again by the next measured step, and that is most of what it costs.
    """
    rows = torch.cat([part.reshape(1, -1) for part in parts.values()]).double()
    sums, place = (rows @ rows.T).tolist(), {name: k for k, name in enumerate(parts)}
    return lambda a, b: float(sums[place[a]][place[b]])


def measure_activation(name: str, trace: ActivationTrace) -> ActivationMeasure | None:
    """Measure activation `name` by one step's trace; None where it has no samples.

    saturation_rate: share of elements in a flat region. saturation_events: units (positions of one row) saturated in
    every sampled row, a count. nonlinearity_strength: see `nonlinearity`; None where inputs and outputs differ in number.
    mean_output: mean of the outputs. Counts are multiplied by the trace's stride, gradient norms by its root.
    """
    x, y = trace.before, trace.after
    if x is None or y is None:
        return None
    flat = saturated(name, x, y)
    known = {"one": torch.ones_like(y), "flat": flat.to(y.dtype), "x": x, "y": y}
    gradients = {"in": trace.gradient_in, "out": trace.gradient_out}
    known |= {key: part for key, part in gradients.items() if part is not None}
    of = _products({key: part for key, part in known.items() if part.numel() == y.numel()})
    powers = {key: of(key, key) if key in known and known[key].numel() == y.numel() else None for key in gradients}
    if x.numel() != y.numel() and trace.gradient_in is not None:
        powers["in"] = float(torch.linalg.vector_norm(trace.gradient_in.float())) ** 2
    into, out = (None if power is None else math.sqrt(power * trace.stride) for power in powers.values())
    count, total = of("one", "one"), of("one", "y")
    same = x.numel() == y.numel()
    return ActivationMeasure(
        saturation_rate=of("one", "flat") / count,
        saturation_events=float(flat.all(dim=0).sum()) * trace.stride,
        nonlinearity_strength=(
            nonlinearity(count, of("one", "x"), total, of("x", "x"), of("y", "y"), of("x", "y")) if same else None
        ),
        mean_output=total / count,
        gradient_out=out,
        gradient_in=into,
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
