"""The `metrics` and `metrics_missing` blocks of the manifest: every figure by its published name, or null with a reason."""

import math
from collections.abc import Mapping
from typing import Any, Final

from gnn.model.bootstrap import Interval
from gnn.model.evaluation import MODELS, Gaps

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
