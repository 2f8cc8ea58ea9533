"""Fit a ridge regression of the uplift, with coefficients that all kernels share and each kernel's own."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import NUM_KERNELS

PENALTIES: Final = (1.0, 10.0, 100.0)
COMPONENTS: Final = 64
FOLDS: Final = 3


class Ridge:
    """Weighted ridge regression of the uplift on [f | kernel | kernel x f].

    f are the principal components of the z-scored site vectors [n, W], at most 64: a ridge shrinks the others to about zero.

    The penalty is chosen by cross-validation over training hosts (never rows); rows have the labels' weights. The matrix of
    the normal equations has the shape of an arrow: one F x F block that all kernels share, one block per kernel, and nothing
    between kernels. Eliminating the kernels' blocks solves them at a cost linear in the rows.
    """

    def __init__(self, features: Floats, labels: Labels, hosts: NDArray[np.str_]) -> None:
        known = np.flatnonzero(np.isfinite(labels.uplift))
        kernel = labels.kernel[known]
        self._basis = _components(features[known])
        rows = self._design(features[known])
        weight, target = labels.weight[known], labels.uplift[known]
        self._offset = float(np.average(target, weights=weight))
        fold = host_folds(hosts[known])
        moments = [_moments(rows[fold == k], kernel[fold == k], weight[fold == k], (target - self._offset)[fold == k])
                   for k in np.unique(fold)]  # fmt: skip
        self.penalty = _choose(moments)
        self._shared, self._own = _solve(sum(moments[1:], start=moments[0]), self.penalty)

    def __call__(self, features: Floats, kernel: Ints) -> Floats:
        """Return the predicted uplift of those rows: [P]."""
        if not len(kernel):
            return np.zeros(0)
        rows = self._design(features)
        value: Floats = rows[:, :-1] @ self._shared + np.einsum("nf,nf->n", rows, self._own[kernel]) + self._offset
        return value

    def _design(self, features: Floats) -> Floats:
        """Return the principal components scaled by 1 / sqrt(W), and a column of ones."""
        width = max(1, features.shape[1])
        return np.column_stack([features @ self._basis / np.sqrt(width), np.ones(len(features))])


def _components(features: Floats) -> Floats:
    """Return the directions in which the rows vary most: [W, at most 64]."""
    _, directions = np.linalg.eigh(features.T @ features)
    found: Floats = directions[:, ::-1][:, :COMPONENTS]
    return found


def host_folds(hosts: NDArray[np.str_]) -> Ints:
    """Return the fold of each row for cross-validation within training hosts."""
    names = np.unique(hosts)
    return np.searchsorted(names, hosts) % min(FOLDS, len(names))


def _moments(rows: Floats, kernel: Ints, weight: Floats, target: Floats) -> Floats:
    """Return the weighted second moments of [features, 1, target] by kernel: [NUM_KERNELS, F + 2, F + 2]."""
    whole = np.column_stack([rows, target])
    found = np.zeros((NUM_KERNELS, whole.shape[1], whole.shape[1]))
    for k in np.unique(kernel):
        mine = whole[kernel == k]
        found[k] = mine.T @ (weight[kernel == k, None] * mine)
    return found


def _solve(moments: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Return the coefficients that all kernels share [F], and each kernel's own [NUM_KERNELS, F + 1]."""
    square, aim = moments[:, :-1, :-1], moments[:, :-1, -1:]
    cross = square[:, :, :-1]
    ridge = penalty * np.eye(square.shape[1])
    eliminated = np.linalg.solve(square + ridge, np.concatenate([cross, aim], 2))
    toward = cross.transpose(0, 2, 1) @ eliminated
    total = (moments[:, :-2, :-2].sum(0) + ridge[:-1, :-1]) - toward[:, :, :-1].sum(0)
    shared = np.linalg.solve(total, (aim[:, :-1] - toward[:, :, -1:]).sum(0))[:, 0]
    return shared, eliminated[:, :, -1] - eliminated[:, :, :-1] @ shared


def _choose(moments: list[Floats]) -> float:
    """Return the penalty with the least weighted error over the folds, each left out in turn; the middle one for one host."""
    if len(moments) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    whole = sum(moments[1:], start=moments[0])
    losses = [sum(_loss(out, *_solve(whole - out, penalty)) for out in moments) for penalty in PENALTIES]
    return PENALTIES[int(np.argmin(losses))]


def _loss(moments: Floats, shared: Floats, own: Floats) -> float:
    """Return the weighted squared error of coefficients on the rows of `moments`: r' M r with r = (coefficients, -1)."""
    joint = own.copy()
    joint[:, :-1] += shared
    residual = np.column_stack([joint, np.full(len(own), -1.0)])
    return float(np.einsum("kf,kfg,kg->", residual, moments, residual))
