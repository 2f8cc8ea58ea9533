"""Fit baselines, which are judged on the same rows as the network, with the same site vectors.

All learn the uplift clipped like the reward; otherwise a diverged host would dominate a squared error.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.choices import REWARD_CLIP
from gnn.model.gaussian_process import GaussianProcess
from gnn.model.predictions import Predictions
from gnn.model.priors import KernelPriors, kernel_priors
from gnn.model.ridge import Ridge
from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import NUM_KERNELS, TrainingConfig

CLIP: Final = 4.0  # standard deviations
LEAST_SPREAD: Final = 1e-3  # a channel with a smaller standard deviation on training hosts is left out
SHRINKAGE: Final = 6.0  # weight, in labels, of the wider group's mean in a group's own mean
LEAF: Final = 12


@dataclass(frozen=True)
class Rows:
    """Labels with the inputs that a baseline may read: site vectors [P, W], host, architecture and data set of each."""

    labels: Labels
    sites: Floats
    hosts: NDArray[np.str_]
    architecture: NDArray[np.str_]
    data_set: NDArray[np.str_]

    def take(self, rows: Ints) -> "Rows":
        """Return those rows, in that order."""
        kept = {name: values[rows] for name, values in vars(self).items() if name != "labels"}
        return Rows(labels=self.labels.take(rows), **kept)


Baseline = Callable[[Rows], Predictions]


def fit_baselines(train: Rows, config: TrainingConfig) -> dict[str, Baseline]:
    """Fit every configured baseline on training hosts, and return them by name."""
    labels = replace(train.labels, uplift=np.clip(train.labels.uplift, -REWARD_CLIP, REWARD_CLIP))
    rows, tau = replace(train, labels=labels), config.tau
    priors, scale = kernel_priors(labels), SiteScale(train.sites)
    grouped, sites = Grouped(rows, priors), scale(train.sites)
    ridge = Ridge(sites, labels, train.hosts)

    def on_sites(model: Callable[[Floats, Ints], Floats]) -> Baseline:
        return lambda judged: _of(model(scale(judged.sites), judged.labels.kernel), tau)

    found: dict[str, Baseline] = {
        "best_constant": lambda judged: constant(priors, judged.labels.kernel, tau),
        "best_grouped": lambda judged: _of(grouped(judged), tau),
        "ridge": on_sites(ridge),
    }
    if config.boosting:
        found["boosting"] = on_sites(Boosting(sites, labels, config))
    if config.gaussian_process:
        found["gaussian_process"] = on_sites(GaussianProcess(sites, labels, train.hosts, config.seed))
    return found


def _of(value: Floats, tau: float) -> Predictions:
    return Predictions(value, value / tau)


def constant(priors: KernelPriors, kernel: Ints, tau: float) -> Predictions:
    """Predict each kernel's shrunken mean over the training hosts, for any state."""
    value = priors.uplift[kernel]
    return Predictions(value, value / tau, np.full(len(value), priors.spread), np.log(priors.risk[kernel]))


class SiteScale:
    """Z-scores of site vectors, clipped at 4, without channels that do not vary; fitted on the rows of training hosts."""

    def __init__(self, sites: Floats) -> None:
        spread = sites.std(0)
        self._kept = np.flatnonzero(spread > LEAST_SPREAD)
        self._mean, self._spread = sites.mean(0)[self._kept], spread[self._kept]

    def __call__(self, sites: Floats) -> Floats:
        """Scale `sites` [P, W] to [P, channels that vary], within ±4."""
        scaled: Floats = np.clip((sites[:, self._kept] - self._mean) / self._spread, -CLIP, CLIP)
        return scaled


class Grouped:
    """Each kernel's mean uplift by architecture and data set, shrunken to the architecture's mean, and that to the kernel's."""

    def __init__(self, train: Rows, priors: KernelPriors) -> None:
        known = np.flatnonzero(np.isfinite(train.labels.uplift))
        rows = train.take(known)
        self._kernel = priors.uplift
        self._wide = _means(rows.labels, rows.architecture, lambda _: self._kernel)
        self._narrow = _means(rows.labels, _pair(rows), lambda name: self._wide.get(name.split("\0")[0], self._kernel))

    def __call__(self, judged: Rows) -> Floats:
        """Return the mean uplift of the narrowest group that training saw: [P]."""
        groups = zip(_pair(judged).tolist(), judged.architecture.tolist(), judged.labels.kernel.tolist(), strict=True)
        return np.array([self._narrow.get(pair, self._wide.get(kind, self._kernel))[k] for pair, kind, k in groups])


def _pair(rows: Rows) -> NDArray[np.str_]:
    pairs = zip(rows.architecture.tolist(), rows.data_set.tolist(), strict=True)
    return np.array([f"{kind}\0{name}" for kind, name in pairs], dtype=str)


def _means(labels: Labels, groups: NDArray[np.str_], wider: Callable[[str], Floats]) -> dict[str, Floats]:
    """Return the weighted mean uplift by kernel [32] of each group, shrunken to that of the wider group."""
    found = {}
    for name in np.unique(groups).tolist():
        own = groups == name
        weight, kernel = labels.weight[own], labels.kernel[own]
        total = np.bincount(kernel, weight * labels.uplift[own], NUM_KERNELS)
        mass = np.bincount(kernel, weight, NUM_KERNELS)
        found[name] = (total + SHRINKAGE * wider(name)) / (mass + SHRINKAGE)
    return found


class Boosting:
    """Histogram gradient boosting on [site vector | kernel], 31 leaves, fixed seed (its sums do not depend on threads)."""

    def __init__(self, sites: Floats, labels: Labels, config: TrainingConfig) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        known = np.isfinite(labels.uplift)
        self._model = HistGradientBoostingRegressor(
            max_iter=config.boosting_rounds, learning_rate=0.05, max_leaf_nodes=31, min_samples_leaf=LEAF,
            l2_regularization=5.0, max_features=0.5, categorical_features=[sites.shape[1]], early_stopping=False,
            random_state=config.seed,
        )  # fmt: skip
        self._model.fit(np.column_stack([sites, labels.kernel])[known], labels.uplift[known], labels.weight[known])

    def __call__(self, sites: Floats, kernel: Ints) -> Floats:
        """Return the predicted uplift of those rows: [P]."""
        return np.asarray(self._model.predict(np.column_stack([sites, kernel]))) if len(kernel) else np.zeros(0)
