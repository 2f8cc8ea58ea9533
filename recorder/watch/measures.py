"""Compute every measured number, on small slices of tensors.

All inputs are detached float tensors; results are Python floats. Non-finite values pass
through: a contract table makes them missing and names them.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from recorder.watch.activations import saturated

ROWS: Final = 16  # rows of a batch that activation measures look at
UNITS: Final = 128  # units of a row that they look at, evenly spread
DECAY: Final = 0.1  # weight of the newest value in running means and variances
TINY: Final = 1e-12


class ActivationMeasure(NamedTuple):
    """One look at an activation. Shares lie in 0..1; gradients are norms over the whole gradient."""

    saturation_rate: float
    saturation_events: float
    nonlinearity_strength: float | None
    mean_output: float
    gradient_out: float | None
    gradient_in: float | None

    @property
    def gradient_flow(self) -> float | None:
        """Norm of the gradient at the output over that at the input; None if either is unknown or the latter is 0."""
        if self.gradient_out is None or not self.gradient_in:
            return None
        return self.gradient_out / self.gradient_in


@dataclass
class Running:
    """Exponentially weighted mean and variance (West's update with weight `DECAY`); the variance needs two values."""

    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def add(self, value: float) -> float | None:
        """Add one value, and return the known variance; a non-finite value leaves the state untouched."""
        if math.isfinite(value):
            delta = value - self.mean
            weight = max(DECAY, 1.0 / (self.count + 1))
            self.mean += weight * delta
            self.variance = (1.0 - weight) * (self.variance + weight * delta * delta)
            self.count += 1
        return self.variance if self.count > 1 else None

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


def _single(value: float) -> float:
    """Return the float32 nearest to `value`.

    If `value` is the result of one operation on two float32 numbers, that is what float32 arithmetic gives.
    """
    return array("f", (value,))[0]


def _nonlinearity(norm_in: float, norm_out: float, product: float) -> float:
    """Return 1 - R² of the best affine fit of outputs on inputs, from norms and inner product of both, centred (float32)."""
    power = _single(norm_in * norm_out)
    share = _single(product / power) if power > TINY else 1.0
    return _single(1.0 - _single(share * share))


def _spread(both: Tensor, count: int) -> tuple[list[float], list[float]]:
    """Return the means of n outputs and the nonlinearity of each, from n inputs and then n outputs [2n, elements].

    There is one operation over all of them instead of one for each side: an operation is cold again by the next measured step,
    and that is most of what it costs.
    """
    means = both.mean(1, keepdim=True)
    both.sub_(means)
    powers = torch.linalg.vector_norm(both, dim=1).tolist()
    products = torch.mul(*both.chunk(2)).sum(1).tolist()
    strengths = list(map(_nonlinearity, powers[:count], powers[count:], products))
    return [mean for (mean,) in means.tolist()[count:]], strengths


def measure_alike(name: str, before: list[Tensor], after: list[Tensor]) -> Iterator[tuple[float, float, float | None, float]]:
    """Yield measures of n activations of one type and shape, from their samples (n of [rows, ...] each):

    saturation_rate (share of elements in a flat region), saturation_events (units, that is positions of a row, saturated in
    every sampled row), nonlinearity_strength (`_nonlinearity`; None if the sizes differ), mean_output.
    """
    count = len(after)
    strengths: Sequence[float | None] = [None] * count
    if before[0].shape == after[0].shape:
        both = torch.stack(before + after)
        flat = saturated(name, *both.chunk(2))
        means, strengths = _spread(both.flatten(1) if both.dtype is torch.float32 else both.flatten(1).float(), count)
    else:
        outputs = torch.stack(after)
        flat = saturated(name, torch.stack(before), outputs)
        means = outputs.reshape(count, -1).float().mean(1).tolist()
    rows, size = flat.shape[1], flat.numel() // count
    seen = flat.sum(1).reshape(count, -1).tolist()
    return zip([sum(units) / size for units in seen], [units.count(rows) for units in seen], strengths, means, strict=True)


def measure_activations(looks: Mapping[str, tuple[str, ActivationTrace]]) -> dict[str, ActivationMeasure]:
    """Measure activations by id, each (type, trace); those without samples are left out.

    Saturation events are multiplied by the trace's stride. Gradient norms are over the whole gradient.
    """
    alike: dict[object, list[tuple[str, Tensor, Tensor]]] = {}
    for key, (name, trace) in looks.items():
        if trace.before is not None and trace.after is not None:
            before, after = trace.before, trace.after
            alike.setdefault((name, before.shape, after.shape, after.dtype, after.device), []).append((key, before, after))
    measures = {}
    for group in alike.values():
        rows = measure_alike(looks[group[0][0]][0], [before for _, before, _ in group], [after for *_, after in group])
        for (key, *_), (rate, events, strength, mean) in zip(group, rows, strict=True):
            trace = looks[key][1]
            into, out = trace.gradient_in, trace.gradient_out
            measures[key] = ActivationMeasure(
                saturation_rate=rate,
                saturation_events=events * trace.stride,
                nonlinearity_strength=None if strength is None or math.isnan(strength) else max(0.0, strength),
                mean_output=mean,
                gradient_out=None if out is None else out.item(),
                gradient_in=None if into is None else into.item(),
            )
    return measures


def stability(history: Running, mean_output: float) -> float | None:
    """Return 1 / (1 + |mean output - its running mean| / its running standard deviation), 0..1; None before two looks."""
    if history.count < 2:
        return None
    spread = math.sqrt(history.variance) + 1e-6 * (1.0 + abs(history.mean))
    return 1.0 / (1.0 + abs(mean_output - history.mean) / spread)


def convergence_rate(before: float, after: float, steps: int) -> float | None:
    """Return ln(before / after) / steps of a group's running mean gradient norm: positive while gradients shrink."""
    if steps <= 0 or before <= 0.0 or after <= 0.0:
        return None
    return math.log(before / after) / steps
