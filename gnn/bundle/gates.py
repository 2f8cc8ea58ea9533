"""Apply the quality gates that a bundle must pass before it may serve; the thresholds are configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gnn.bundle.challenge import Challenge
from gnn.bundle.manifest import Manifest
from schemas.configuration import REQUIRED_HEADS

NAMES = ("required_heads", "benefit", "choice", "champion", "harm", "risk_calibration", "value_coverage")


class GateConfig(BaseModel):
    """Thresholds; the defaults are those of `model.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benefit_above: float = 0.0
    gap_closed_above: float = 0.0
    lead_at_least: float = -0.03
    champion_hosts: int = Field(default=50, ge=1)
    harm_above_random: float = Field(default=0.0, ge=-1.0, le=1.0)
    risk_ece_at_most: float = Field(default=0.05, ge=0.0)
    coverage_from: float = Field(default=0.85, ge=0.0, le=1.0)
    coverage_to: float = Field(default=0.95, ge=0.0, le=1.0)


@dataclass(frozen=True)
class Gate:
    """One gate: its name, whether it passed, and a sentence with its figure and threshold."""

    name: str
    passed: bool
    detail: str


def gates(manifest: Manifest, config: GateConfig | None = None, challenge: Challenge | None = None) -> tuple[Gate, ...]:
    """Return the quality gates of a bundle, judged by the metrics in its manifest and by its `challenge`.

    `challenge` is its comparison with the serving bundle, or None if nothing serves.
    A gate whose figure is null fails, and its detail gives the reason.
    """
    limits = config or GateConfig()
    figures = _Figures(manifest)
    return (
        _required_heads(manifest),
        _benefit(figures, limits),
        _choice(figures, limits),
        _champion(challenge, limits),
        _harm(figures, limits),
        _risk_calibration(figures, limits),
        _value_coverage(figures, limits),
    )


class _Figures:
    """The figures of a manifest by dotted name, with the reasons of those that are null."""

    def __init__(self, manifest: Manifest) -> None:
        self._values, self._missing = manifest.metrics, manifest.metrics_missing

    def __getitem__(self, name: str) -> Any:
        found: Any = self._values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def absent(self, *names: str) -> str:
        """Return a sentence that says why the first null figure among `names` was not computed."""
        name = next(name for name in names if self[name] is None)
        return f"{name} not computed: {self._missing.get(name, 'no reason given')}"


def _shown(span: Mapping[str, float]) -> str:
    return f"{span['mean']:.3f} [{span['low']:.3f}, {span['high']:.3f}]"


def _required_heads(manifest: Manifest) -> Gate:
    untrained = [f"{n} ({manifest.heads[n].reason})" for n in REQUIRED_HEADS if not manifest.heads[n].trained]
    detail = f"untrained: {', '.join(untrained)}" if untrained else "all required heads trained"
    return Gate("required_heads", not untrained, detail)


def _benefit(figures: _Figures, limits: GateConfig) -> Gate:
    found = figures["benefit"]
    if found is None:
        return Gate("benefit", False, figures.absent("benefit"))
    detail = f"mean reward of what the policy does {_shown(found)}, lower end must be above {limits.benefit_above}"
    return Gate("benefit", found["low"] > limits.benefit_above, detail)


def _choice(figures: _Figures, limits: GateConfig) -> Gate:
    closed, lead = figures["gap_closed.model"], figures["gap_closed_minus_best_baseline"]
    if closed is None or lead is None:
        return Gate("choice", False, figures.absent("gap_closed.model", "gap_closed_minus_best_baseline"))
    detail = (
        f"gap closed {_shown(closed)}, lower end must be above {limits.gap_closed_above}; "
        f"lead over the best baseline {_shown(lead)}, at least {limits.lead_at_least}"
    )
    return Gate("choice", closed["low"] > limits.gap_closed_above and lead["mean"] >= limits.lead_at_least, detail)


def _champion(challenge: Challenge | None, limits: GateConfig) -> Gate:
    if challenge is None:
        return Gate("champion", True, "skipped: nothing serves yet")
    if challenge.hosts < limits.champion_hosts:
        few = f"{challenge.hosts} hosts that neither trained on, at least {limits.champion_hosts} are needed"
        return Gate("champion", True, f"skipped: {challenge.reason or few}")
    if challenge.difference is None:
        return Gate("champion", False, f"not compared with {challenge.against[:16]}: {challenge.reason}")
    detail = (
        f"gap closed minus that of {challenge.against[:16]} on {challenge.hosts} hosts that neither trained on "
        f"{_shown(challenge.difference)}, upper end must not be below 0"
    )
    return Gate("champion", challenge.difference["high"] >= 0.0, detail)


def _harm(figures: _Figures, limits: GateConfig) -> Gate:
    chosen, drawn = figures["harm_rate.chosen"], figures["harm_rate.random"]
    if chosen is None or drawn is None:
        return Gate("harm", False, figures.absent("harm_rate.chosen", "harm_rate.random"))
    detail = f"harmful outcomes among the chosen {chosen:.3f}, among random ones {drawn:.3f}"
    return Gate("harm", chosen <= drawn + limits.harm_above_random, detail)


def _risk_calibration(figures: _Figures, limits: GateConfig) -> Gate:
    ece = figures["risk_ece_after"]
    if ece is None:
        return Gate("risk_calibration", False, figures.absent("risk_ece_after"))
    return Gate(
        "risk_calibration", ece <= limits.risk_ece_at_most, f"calibration error {ece:.3f}, at most {limits.risk_ece_at_most}"
    )


def _value_coverage(figures: _Figures, limits: GateConfig) -> Gate:
    coverage = figures["value_interval_coverage"]
    if coverage is None:
        return Gate("value_coverage", False, figures.absent("value_interval_coverage"))
    detail = f"coverage {coverage:.3f} of the 90 % interval, {limits.coverage_from} to {limits.coverage_to}"
    return Gate("value_coverage", limits.coverage_from <= coverage <= limits.coverage_to, detail)
