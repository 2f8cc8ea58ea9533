"""Baselines on the same labels: best constant kernel and gradient boosting (ridge is in `gnn.model.ridge`)."""

import numpy as np

from gnn.model.predictions import Predictions
from gnn.model.priors import KernelPriors
from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import NUM_KERNELS


def constant(priors: KernelPriors, kernel: Ints, tau: float) -> Predictions:
    """Each kernel's shrunken mean over the training hosts, whatever the state."""
    value = priors.uplift[kernel]
    return Predictions(value, value / tau, np.full(len(value), priors.spread), np.log(priors.risk[kernel]))


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
