"""Percentile intervals from a bootstrap over hosts, paired: every figure of a report sees the same resamples."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnn.model.targets import Floats, Ints

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN where it could not be computed."""

    mean: float
    low: float
    high: float


class HostBootstrap:
    """Resamples of whole hosts, drawn once with a fixed seed.

    `hosts` names the host of each of P rows. A resample keeps all rows of a drawn host, as often as it was drawn.
    """

    def __init__(self, hosts: NDArray[np.str_], draws: int, seed: int) -> None:
        names, self._host = np.unique(hosts, return_inverse=True)
        generator = np.random.default_rng(seed)
        drawn = generator.integers(0, max(1, len(names)), size=(draws if len(names) else 0, len(names)))
        self._counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn]) if len(drawn) else None
        self._rows = [np.flatnonzero(self._host == number) for number in range(len(names))]

    def ratio(self, numerator: Floats, denominator: Floats) -> tuple[float, Floats]:
        """sum(numerator) / sum(denominator) over the rows [P], and the same of every resample."""
        hosts = len(self._rows)
        top = np.bincount(self._host, weights=numerator, minlength=hosts)
        bottom = np.bincount(self._host, weights=denominator, minlength=hosts)
        if self._counts is None:
            return float("nan"), np.zeros(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(top.sum() / bottom.sum()), (self._counts @ top) / (self._counts @ bottom)

    def figure(self, compute: Callable[[Ints], float], draws: int = 200) -> Interval:
        """`compute(rows)` on all rows, with the interval over the first `draws` resamples."""
        mean = compute(np.arange(len(self._host)))
        if self._counts is None:
            return Interval(mean, float("nan"), float("nan"))
        found = [
            compute(np.concatenate([np.tile(self._rows[h], n) for h, n in enumerate(counts) if n]))
            for counts in self._counts[:draws]
        ]
        return interval(mean, np.array(found))


def interval(mean: float, draws: Floats) -> Interval:
    """The percentile interval of `draws` around `mean`; resamples without a figure are left out."""
    kept = draws[np.isfinite(draws)]
    if not len(kept):
        return Interval(mean, float("nan"), float("nan"))
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))
