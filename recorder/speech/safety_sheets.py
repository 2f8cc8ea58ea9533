"""Make Urabrask's safety sheets: of kernels from outcomes on training hosts, of a host from its warm-up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from recorder.speech.clock import stamp
from recorder.speech.uplift import Outcome, risk_class
from schemas.leyline import leyline_pb2 as pb

PRIOR_RISK: Final = 0.1  # assumed risk of a kernel without outcomes
PRIOR_WEIGHT: Final = 4.0  # in outcomes
CRITICAL_RISK: Final = 0.6
_BANDS: Final = ((0.1, pb.HAZARD_BAND_LOW), (0.3, pb.HAZARD_BAND_MEDIUM), (CRITICAL_RISK, pb.HAZARD_BAND_HIGH))
_HANDLING: Final = {
    pb.HAZARD_BAND_LOW: pb.HANDLING_CLASS_STANDARD,
    pb.HAZARD_BAND_MEDIUM: pb.HANDLING_CLASS_RESTRICTED,
    pb.HAZARD_BAND_HIGH: pb.HANDLING_CLASS_RESTRICTED,
    pb.HAZARD_BAND_CRITICAL: pb.HANDLING_CLASS_QUARANTINE,
}
_STRATEGIES: Final = {
    pb.HAZARD_BAND_LOW: ("linear", "cosine", "warmup_hold", "sigmoid"),
    pb.HAZARD_BAND_MEDIUM: ("linear", "cosine", "sigmoid"),
    pb.HAZARD_BAND_HIGH: ("cosine", "sigmoid"),
    pb.HAZARD_BAND_CRITICAL: ("sigmoid",),
}
_ADVICE: Final = {
    pb.HAZARD_BAND_LOW: "",
    pb.HAZARD_BAND_MEDIUM: "Blend over at least 20 steps and watch the validation loss.",
    pb.HAZARD_BAND_HIGH: "Blend slowly; cull at the first loss of more than a tenth.",
    pb.HAZARD_BAND_CRITICAL: "Do not graft outside quarantine.",
}


@dataclass(frozen=True)
class Benchmark:
    """Measured cost: forward latency at the 95th percentile in ms, peak memory in MB, a step's wall time in ms."""

    latency_p95_ms: float
    peak_memory_mb: float
    step_ms: float


def band_of(risk: float) -> "pb.HazardBand":
    """Return the hazard band of a risk in 0..1: LOW under .1, MEDIUM under .3, HIGH under .6, else CRITICAL."""
    return next((band for limit, band in _BANDS if risk < limit), pb.HAZARD_BAND_CRITICAL)


def _sheet(
    blueprint_id: str, risk: float, instability: float, cost: Benchmark, provenance: "pb.Provenance", issued_at_ns: int
) -> pb.BSDS:
    band = band_of(risk)
    heavy = cost.peak_memory_mb > 16.0
    return pb.BSDS(
        version=1,
        blueprint_id=blueprint_id,
        risk_score=risk,
        hazard_band=band,
        handling_class=_HANDLING[band],
        resource_profile=pb.RESOURCE_PROFILE_MEMORY_HEAVY if heavy else pb.RESOURCE_PROFILE_CPU,
        recommendation=_ADVICE[band],
        issued_at=stamp(issued_at_ns),
        provenance=provenance,
        grafting_strategies=_STRATEGIES[band],
        cooldown_ms=cost.step_ms * 10.0 * (1.0 + 9.0 * risk),
        gradient_instability=instability,
        peak_memory_mb=cost.peak_memory_mb,
        latency_p95_ms=cost.latency_p95_ms,
    )


def kernel_sheet(blueprint_id: str, outcomes: Sequence[Outcome], cost: Benchmark, *, issued_at_ns: int) -> pb.BSDS:
    """Return a kernel's sheet: risk = (harmful + 4 x .1) / (outcomes + 4), harmful = class medium or worse.

    gradient_instability: the mean of the late spread over the control's (both + .02), at most 10. failure_rate: share of
    outcomes of class high or critical.
    """
    classes = [risk_class(outcome) for outcome in outcomes]
    harmful = sum(name in ("medium", "high", "critical") for name in classes)
    risk = (harmful + PRIOR_WEIGHT * PRIOR_RISK) / (len(outcomes) + PRIOR_WEIGHT)
    spreads = [min(10.0, (o.late_sd + 0.02) / (o.control_late_sd + 0.02)) for o in outcomes if math.isfinite(o.late_sd)]
    instability = sum(spreads) / len(spreads) if spreads else 10.0
    sheet = _sheet(blueprint_id, risk, instability, cost, pb.PROVENANCE_URABRASK, issued_at_ns)
    sheet.failure_rate = sum(name in ("high", "critical") for name in classes) / max(len(classes), 1)
    return sheet


def host_sheet(
    blueprint_id: str, losses: Sequence[float], gradient_norms: Sequence[float], cost: Benchmark, *, issued_at_ns: int
) -> pb.BSDS:
    """Return a host's own sheet from its warm-up alone.

    risk = half the gradient norm's coefficient of variation (at most 1) + half the share of the warm-up's looks at which the
    loss had risen, in 0..1; gradient_instability is that coefficient.
    """
    mean = sum(gradient_norms) / max(len(gradient_norms), 1)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gradient_norms) / max(len(gradient_norms), 1))
    variation = spread / mean if mean > 0 and math.isfinite(spread) else 1.0
    rises = [after > before or not math.isfinite(after) for before, after in pairwise(losses)]
    risk = 0.5 * min(variation, 1.0) + 0.5 * (sum(rises) / len(rises) if rises else 0.0)
    return _sheet(blueprint_id, risk, variation, cost, pb.PROVENANCE_HEURISTIC, issued_at_ns)
