"""The formulas behind every measured number, on small slices of tensors.

All inputs are detached float tensors; results are Python floats. Non-finite values pass
through: a contract table makes them missing and names them.
"""

import math
from collections.abc import Mapping
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
    """One look at an activation. Shares lie in 0..1; gradients are norms over the whole gradient."""

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
    """One activation in one step: sampled units before and after its first call, and the norms of the gradients there.

    Samples have rows first. `stride` is how many units each sampled one stands for; `units` how many a row has.
    """

    calls: int = 0
    stride: int = 1
    units: int = 0
    before: Tensor | None = None
    after: Tensor | None = None
    gradient_in: Tensor | None = None
    gradient_out: Tensor | None = None


def _nonlinearity(x: Tensor, y: Tensor) -> Tensor:
    """1 - R² of the best affine fit of each row of `y` on that of `x` (both [n, elements]), [n]; NaN where sizes differ."""
    if x.shape != y.shape:
        return torch.full((len(x),), math.nan, dtype=y.dtype, device=y.device)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    power = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return torch.where(power > TINY, 1.0 - ((x * y).sum(1) / power).square(), 0.0)


def measure_alike(name: str, before: Tensor, after: Tensor) -> list[list[float]]:
    """Measures of n activations of one type and shape, from their samples [n, rows, ...], one list each of

    saturation_rate (share of elements in a flat region), saturation_events (units, that is positions of a row, saturated in
    every sampled row), nonlinearity_strength (`_nonlinearity`), mean_output. A few operations over all of them: each
    operation is cold again by the next measured step, and that is most of what it costs.
    """
    count = len(before)
    flat, y = saturated(name, before, after), after.reshape(count, -1).float()
    columns = [
        flat.reshape(count, -1).float().mean(1),
        flat.all(1).reshape(count, -1).float().sum(1),
        _nonlinearity(before.reshape(count, -1).float(), y),
        y.mean(1),
    ]
    return [list(row) for row in zip(*torch.stack(columns).tolist(), strict=True)]


def measure_activations(looks: Mapping[str, tuple[str, ActivationTrace]]) -> dict[str, ActivationMeasure]:
    """Measure activations by id, each (type, trace); those without samples are left out.

    Saturation events are multiplied by the trace's stride. Gradient norms are over the whole gradient.
    """
    alike: dict[object, list[str]] = {}
    for key, (name, trace) in looks.items():
        if trace.before is not None and trace.after is not None:
            before, after = trace.before, trace.after
            alike.setdefault((name, before.shape, after.shape, after.dtype, after.device), []).append(key)
    measures = {}
    for keys in alike.values():
        traces = [looks[key][1] for key in keys]
        samples = [
            [part for part in parts if part is not None] for parts in ((t.before for t in traces), (t.after for t in traces))
        ]
        rows = measure_alike(looks[keys[0]][0], *map(torch.stack, samples))
        for key, trace, (rate, events, strength, mean) in zip(keys, traces, rows, strict=True):
            into, out = (None if norm is None else float(norm) for norm in (trace.gradient_in, trace.gradient_out))
            measures[key] = ActivationMeasure(
                saturation_rate=rate,
                saturation_events=events * trace.stride,
                nonlinearity_strength=None if math.isnan(strength) else max(0.0, strength),
                mean_output=mean,
                gradient_out=out,
                gradient_in=into,
            )
    return measures


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
