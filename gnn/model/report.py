"""Compute the published figures and tables from the answers of all compared models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from gnn.model.bootstrap import Estimate, HostBootstrap
from gnn.model.calibration import Answers
from gnn.model.evaluation import MODELS, Figures, Outcomes, by_group, evaluate, gaps
from gnn.model.figures import replicate_reliability
from gnn.model.rounds import Problem
from gnn.model.tables import calibration_rows, empty_tables, evaluation_rows, prediction_rows
from gnn.model.targets import Ints
from schemas.configuration import TrainingConfig
from schemas.splits import FOLD_NAMES, FOLDS, HELD_OUT

SCALARS: Final = (
    "gap_closed_by_state",
    "within_state_spearman",
    "value_r2",
    "value_interval_coverage",
    "risk_macro_f1",
    "risk_ece_before",
    "risk_ece_after",
    "risk_brier",
)
OFF: Final = "switched off by configuration"
NO_LABELS: Final = "no measured uplift at this horizon on training hosts of two folds"
TOO_FEW: Final = "too few states or hosts to compute it"
CURVE: Final = "hosts="


class Metrics:
    """Collects figures; a figure that is not finite becomes null, and the reason is kept."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def scalar(self, name: str, value: float | None, reason: str) -> float | None:
        """Return one number, or None with its reason noted under `name`."""
        if value is None or not math.isfinite(value):
            self.missing[name] = reason
            return None
        return float(value)

    def span(self, name: str, found: Estimate | None, reason: str) -> dict[str, float] | None:
        """Return a figure with its interval as {mean, low, high}, or None with its reason noted under `name`."""
        interval = found.interval if found is not None else None
        if interval is None or not all(map(math.isfinite, (interval.mean, interval.low, interval.high))):
            self.missing[name] = reason
            return None
        return {"mean": interval.mean, "low": interval.low, "high": interval.high}


@dataclass(frozen=True)
class Part:
    """Rows that are judged together: their outcomes, the fold of each, and every model's calibrated answers."""

    outcomes: Outcomes
    fold: Ints
    answers: dict[str, Answers]


@dataclass(frozen=True)
class Report:
    """The manifest's blocks of figures, and the tables by name (without the examples)."""

    metrics: dict[str, Any]
    missing: dict[str, str]
    tables: dict[str, pa.Table]


def report(problem: Problem, parts: Mapping[str, Part], config: TrainingConfig, skipped: Mapping[str, str]) -> Report:
    """Evaluate every part; `skipped` says why a model is absent."""
    tables = {name: [table] for name, table in empty_tables().items()}
    judged: dict[str, dict[str, dict[str, Estimate]]] = {}
    for name, part in parts.items():
        if not len(part.outcomes):
            continue
        boot = HostBootstrap(part.outcomes.hosts, config.bootstrap, config.seed)
        found = judged[name] = evaluate(part.outcomes, part.answers, boot)
        groups = {kind: _groups(part, kind) for kind in ("architecture", "data_set")}
        tables["training.evaluation"].append(evaluation_rows(name, _learning_curve(found), gaps(found).lead, groups))
        tables["training.calibration"].append(calibration_rows(name, part.outcomes.labels, part.answers["model"]))
        split = [FOLD_NAMES[fold] for fold in part.fold] if name == "out_of_fold" else [name] * len(part.outcomes)
        for model, each in part.answers.items():
            if not model.startswith(CURVE):
                rows = prediction_rows(model, split, problem.examples, part.outcomes.labels, each)
                tables["training.predictions"].append(rows)
    metrics = _metrics(problem, parts, judged, config, skipped)
    return Report(metrics.values, metrics.missing, {name: pa.concat_tables(each) for name, each in tables.items()})


def _groups(part: Part, kind: str) -> dict[str, float]:
    return by_group(part.outcomes, part.answers["model"], getattr(part.outcomes, kind))


def _learning_curve(figures: Mapping[str, Figures]) -> dict[str, dict[str, Estimate]]:
    """Return the figures, with those of the curve's models renamed as the model's: `gap_closed/hosts=<share>`."""
    plain = {name: dict(each) for name, each in figures.items() if not name.startswith(CURVE)}
    for name, each in figures.items():
        if name.startswith(CURVE):
            plain["model"][f"gap_closed/{name}"] = each["gap_closed"]
    return plain


def _metrics(
    problem: Problem,
    parts: Mapping[str, Part],
    judged: Mapping[str, Mapping[str, Figures]],
    config: TrainingConfig,
    skipped: Mapping[str, str],
) -> Metrics:
    metrics = Metrics()
    figures = judged.get("out_of_fold", {})
    none = TOO_FEW if figures else NO_LABELS
    model = figures.get("model", {})
    values = metrics.values
    values["gap_closed"] = {
        name: metrics.span(f"gap_closed.{name}", figures.get(name, {}).get("gap_closed"), skipped.get(name, none))
        for name in MODELS
    }
    lead = gaps(figures).lead if figures else None
    values["gap_closed_minus_best_baseline"] = metrics.span("gap_closed_minus_best_baseline", lead, none)
    values["benefit"] = metrics.span("benefit", model.get("benefit"), none)
    values["harm_rate"] = _harm_rate(metrics, figures, none)
    for name in SCALARS:
        values[name] = metrics.scalar(name, model[name].mean if name in model else None, none)
    part = parts.get("out_of_fold")
    one = "no state has two pairs of two replicates each, measured on test data"
    values["replicate_ceiling"] = metrics.scalar("replicate_ceiling", part.outcomes.ceiling if part else None, one)
    values["folds"] = FOLDS
    counted = problem.parts
    values["hosts"] = {name: len(np.unique(problem.host[rows])) for name, rows in counted.items()}
    values["examples"] = {name: len(rows) for name, rows in counted.items()}
    first, second = (problem.examples[name].to_numpy()[problem.labels.example] for name in ("u_first", "u_second"))
    few = "fewer than three pairs of replicates"
    values["label_reliability"] = metrics.scalar("label_reliability", replicate_reliability(first, second), few)
    kept_out = config.held_out_data_set
    closed = judged.get(HELD_OUT, {}).get("model", {}).get("gap_closed")
    reason = "no data set is held out" if kept_out is None else f"no measured outcome on {kept_out}"
    found = metrics.span("held_out_data_set", closed, reason)
    values["held_out_data_set"] = {"name": kept_out, "gap_closed": found} if found is not None else None
    return metrics


def _harm_rate(metrics: Metrics, figures: Mapping[str, Figures], none: str) -> dict[str, float | None]:
    """Return the share of harmful outcomes among the grafts of the policy, and among all measured pairs of the same states."""
    found = {"chosen": figures.get("model", {}), "random": figures.get("random", {})}
    acts = found["chosen"].get("harm_rate")
    idle = "the policy grafts nothing" if acts is not None and not math.isfinite(acts.mean) else none
    return {
        name: metrics.scalar(f"harm_rate.{name}", each["harm_rate"].mean if each else None, idle if name == "chosen" else none)
        for name, each in found.items()
    }
