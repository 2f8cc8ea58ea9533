"""Quality gates of promotion: what `model.md` asks of a bundle before it serves; thresholds are configuration."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from gnn.bundle.manifest import Manifest
from schemas.configuration import REQUIRED_HEADS

NAMES = ("heads", "gap_closed", "risk_calibration", "value_coverage")


class GateConfig(BaseModel):
    """Thresholds; the defaults are those of `model.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lead_above: float = -0.02
    risk_ece_at_most: float = Field(default=0.05, ge=0.0)
    coverage_from: float = Field(default=0.85, ge=0.0, le=1.0)
    coverage_to: float = Field(default=0.95, ge=0.0, le=1.0)


@dataclass(frozen=True)
class Gate:
    """One gate: its name, whether it passed, and the figure against its threshold in words."""

    name: str
    passed: bool
    detail: str


def gates(manifest: Manifest, config: GateConfig | None = None) -> tuple[Gate, ...]:
    """The quality gates of a bundle, by its own report; a figure that is null fails its gate, with its reason."""
    limits = config or GateConfig()
    metrics, missing = manifest.metrics, manifest.metrics_missing
    lead = metrics.get("gap_closed_minus_best_baseline")
    ece, coverage = metrics.get("risk_ece_after"), metrics.get("value_interval_coverage")
    untrained = [f"{n} ({manifest.heads[n].reason})" for n in REQUIRED_HEADS if not manifest.heads[n].trained]

    def absent(name: str) -> str:
        return f"not computed: {missing.get(name, 'no reason given')}"

    return (
        Gate("heads", not untrained, f"untrained: {', '.join(untrained)}" if untrained else "all required heads trained"),
        Gate(
            "gap_closed",
            lead is not None and lead["low"] > limits.lead_above,
            f"lead over the best baseline {lead['mean']:.3f} [{lead['low']:.3f}, {lead['high']:.3f}], "
            f"lower end must be above {limits.lead_above}"
            if lead is not None
            else absent("gap_closed_minus_best_baseline"),
        ),
        Gate(
            "risk_calibration",
            ece is not None and ece <= limits.risk_ece_at_most,
            f"calibration error {ece:.3f}, at most {limits.risk_ece_at_most}" if ece is not None else absent("risk_ece_after"),
        ),
        Gate(
            "value_coverage",
            coverage is not None and limits.coverage_from <= coverage <= limits.coverage_to,
            f"coverage {coverage:.3f} of the 90 % interval, {limits.coverage_from} to {limits.coverage_to}"
            if coverage is not None
            else absent("value_interval_coverage"),
        ),
    )
