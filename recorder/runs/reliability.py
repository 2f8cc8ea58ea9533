"""Read measured outcomes back from a recording's field reports: uplifts, replicates, classes, reliability.

The exports are decoded as the pipeline decodes them, whatever their format.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recorder.exports import read_table
from recorder.speech.uplift import Outcome, log_ratio, risk_class
from schemas.configuration import RISK_CLASSES


@dataclass(frozen=True)
class MeasuredPair:
    """One measured thing: a command (state, seed, kernel, blending method) at one horizon."""

    run: str
    command_id: str
    kernel: str
    horizon: int


def outcome_of(report: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a row of tamiyo.field_report holds; a loss or a spread that was not finite is infinite."""
    values = dict(report["metrics"] or ())
    base = float(report["base_loss"])
    control, treated = (
        math.inf if report[name] is None else base + report[name] for name in ("control_delta", "treated_delta")
    )
    return Outcome(
        horizon=int(values["horizon_steps"]),
        replicate=int(values["replicate"]),
        base_loss=base,
        control_loss=control,
        treated_loss=treated,
        uplift_test=values.get("uplift_test", math.nan),
        dip=values.get("dip", 0.0),
        late_sd=values.get("late_loss_sd", math.inf),
        control_late_sd=values.get("control_late_loss_sd", math.inf),
    )


def replicates(root: Path) -> dict[MeasuredPair, list[Outcome]]:
    """Return outcomes of every counterfactual, grouped by pair; the runs' own grafts have no replicates and are left out."""
    found: dict[MeasuredPair, list[Outcome]] = defaultdict(list)
    for report in read_table(root, "tamiyo/field_report", "tamiyo.field_report").to_pylist():
        if not report["command_id"].endswith("-graft"):
            outcome = outcome_of(report)
            pair = MeasuredPair(report["training_run_id"], report["command_id"], report["blueprint_id"], outcome.horizon)
            found[pair].append(outcome)
    return dict(found)


@dataclass(frozen=True)
class Reliability:
    """How well two replicates agree: their correlation r, that of two-replicate means, and the noise."""

    pairs: int
    single: float
    of_two: float
    spread: float
    noise: float


def reliability(pairs: Mapping[MeasuredPair, list[Outcome]]) -> Reliability | None:
    """Return the reliability over pairs with two finite replicates, without the identity; None under three such pairs.

    single: Pearson's r of the first two replicates' uplifts; noise: sd of their difference over sqrt(2).
    """
    values = [
        [outcome.uplift for outcome in outcomes[:2]]
        for pair, outcomes in pairs.items()
        if len(outcomes) > 1 and pair.kernel != "kernel-identity"
    ]
    finite = np.array([row for row in values if all(map(math.isfinite, row))], dtype=np.float64)
    if len(finite) < 3:
        return None
    first, second = finite[:, 0], finite[:, 1]
    single = float(np.corrcoef(first, second)[0, 1])
    noise = float((first - second).std() / math.sqrt(2))
    of_two = 2 * single / (1 + single) if single > 0 else 0.0  # the Spearman-Brown formula
    return Reliability(len(finite), single, of_two, float(first.std()), noise)


def class_counts(pairs: Mapping[MeasuredPair, list[Outcome]]) -> Counter[str]:
    """Count pairs by the class of their worst replicate."""
    return Counter(RISK_CLASSES[max(RISK_CLASSES.index(risk_class(o)) for o in outcomes)] for outcomes in pairs.values())


def mean_uplift(outcomes: list[Outcome]) -> float:
    """Return the mean uplift of a pair over its replicates; NaN if one is not finite."""
    return float(np.mean([log_ratio(o.control_loss, o.treated_loss) for o in outcomes]))
