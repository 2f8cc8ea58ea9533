"""Calibration: one temperature for the risk classes, one scale for the value's interval; fitted on hosts never trained on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm

from gnn.model.figures import probabilities
from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import HARMFUL, MAX_HARM, MIN_VALUE

ENOUGH = 20  # labels below which the normal quantile and temperature one are kept


@dataclass(frozen=True)
class Calibration:
    """`temperature` divides risk logits; the interval of level `level` is value ± `scale` deviations (or see `missing`)."""

    temperature: float
    level: float
    scale: float
    examples: int
    missing: dict[str, str]


@dataclass(frozen=True)
class Answers:
    """What a model says of P pairs after calibration.

    `low` and `high` are NaN if it states no deviation; `risk_before` and `risk_after` [P, 5] are None if it predicts no risk.
    """

    logit: Floats
    value: Floats
    low: Floats
    high: Floats
    risk_before: Floats | None = None
    risk_after: Floats | None = None

    @property
    def grafts(self) -> NDArray[np.bool_]:
        """Whether the policy grafts a pair that it chose, with the thresholds that serve by default."""
        worth: NDArray[np.bool_] = ~(self.value <= MIN_VALUE)  # a rule without a value always grafts
        return worth if self.risk_after is None else worth & (self.risk_after[:, HARMFUL:].sum(1) <= MAX_HARM)


def calibrate(predictions: Predictions, labels: Labels, level: float) -> Calibration:
    """Fit on predictions out of fold: likelihood for the temperature, split-conformal quantile for the interval."""
    missing: dict[str, str] = {}
    seen = labels.risk >= 0
    temperature, scale = 1.0, float(norm.ppf(0.5 + level / 2))
    if predictions.risk_logits is None or int(seen.sum()) < ENOUGH:
        missing["temperature"] = f"{int(seen.sum())} risk labels out of fold, at least {ENOUGH} are needed"
    else:
        temperature = fit_temperature(predictions.risk_logits[seen], labels.risk[seen])
    known = np.isfinite(labels.uplift)
    if predictions.deviation is None or int(known.sum()) < ENOUGH:
        missing["scale"] = f"{int(known.sum())} value labels out of fold, at least {ENOUGH} are needed"
    else:
        score = np.abs(labels.uplift - predictions.value)[known] / predictions.deviation[known]
        scale = conformal_quantile(score, level)
    return Calibration(temperature, level, scale, len(labels), missing)


def calibrated(predictions: Predictions, calibration: Calibration) -> Answers:
    """Apply a calibration."""
    return _answers(predictions, np.full(len(predictions.value), calibration.scale), calibration.temperature)


def cross_calibrated(predictions: Predictions, labels: Labels, fold: Ints, level: float) -> Answers:
    """Calibrate each fold with what the others say, so that the calibration's own figures are of hosts that it never saw."""
    scale, temperature = np.ones(len(labels)), np.ones(len(labels))
    for number in np.unique(fold):
        others = np.flatnonzero(fold != number)
        found = calibrate(predictions.take(others), labels.take(others), level)
        scale[fold == number], temperature[fold == number] = found.scale, found.temperature
    return _answers(predictions, scale, temperature[:, None])


def _answers(predictions: Predictions, scale: Floats, temperature: float | Floats) -> Answers:
    nan = np.full(len(predictions.value), np.nan)
    width = scale * predictions.deviation if predictions.deviation is not None else nan
    logits = predictions.risk_logits
    return Answers(
        logit=predictions.logit,
        value=predictions.value,
        low=predictions.value - width,
        high=predictions.value + width,
        risk_before=None if logits is None else probabilities(logits),
        risk_after=None if logits is None else probabilities(logits / temperature),
    )


def fit_temperature(logits: Floats, classes: Ints) -> float:
    """The temperature in 1/8..8 that maximizes the likelihood of `classes` [P] under softmax(logits / T) [P, C]."""
    rows = np.arange(len(classes))

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[rows, classes].mean())

    found = minimize_scalar(loss, bounds=(-np.log(8.0), np.log(8.0)), method="bounded")
    return float(np.exp(found.x))


def conformal_quantile(scores: Floats, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n scores (the largest where that is beyond n): split conformal prediction."""
    rank = min(len(scores), int(np.ceil((len(scores) + 1) * level)))
    return float(np.sort(scores)[rank - 1])
