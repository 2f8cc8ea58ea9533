"""Calibrate a model on hosts that it was not trained on: risk temperature, scale of the value's interval, decision rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm

from gnn.model.choices import REWARD_CLIP
from gnn.model.decision import HARMFUL, DecisionRule, tuned_on, utility
from gnn.model.figures import probabilities
from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import MAX_HARM, MIN_VALUE

ENOUGH = 20  # with fewer labels, the normal quantile and temperature 1 are kept


@dataclass(frozen=True)
class Calibration:
    """A calibration: `temperature` divides risk logits; the interval of `level` is value ± `scale` deviations.

    `missing` holds the reason for each part that could not be fitted.
    """

    temperature: float
    level: float
    scale: float
    examples: int
    missing: dict[str, str]
    rule: DecisionRule


@dataclass(frozen=True)
class Answers:
    """A model's predictions for P pairs after calibration.

    `score` orders the pairs of a state as the decision rule does. `grafts` says whether the policy would graft a pair if it
    chose it, with the default serving thresholds. `low` and `high` are NaN if the model predicts no deviation; `risk_before`
    and `risk_after` [P, 5] are None if it predicts no risk.
    """

    score: Floats
    grafts: NDArray[np.bool_]
    logit: Floats
    value: Floats
    low: Floats
    high: Floats
    risk_before: Floats | None = None
    risk_after: Floats | None = None

    @classmethod
    def join(cls, parts: Sequence["Answers"], order: Ints) -> "Answers":
        """Concatenate several answers of one model and put their pairs into `order`."""
        columns: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            values = [getattr(part, name) for part in parts]
            columns[name] = None if any(each is None for each in values) else np.concatenate(values)[order]
        return cls(**columns)


def calibrate(predictions: Predictions, labels: Labels, level: float) -> Calibration:
    """Fit a calibration on out-of-fold predictions: temperature by likelihood, interval by split-conformal quantile."""
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
    rule = tuned_on(predictions, labels, temperature, REWARD_CLIP, DecisionRule())
    return Calibration(temperature, level, scale, len(labels), missing, rule)


def calibrated(predictions: Predictions, calibration: Calibration) -> Answers:
    """Apply a calibration to predictions."""
    nan = np.full(len(predictions.value), np.nan)
    width = calibration.scale * predictions.deviation if predictions.deviation is not None else nan
    logits, rule = predictions.risk_logits, calibration.rule
    after = None if logits is None else probabilities(logits / calibration.temperature)
    harm = np.zeros(len(nan)) if after is None else after[:, HARMFUL:].sum(1)
    score = utility(predictions.value, predictions.logit, harm, rule)
    return Answers(
        score=score,
        grafts=(score > rule.least + MIN_VALUE) & (harm <= MAX_HARM),
        logit=predictions.logit,
        value=predictions.value,
        low=predictions.value - width,
        high=predictions.value + width,
        risk_before=None if logits is None else probabilities(logits),
        risk_after=after,
    )


def cross_calibrated(predictions: Predictions, labels: Labels, fold: Ints, level: float) -> Answers:
    """Calibrate each fold with the labels of the other folds, so that calibration figures are on hosts that it never saw."""
    parts, rows = [], []
    for number in np.unique(fold):
        mine, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        found = calibrate(predictions.take(others), labels.take(others), level)
        parts.append(calibrated(predictions.take(mine), found))
        rows.append(mine)
    return Answers.join(parts, np.argsort(np.concatenate(rows)))


def fit_temperature(logits: Floats, classes: Ints) -> float:
    """Return the temperature in 1/8..8 that maximizes the likelihood of `classes` [P] under softmax(logits / T) [P, C]."""
    rows = np.arange(len(classes))

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[rows, classes].mean())

    found = minimize_scalar(loss, bounds=(-np.log(8.0), np.log(8.0)), method="bounded")
    return float(np.exp(found.x))


def conformal_quantile(scores: Floats, level: float) -> float:
    """Return the ceil((n + 1) level)-th smallest of n scores, or the largest if that is beyond n (split conformal)."""
    rank = min(len(scores), int(np.ceil((len(scores) + 1) * level)))
    return float(np.sort(scores)[rank - 1])
