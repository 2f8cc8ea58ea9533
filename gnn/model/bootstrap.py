"""Compute percentile intervals by a paired bootstrap over hosts: every figure of a report uses the same resamples.

A figure is a function of sums over rows, so a resample of hosts is a product of two matrices, not a copy of the rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnn.model.targets import Floats, Ints

LEVEL = 0.95
Combine = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN if it could not be computed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure on all rows, and on every resample [draws]."""

    mean: float
    draws: Floats

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the paired difference of two figures of the same bootstrap."""
        return Estimate(self.mean - other.mean, self.draws - other.draws)

    @cached_property
    def interval(self) -> Interval:
        """The percentile interval; resamples without a figure are left out."""
        kept = self.draws[np.isfinite(self.draws)]
        if not len(kept):
            return Interval(self.mean, float("nan"), float("nan"))
        low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.mean, float(low), float(high))


class HostBootstrap:
    """Resamples of whole hosts, drawn once with a fixed seed.

    `hosts` are the names of the hosts to draw from; a resample holds all rows of a drawn host, as often as it was drawn.
    """

    def __init__(self, hosts: NDArray[np.str_], draws: int, seed: int) -> None:
        self._names = np.unique(hosts)
        size = len(self._names)
        generator = np.random.default_rng(seed)
        self._counts = generator.multinomial(size, np.full(size, 1.0 / size), size=draws) if size else np.zeros((0, 0))

    def places(self, hosts: NDArray[np.str_]) -> Ints:
        """Return the number of each row's host."""
        return np.searchsorted(self._names, hosts)

    def of_sums(self, columns: Floats, hosts: Ints, combine: Combine) -> Estimate:
        """Estimate `combine` of the sums of `columns` [P, C] over the rows; `hosts` [P] is the number of each row's host.

        `combine` maps sums [..., C] to figures [...], NaN if they can't be computed.
        """
        by_host = np.zeros((len(self._names), columns.shape[1]))
        np.add.at(by_host, hosts, columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            return Estimate(float(combine(columns.sum(0))), combine(self._counts @ by_host))

    def ratio(self, numerator: Floats, denominator: Floats, hosts: Ints) -> Estimate:
        """Estimate sum(numerator) / sum(denominator) over the rows [P]: a mean if the denominator is 1 in every row."""
        return self.of_sums(np.stack([numerator, denominator], 1), hosts, ratio)

    def weights(self, hosts: Ints, at_once: int) -> Iterator[Floats]:
        """Yield how often each resample holds each row, [draws, P], for `at_once` resamples at a time."""
        for start in range(0, len(self._counts), at_once):
            yield self._counts[start : start + at_once, hosts].astype(np.float64)


def ratio(sums: Floats) -> Floats:
    """Divide the first sum by the second; NaN if the second is zero."""
    found: Floats = sums[..., 0] / np.where(sums[..., 1] == 0, np.nan, sums[..., 1])
    return found
