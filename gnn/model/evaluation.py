"""Evaluation of all compared models on one split, and the `metrics` block of the manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.bootstrap import HostBootstrap, Interval, interval
from gnn.model.calibration import Calibration
from gnn.model.figures import (
    StateGains,
    auroc,
    brier,
    ece,
    gap_closed,
    interval_coverage,
    macro_f1,
    probabilities,
    r2,
    state_gains,
    within_state_spearman,
)
from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Labels

MODELS: Final = ("model", "no_messages", "ridge", "boosting", "best_constant", "random", "no_op")
NAN: Final = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Outcomes:
    """Labels of one split with the columns that scoring needs, row by row; `reward` is u on the hosts' test data."""

    labels: Labels
    hosts: NDArray[np.str_]
    reward: Floats
    data_set: NDArray[np.str_]
    architecture: NDArray[np.str_]


@dataclass(frozen=True)
class Gaps:
    """Share of the random-to-oracle gap closed by each model, and the model's lead over the best baseline."""

    closed: dict[str, Interval]
    best_baseline: str | None
    lead: Interval


def compare(outcomes: Outcomes, predictions: Mapping[str, Predictions], draws: int, seed: int) -> Gaps:
    """Gaps closed on one split with paired bootstrap intervals over hosts."""
    gains = {name: gains_of(name, outcomes, predictions) for name in MODELS if name in predictions or name in RULES}
    first = next(iter(gains.values()))
    host_of = dict(zip(outcomes.labels.graph.tolist(), outcomes.hosts.tolist(), strict=True))
    hosts = np.array([host_of[state] for state in first.state.tolist()], dtype=str)
    boot = HostBootstrap(hosts, draws, seed)
    found = {name: boot.ratio(g.chosen - g.random, g.oracle - g.random) for name, g in gains.items()}
    closed = {name: interval(mean, resampled) for name, (mean, resampled) in found.items()}
    baselines = [name for name in closed if name != "model" and np.isfinite(closed[name].mean)]
    if "model" not in found or not baselines:
        return Gaps(closed, None, NAN)
    best = max(baselines, key=lambda name: closed[name].mean)
    lead = interval(found["model"][0] - found[best][0], found["model"][1] - found[best][1])
    return Gaps(closed, best, lead)


RULES: Final = ("random", "no_op")


def gains_of(name: str, outcomes: Outcomes, predictions: Mapping[str, Predictions]) -> StateGains:
    """Gains of a model by its predictions, of `random` and of `no_op` (which changes nothing: reward zero) by rule."""
    logit = predictions[name].logit if name in predictions else np.zeros(len(outcomes.labels))
    gains = state_gains(logit, outcomes.reward, outcomes.labels.graph)
    if name == "no_op":
        return StateGains(gains.state, np.zeros(len(gains.state)), gains.random, gains.oracle)
    return gains


def model_figures(
    outcomes: Outcomes, predictions: Predictions, calibration: Calibration, draws: int, seed: int
) -> dict[str, Interval]:
    """Figures of one model on one split, by their names in `training.evaluation`."""
    labels, boot = outcomes.labels, HostBootstrap(outcomes.hosts, draws, seed)
    known = np.flatnonzero(np.isfinite(labels.uplift))
    figures: dict[str, Interval] = {
        "within_state_spearman": boot.figure(
            lambda rows: within_state_spearman(predictions.logit[rows], outcomes.reward[rows], labels.graph[rows]), draws=0
        ),
        "value_r2": boot.figure(lambda rows: _on(r2, predictions.value, labels.uplift, rows, known)),
    }
    if predictions.deviation is not None:
        low, high = value_interval(predictions, calibration)
        figures["value_interval_coverage"] = boot.figure(
            lambda rows: interval_coverage(*(x[rows[np.isin(rows, known)]] for x in (low, high, labels.uplift)))
        )
    if predictions.risk_logits is not None:
        figures |= _risk_figures(labels, predictions.risk_logits, calibration.temperature, boot)
    return figures


def value_interval(predictions: Predictions, calibration: Calibration) -> tuple[Floats, Floats]:
    """Calibrated bounds of the value: value ± scale x deviation. NaN where the model states no deviation."""
    width = predictions.deviation if predictions.deviation is not None else np.full(len(predictions.value), np.nan)
    return predictions.value - calibration.scale * width, predictions.value + calibration.scale * width


def _on(compute: Any, value: Floats, u: Floats, rows: Any, known: Any) -> float:
    kept = rows[np.isin(rows, known)]
    return float(compute(value[kept], u[kept]))


def _risk_figures(labels: Labels, logits: Floats, temperature: float, boot: HostBootstrap) -> dict[str, Interval]:
    before, after = probabilities(logits), probabilities(logits, temperature)
    seen = labels.risk >= 0
    harmful = after[:, 2:].sum(1)

    def on(compute: Any, scores: Floats) -> Interval:
        return boot.figure(lambda rows: float(compute(scores[rows[seen[rows]]], labels.risk[rows[seen[rows]]])))

    return {
        "risk_macro_f1": on(macro_f1, logits),
        "risk_auroc": boot.figure(lambda rows: auroc(harmful[rows[seen[rows]]], labels.risk[rows[seen[rows]]] >= 2)),
        "risk_ece_before": on(ece, before),
        "risk_ece_after": on(ece, after),
        "risk_brier": on(brier, after),
    }


def by_group(outcomes: Outcomes, predictions: Predictions, groups: NDArray[np.str_]) -> dict[str, float]:
    """Gap closed by the model within each group of states (an architecture, a data set)."""
    found = {}
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        gains = state_gains(predictions.logit[rows], outcomes.reward[rows], outcomes.labels.graph[rows])
        found[str(name)] = gap_closed(gains)
    return found
