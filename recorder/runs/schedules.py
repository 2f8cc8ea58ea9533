"""Compute alpha schedules: how a graft's share rises from 0 to 1 over its steps. `BLENDING_METHODS` names them."""

import math
from typing import Final

from schemas.configuration import BLENDING_METHODS

TEMPERATURE: Final = 1.0  # temperature of the sigmoid; the other schedules ignore it
_WARMUP_SHARE: Final = 0.3
_SIGMOID_SPAN: Final = 12.0


def alpha_at(method: str, step: int, total_steps: int, temperature: float = TEMPERATURE) -> float:
    """Return alpha (0..1) after `step` steps of a schedule of `total_steps`; 1 from then on. `total_steps` 0 is a step to 1.

    linear: t. cosine: (1 - cos(pi t)) / 2. warmup_hold: rises to 1 within the first 30 %, then holds. sigmoid: 1 / (1 + exp(-12
    (t - 1/2) / temperature)), rescaled to run from 0 to 1. Raises ValueError for another method.
    """
    t = 1.0 if total_steps <= 0 else min(max(step / total_steps, 0.0), 1.0)
    if method == "linear":
        return t
    if method == "cosine":
        return (1.0 - math.cos(math.pi * t)) / 2.0
    if method == "warmup_hold":
        return min(t / _WARMUP_SHARE, 1.0)
    if method == "sigmoid":
        low, value, high = (_logistic(x, temperature) for x in (0.0, t, 1.0))
        return (value - low) / (high - low)
    raise ValueError(f"alpha schedule {method!r}: expected one of {', '.join(BLENDING_METHODS)}")


def _logistic(t: float, temperature: float) -> float:
    return 1.0 / (1.0 + math.exp(-_SIGMOID_SPAN * (t - 0.5) / temperature))
