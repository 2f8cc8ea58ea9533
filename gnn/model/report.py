"""From predictions of all compared models to the published figures and tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.model.bootstrap import Interval
from gnn.model.calibration import Calibration, calibrate
from gnn.model.evaluation import MODELS, Gaps, Outcomes, by_group, compare, model_figures
from gnn.model.figures import replicate_reliability
from gnn.model.predictions import Predictions
from gnn.model.tables import calibration_rows, empty_tables, evaluation_rows, prediction_rows
from gnn.model.targets import Labels
from schemas.configuration import TrainingConfig

SCALARS: Final = (
    "within_state_spearman",
    "value_r2",
    "value_interval_coverage",
    "risk_macro_f1",
    "risk_ece_before",
    "risk_ece_after",
    "risk_brier",
)


class Metrics:
    """Collects figures; a figure that is not finite becomes null, and its reason is kept."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def scalar(self, name: str, value: float | None, reason: str) -> None:
        """Record one number."""
        sound = value is not None and math.isfinite(value)
        self.values[name] = value if sound else None
        if not sound:
            self.missing[name] = reason

    def span(self, name: str, found: Interval | None, reason: str) -> dict[str, float] | None:
        """A figure with its interval as {mean, low, high}, or None with its reason noted under `name`."""
        if found is None or not all(map(math.isfinite, (found.mean, found.low, found.high))):
            self.missing[name] = reason
            return None
        return {"mean": found.mean, "low": found.low, "high": found.high}

    def gaps(self, gaps: Gaps | None, skipped: Mapping[str, str], reason: str) -> None:
        """Record `gap_closed` of all models and the lead over the best baseline."""
        closed = gaps.closed if gaps is not None else {}
        self.values["gap_closed"] = {
            name: self.span(f"gap_closed.{name}", closed.get(name), skipped.get(name, reason)) for name in MODELS
        }
        lead = gaps.lead if gaps is not None else None
        self.values["gap_closed_minus_best_baseline"] = self.span("gap_closed_minus_best_baseline", lead, reason)

    def figures(self, figures: Mapping[str, Interval], reason: str) -> None:
        """Record the scalar figures of the model on the test split."""
        for name in SCALARS:
            self.scalar(name, figures[name].mean if name in figures else None, reason)


EVALUATED: Final = ("validation", "test", "held_out")


@dataclass(frozen=True)
class Comparison:
    """Labels by split, predictions by split and model, and why a model is absent."""

    splits: dict[str, Labels]
    predictions: dict[str, dict[str, Predictions]]
    skipped: dict[str, str]


@dataclass(frozen=True)
class Report:
    """The manifest's blocks, the tables by name (without the examples), and the calibration of the model."""

    metrics: dict[str, Any]
    missing: dict[str, str]
    tables: dict[str, pa.Table]
    calibration: Calibration


def report(comparison: Comparison, examples: pa.Table, config: TrainingConfig) -> Report:
    """Calibrate on validation hosts, evaluate on validation, test and held-out hosts."""
    held = comparison.splits["validation"]
    calibrations = {
        name: calibrate(found, held, config.interval) for name, found in comparison.predictions["validation"].items()
    }
    gaps: dict[str, Gaps] = {}
    tables = {name: [table] for name, table in empty_tables().items()}
    figures: dict[str, Any] = {}
    for split in EVALUATED:
        outcomes = outcomes_of(examples, comparison.splits[split])
        found = comparison.predictions[split]
        if not len(outcomes.labels):
            continue
        gaps[split] = compare(outcomes, found, config.bootstrap, config.seed)
        figures[split] = {
            name: model_figures(outcomes, each, calibrations[name], config.bootstrap, config.seed)
            for name, each in found.items()
        }
        groups = {kind: by_group(outcomes, found["model"], getattr(outcomes, kind)) for kind in ("architecture", "data_set")}
        tables["training.evaluation"].append(evaluation_rows(split, gaps[split], figures[split], groups))
        tables["training.calibration"].append(calibration_rows(split, outcomes.labels, found["model"], calibrations["model"]))
        for name, each in found.items():
            rows = prediction_rows(name, split, examples, outcomes.labels, each, calibrations[name])
            tables["training.predictions"].append(rows)
    metrics = _metrics(comparison, examples, config, gaps, figures)
    whole = {name: pa.concat_tables(parts) for name, parts in tables.items()}
    return Report(metrics.values, metrics.missing, whole, calibrations["model"])


def outcomes_of(examples: pa.Table, labels: Labels) -> Outcomes:
    """The scoring columns of those labels. Rewards are u on the hosts' test data where every label has it, else u itself."""
    rows = examples.take(labels.example)

    def text(name: str) -> Any:
        return np.array(pc.fill_null(rows[name], "unknown").to_pylist(), dtype=str)

    u, u_test = (rows[name].to_numpy() for name in ("u", "u_test"))
    scored = np.where(np.isfinite(u), u_test, np.nan)
    reward = u if np.isnan(scored[np.isfinite(u)]).any() else scored
    return Outcomes(labels, text("host"), reward.astype(np.float64), text("data_set"), text("architecture"))


def _metrics(
    comparison: Comparison, examples: pa.Table, config: TrainingConfig, gaps: dict[str, Gaps], figures: dict[str, Any]
) -> Metrics:
    metrics = Metrics()
    none = "no measured outcome on test hosts" if "test" not in gaps else "too few states or hosts to compute it"
    metrics.gaps(gaps.get("test"), comparison.skipped, none)
    metrics.figures(figures.get("test", {}).get("model", {}), none)
    parts = {name: comparison.splits[name] for name in ("train", "validation", "test")}
    hosts = np.array(examples["host"].to_pylist(), dtype=str)
    metrics.values["hosts"] = {name: len(np.unique(hosts[labels.example])) for name, labels in parts.items()}
    metrics.values["examples"] = {name: len(labels) for name, labels in parts.items()}
    first, second = (examples[name].to_numpy() for name in ("u_first", "u_second"))
    metrics.scalar("label_reliability", replicate_reliability(first, second), "fewer than three pairs of replicates")
    name = config.held_out_data_set
    closed = gaps["held_out"].closed["model"] if "held_out" in gaps else None
    reason = "no data set is held out" if name is None else f"no measured outcome on {name}"
    found = metrics.span("held_out_data_set", closed, reason)
    metrics.values["held_out_data_set"] = {"name": name, "gap_closed": found} if found is not None else None
    return metrics
