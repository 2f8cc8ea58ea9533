"""Baselines on the same labels: best constant kernel, ridge on blueprint x flat features, gradient boosting."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.config import NUM_KERNELS
from gnn.model.predictions import Predictions
from gnn.model.priors import KernelPriors
from gnn.model.targets import Floats, Ints, Labels

PENALTIES: Final = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS: Final = 4


def constant(priors: KernelPriors, kernel: Ints, tau: float) -> Predictions:
    """Each kernel's shrunken mean over the training hosts, whatever the state."""
    value = priors.uplift[kernel]
    return Predictions(value, value / tau, np.full(len(value), priors.spread), np.log(priors.risk[kernel]))


class Ridge:
    """Ridge regression of the uplift on [f | kernel | kernel x f], in its dual form; f are standardized flat features.

    The penalty is chosen by cross-validation over training hosts (never rows). Weights are the labels' own.
    """

    def __init__(self, features: Floats, labels: Labels, hosts: NDArray[np.str_]) -> None:
        known = np.flatnonzero(np.isfinite(labels.uplift))
        raw, self._kernels = features[known], labels.kernel[known]
        self._mean = raw.mean(0)
        spread = raw.std(0)
        self._scale = np.where(spread > 1e-9, spread, np.inf)
        self._rows = self._standard(raw)
        weight, target = labels.weight[known], labels.uplift[known]
        self._offset = float(np.average(target, weights=weight))
        gram = self._gram(self._rows, self._kernels)
        self.penalty = _choose(gram, target - self._offset, weight, hosts[known])
        self._dual = _solve(gram, target - self._offset, weight, self.penalty)

    def __call__(self, features: Floats, kernel: Ints, tau: float) -> Predictions:
        """Predicted uplift of those rows."""
        if not len(kernel):
            return Predictions(np.zeros(0), np.zeros(0))
        value = self._gram(self._standard(features), kernel) @ self._dual + self._offset
        return Predictions(value, value / tau)

    def _standard(self, features: Floats) -> Floats:
        standard: Floats = np.clip((features - self._mean) / self._scale, -5.0, 5.0)
        return standard

    def _gram(self, rows: Floats, kernel: Ints) -> Floats:
        products: Floats = rows @ self._rows.T / max(1, rows.shape[1])
        same = kernel[:, None] == self._kernels[None, :]
        gram: Floats = products + same * (1.0 + products)
        return gram


def _solve(gram: Floats, target: Floats, weight: Floats, penalty: float) -> Floats:
    return np.asarray(np.linalg.solve(gram + penalty * np.diag(1.0 / weight), target), dtype=np.float64)


def _choose(gram: Floats, target: Floats, weight: Floats, hosts: NDArray[np.str_]) -> float:
    names = np.unique(hosts)
    if len(names) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    fold = np.searchsorted(names, hosts) % min(FOLDS, len(names))
    losses = np.zeros(len(PENALTIES))
    for number in np.unique(fold):
        out, kept = fold == number, fold != number
        for place, penalty in enumerate(PENALTIES):
            dual = _solve(gram[np.ix_(kept, kept)], target[kept], weight[kept], penalty)
            error = target[out] - gram[np.ix_(out, kept)] @ dual
            losses[place] += float((weight[out] * error**2).sum())
    return PENALTIES[int(losses.argmin())]


class Boosting:
    """Histogram gradient boosting on [flat features | kernel], fixed seed (its sums do not depend on threads)."""

    def __init__(self, features: Floats, labels: Labels, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        known = np.isfinite(labels.uplift)
        column = features.shape[1]
        self._model = HistGradientBoostingRegressor(
            max_iter=80, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=12, l2_regularization=5.0,
            categorical_features=[column], early_stopping=False, random_state=seed,
        )  # fmt: skip
        self._model.fit(self._join(features[known], labels.kernel[known]), labels.uplift[known], labels.weight[known])

    def __call__(self, features: Floats, kernel: Ints, tau: float) -> Predictions:
        """Predicted uplift of those rows."""
        if not len(kernel):
            return Predictions(np.zeros(0), np.zeros(0))
        value: Floats = self._model.predict(self._join(features, kernel))
        return Predictions(value, value / tau)

    @staticmethod
    def _join(features: Floats, kernel: Ints) -> Floats:
        return np.column_stack([features, kernel % NUM_KERNELS])
