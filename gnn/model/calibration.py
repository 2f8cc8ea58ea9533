"""Calibration on validation hosts: one temperature for the risk classes, one scale for the value's interval."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm

from gnn.model.decision import DecisionRule, tuned_on
from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Labels

CLIP = 0.25  # nats; no single outcome decides the rule
ENOUGH = 20  # labels below which the normal quantile and temperature one are kept


@dataclass(frozen=True)
class Calibration:
    """`temperature` divides risk logits; the interval of level `level` is value ± `scale` deviations (or see `missing`)."""

    temperature: float
    level: float
    scale: float
    examples: int
    missing: dict[str, str]
    rule: DecisionRule


def calibrate(predictions: Predictions, labels: Labels, level: float) -> Calibration:
    """Fit on labels of validation hosts: likelihood for the temperature, split-conformal quantile for the interval."""
    missing: dict[str, str] = {}
    seen = labels.risk >= 0
    temperature, scale = 1.0, float(norm.ppf(0.5 + level / 2))
    if predictions.risk_logits is None or int(seen.sum()) < ENOUGH:
        missing["temperature"] = f"{int(seen.sum())} risk labels on validation hosts, at least {ENOUGH} are needed"
    else:
        temperature = fit_temperature(predictions.risk_logits[seen], labels.risk[seen])
    known = np.isfinite(labels.uplift)
    if predictions.deviation is None or int(known.sum()) < ENOUGH:
        missing["scale"] = f"{int(known.sum())} value labels on validation hosts, at least {ENOUGH} are needed"
    else:
        score = np.abs(labels.uplift - predictions.value)[known] / predictions.deviation[known]
        scale = conformal_quantile(score, level)
    rule = tuned_on(predictions, labels, temperature, CLIP, DecisionRule())
    return Calibration(temperature, level, scale, len(labels), missing, rule)


def fit_temperature(logits: Floats, classes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
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
