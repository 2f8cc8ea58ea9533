"""Activations measured together have, bit for bit, the numbers that each has alone by the formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recorder.watch.activations import saturated
from recorder.watch.measures import TINY, measure_alike

FUNCTIONS = {
    "relu": functional.relu,
    "relu6": lambda x: functional.relu6(4 * x),
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "leaky_relu": functional.leaky_relu,
    "glu": functional.glu,
}


def alone(name: str, before: Tensor, after: Tensor) -> tuple[float, float, float | None, float]:
    """The measures of one activation, a tensor operation for each term of its formula."""
    flat = saturated(name, before[None], after[None])[0]
    strength = None
    if before.shape == after.shape:
        x, y = before.flatten().float()[None], after.flatten().float()[None]
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        power = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
        strength = torch.where(power > TINY, 1.0 - ((x * y).sum(1) / power).square(), 0.0).item()
    units = flat.all(0).sum().item()
    return flat.float().mean().item(), units, strength, after.flatten().float()[None].mean(1).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_together_is_as_alone(name: str, count: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(count)
    before = [torch.randn(16, 24, generator=draw).to(dtype) * (k + 1) for k in range(count)]
    before[0][:, :3] = -7.0  # units that are saturated in every row
    after = [FUNCTIONS[name](x) for x in before]
    found = list(measure_alike(name, before, after))
    for (rate, *rest), x, y in zip(found, before, after, strict=True):
        expected, *others = alone(name, x, y)
        assert rate == pytest.approx(expected, rel=1e-7)
        assert rest == others


def test_what_never_changes_is_linear_and_what_is_not_finite_is_nothing() -> None:
    still = torch.ones(16, 8)
    ((_, _, strength, mean),) = measure_alike("relu", [still], [still])
    assert (strength, mean) == (0.0, 1.0)
    wild = torch.full((16, 8), math.inf)
    ((_, _, strength, mean),) = measure_alike("relu", [wild], [wild])
    assert strength == 0.0
    assert mean == math.inf
