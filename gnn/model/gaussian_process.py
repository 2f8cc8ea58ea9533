"""Fit a Gaussian process over (site, kernel) pairs by a subset of regressors: its mean is a ridge on random training pairs."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.ridge import host_folds
from gnn.model.targets import Floats, Ints, Labels
from schemas.kernels import KERNEL_FAMILIES

LANDMARKS: Final = 800  # training pairs that represent all
LENGTHS: Final = (0.5, 1.0)  # length scales, in root mean squared distances of sites
NOISES: Final = (1.0, 4.0, 16.0)  # variance of the noise, in prior variances of one term
WITHIN: Final = 0.5  # covariance of two kernels of the same family
JITTER: Final = 1e-6


class GaussianProcess:
    """A Gaussian process with covariance c + s + c s of two pairs.

    s is a squared exponential of their z-scored site vectors; c is 1 for the same kernel, 0.5 within a family, else 0. Length
    scale and noise are chosen by cross-validation over training hosts.
    """

    def __init__(self, sites: Floats, labels: Labels, hosts: NDArray[np.str_], seed: int) -> None:
        known = np.flatnonzero(np.isfinite(labels.uplift))
        sites, kernel = sites[known], labels.kernel[known]
        weight, target = labels.weight[known], labels.uplift[known]
        self._offset = float(np.average(target, weights=weight)) if len(known) else 0.0
        chosen = np.sort(np.random.default_rng(seed).permutation(len(known))[:LANDMARKS])
        self._sites, self._kernel = sites[chosen], kernel[chosen]
        family = np.unique(KERNEL_FAMILIES, return_inverse=True)[1]
        self._alike = WITHIN * (family[:, None] == family) + (1 - WITHIN) * np.eye(len(family))
        apart = _squared(sites, self._sites)
        typical = float(apart.mean()) if apart.size else 1.0
        fold = host_folds(hosts[known])
        best = (np.inf, np.zeros(len(chosen)), 1.0)
        for length in LENGTHS:
            scale = max(2.0 * length**2 * typical, JITTER)
            design = self._design(apart, kernel, scale)
            error, coefficients = _choose(design, design[chosen], weight, target - self._offset, fold)
            best = min(best, (error, coefficients, scale), key=lambda one: one[0])
        _, self._coefficients, self._scale = best

    def __call__(self, sites: Floats, kernel: Ints) -> Floats:
        """Return the mean uplift of those rows: [P]."""
        if not len(kernel):
            return np.zeros(0)
        design = self._design(_squared(sites, self._sites), kernel, self._scale)
        found: Floats = design @ self._coefficients + self._offset
        return found

    def _design(self, apart: Floats, kernel: Ints, scale: float) -> Floats:
        """Return the covariance of pairs with the landmarks: [P, M]."""
        alike, near = self._alike[kernel][:, self._kernel], np.exp(-apart / scale)
        found: Floats = alike + near + alike * near
        return found


def _squared(a: Floats, b: Floats) -> Floats:
    """Return the squared distances of the rows of `a` from those of `b`: [len(a), len(b)]."""
    found: Floats = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T, 0.0)
    return found


def _choose(design: Floats, among: Floats, weight: Floats, target: Floats, fold: Ints) -> tuple[float, Floats]:
    """Choose the noise with the least weighted error over the folds, each left out in turn.

    Returns that error, and the coefficients fitted with this noise on all rows.
    """
    squares = [design[fold == k].T @ (weight[fold == k, None] * design[fold == k]) for k in np.unique(fold)]
    aims = [design[fold == k].T @ (weight * target)[fold == k] for k in np.unique(fold)]
    square, aim = sum(squares, np.zeros_like(among)), sum(aims, np.zeros(len(among)))
    best = (np.inf, NOISES[0])
    for noise in NOISES if len(squares) > 1 else ():
        error = 0.0
        for number, out in zip(np.unique(fold), zip(squares, aims, strict=True), strict=True):
            found = _solve(square - out[0], aim - out[1], among, noise)
            rows = fold == number
            error += float((weight[rows] * (target[rows] - design[rows] @ found) ** 2).sum())
        best = min(best, (error, noise))
    return best[0], _solve(square, aim, among, best[1])


def _solve(square: Floats, aim: Floats, among: Floats, noise: float) -> Floats:
    if not len(aim):
        return aim
    found: Floats = np.linalg.solve(square + noise * among + JITTER * np.trace(among) * np.eye(len(aim)), aim)
    return found
