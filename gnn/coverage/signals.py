"""Compute coverage signals, the same offline and online: means over keys, missing and partial sheets, degraded inputs.

They depend on counts alone, so the same counts give the same signals offline and online.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa

from schemas.derived.coverage import SIGNALS
from schemas.features import GROUPS, SEED, NodeType, Relation

COVERAGE: Final = "tamiyo.gnn.feature_coverage"
BSDS_MISSING: Final = "tamiyo.gnn.bsds_missing"
BSDS_PARTIAL: Final = "tamiyo.gnn.bsds_partial"
DEGRADED: Final = "degraded_inputs"
WARNING_UNDER: Final = 0.30
CRITICAL_AT: Final = 0.10

KeyCounts = Mapping[str, tuple[int, int]]
"""(measured, elements) by coverage key; a key that is absent has no elements."""


class _Key(NamedTuple):
    """A coverage key; `of_seeds`: its elements are seeds or edges at seeds, so a graph without seeds has none."""

    name: str
    mandatory: bool
    of_seeds: bool


def _at_seeds(group: NodeType | Relation) -> bool:
    return SEED.name in ((group.name,) if isinstance(group, NodeType) else (group.source, group.target))


_KEYS: Final = tuple(_Key(g.key(feature), feature.mandatory, _at_seeds(g)) for g in GROUPS for feature in g.features)
_FAMILIES: Final = {group.family: tuple(group.key(feature) for feature in group.features) for group in GROUPS}


@dataclass(frozen=True)
class CoverageFigures:
    """Figures of one graph, or of several whose counts are added up.

    `keys` and `families` are measured / elements of those that have elements. `mean` is the mean over all keys, which is
    published as `tamiyo.gnn.feature_coverage`. `mandatory_mean` is the mean over the mandatory keys; it decides whether
    inputs are degraded. A key without elements counts as 0 in both; if there are no seeds, keys of seeds are left out.
    """

    keys: dict[str, float]
    families: dict[str, float]
    mean: float
    mandatory_mean: float

    @classmethod
    def of(cls, counts: KeyCounts) -> "CoverageFigures":
        """Compute the figures from counts."""
        pairs = {key.name: counts.get(key.name, (0, 0)) for key in _KEYS}
        keys = {name: measured / elements for name, (measured, elements) in pairs.items() if elements}
        seeds = any(key in keys for key in _FAMILIES[SEED.family])
        counted = [(keys.get(key.name, 0.0), key.mandatory) for key in _KEYS if seeds or not key.of_seeds]
        return cls(
            keys=keys,
            families=_families(pairs),
            mean=_mean([ratio for ratio, _ in counted]),
            mandatory_mean=_mean([ratio for ratio, mandatory in counted if mandatory]),
        )


@dataclass(frozen=True)
class Signal:
    """One metric, or one event with its level."""

    name: str
    value: float
    unit: str = "ratio"
    level: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def coverage_signals(
    coverage: CoverageFigures,
    bsds_missing: int,
    bsds_partial: int,
    *,
    warning_under: float = WARNING_UNDER,
    critical_at: float = CRITICAL_AT,
) -> list[Signal]:
    """List the signals to publish: the mean over keys, each family, blueprints without a sheet and with a partial one.

    The event `degraded_inputs` comes last if the mean over mandatory keys is low enough (see `degraded_level`); its value is
    that mean.
    """
    families = [Signal(f"{COVERAGE}.{family}", ratio) for family, ratio in sorted(coverage.families.items())]
    found = [
        Signal(COVERAGE, coverage.mean),
        *families,
        Signal(BSDS_MISSING, float(bsds_missing), unit="blueprints"),
        Signal(BSDS_PARTIAL, float(bsds_partial), unit="blueprints"),
    ]
    level = degraded_level(coverage.mandatory_mean, warning_under, critical_at)
    if level is not None:
        found.append(Signal(DEGRADED, coverage.mandatory_mean, level=level, attributes={"threshold": str(warning_under)}))
    return found


def degraded_level(mandatory_mean: float, warning_under: float = WARNING_UNDER, critical_at: float = CRITICAL_AT) -> str | None:
    """Return the level of `degraded_inputs`: CRITICAL at or under `critical_at`, WARNING under `warning_under`, else None."""
    if mandatory_mean <= critical_at:
        return "CRITICAL"
    return "WARNING" if mandatory_mean < warning_under else None


def rows_of(signals: Iterable[Signal]) -> pa.Table:
    """Return the signals as rows of `telemetry.feature_coverage`."""
    return pa.Table.from_pylist(
        [
            {
                "kind": "event" if signal.level else "metric",
                "name": signal.name,
                "value": signal.value,
                "unit": signal.unit,
                "level": signal.level,
                "attributes": list(signal.attributes.items()),
            }
            for signal in signals
        ],
        schema=SIGNALS,
    )


def _families(counts: KeyCounts) -> dict[str, float]:
    """Return the ratio of each family that has elements, weighted by counts."""
    found = {}
    for family, keys in _FAMILIES.items():
        elements = sum([counts[key][1] for key in keys])
        if elements:
            found[family] = sum([counts[key][0] for key in keys]) / elements
    return found


def _mean(ratios: list[float]) -> float:
    return sum(ratios) / len(ratios)
