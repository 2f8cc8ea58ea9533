"""Score a graft: the losses with and without it, the uplift (their log ratio u), and the risk class of one outcome."""

import math
from dataclasses import dataclass


def log_ratio(control: float, treated: float) -> float:
    """Return ln(control / treated): positive if the graft helped; NaN if either is not a positive finite number."""
    usable = math.isfinite(control) and math.isfinite(treated) and control > 0 and treated > 0
    return math.log(control / treated) if usable else math.nan


@dataclass(frozen=True)
class Outcome:
    """A treated trajectory against its control at one horizon; losses are mean cross-entropies."""

    horizon: int
    replicate: int
    base_loss: float
    control_loss: float
    treated_loss: float
    uplift_test: float
    dip: float
    late_sd: float
    control_late_sd: float

    @property
    def uplift(self) -> float:
        """u = ln(control loss / treated loss) on the validation split; NaN if the treated one is not finite."""
        return log_ratio(self.control_loss, self.treated_loss)


def risk_class(outcome: Outcome) -> str:
    """Return the class of one outcome, first match: critical, high, medium, low, none (thresholds of the design's notes).

    critical: non-finite, or u < -1. high: u < -.25, or late spread over 4 (control's + .02). medium: u < -.08 or a dip
    under -.15. low: u < -.02 or a dip under -.05.
    """
    u = outcome.uplift
    if not math.isfinite(u) or u < -1.0:
        return "critical"
    if u < -0.25 or outcome.late_sd > 4.0 * (outcome.control_late_sd + 0.02):
        return "high"
    if u < -0.08 or outcome.dip < -0.15:
        return "medium"
    return "low" if u < -0.02 or outcome.dip < -0.05 else "none"
