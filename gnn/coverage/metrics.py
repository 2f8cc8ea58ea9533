"""The project's own telemetry: coverage and degraded inputs by their published names, as rows and for Prometheus.

Names and thresholds are those of the feature design: `tamiyo.gnn.feature_coverage` is the mean over keys, and a mean under
0.30 (CRITICAL at or under 0.10) is the event `degraded_inputs`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from gnn.coverage.ratios import mean_over_keys, ratios
from lake.durable.publish import publish_file
from schemas.derived.coverage import SIGNALS

COVERAGE: Final = "tamiyo.gnn.feature_coverage"
BSDS_MISSING: Final = "tamiyo.gnn.bsds_missing"
BSDS_PARTIAL: Final = "tamiyo.gnn.bsds_partial"
DEGRADED: Final = "degraded_inputs"
WARNING_UNDER: Final = 0.30
CRITICAL_AT: Final = 0.10


@dataclass(frozen=True)
class Signal:
    """One metric, or one event with its level."""

    name: str
    value: float
    unit: str = "ratio"
    level: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def coverage_signals(by_key: pa.Table) -> list[Signal]:
    """The mean over keys, one metric a family, and the event where the inputs are degraded; [] without any element."""
    mean = mean_over_keys(by_key)
    if mean is None:
        return []
    families = [Signal(f"{COVERAGE}.{row['family']}", row["ratio"]) for row in ratios(by_key, ["family"])]
    level = degraded_level(mean)
    event = [Signal(DEGRADED, mean, level=level, attributes={"threshold": str(WARNING_UNDER)})] if level else []
    return [Signal(COVERAGE, mean), *sorted(families, key=lambda s: s.name), *event]


def degraded_level(mean: float) -> str | None:
    """CRITICAL at or under 0.10, WARNING under 0.30, else None."""
    if mean <= CRITICAL_AT:
        return "CRITICAL"
    return "WARNING" if mean < WARNING_UNDER else None


def rows_of(signals: Iterable[Signal]) -> pa.Table:
    """The signals as rows of `telemetry.feature_coverage`."""
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


@dataclass(frozen=True)
class MetricsFile:
    """`$TAMIYO_HOME/metrics.prom`: the newest signals in the Prometheus text format, for a node exporter's textfile reader."""

    home: Path

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.home / "metrics.prom"

    def publish(self, signals: Sequence[Signal]) -> None:
        """Replace the file; a reader sees the old one or the new one."""
        lines = [_line(signal) for signal in sorted(signals, key=lambda s: (s.name, s.level or ""))]
        publish_file(self.path, "".join(lines).encode())


def _line(signal: Signal) -> str:
    labels = dict(signal.attributes) | ({"level": signal.level} if signal.level else {})
    family = signal.name.removeprefix(f"{COVERAGE}.")
    name = signal.name
    if family != signal.name:
        name, labels = COVERAGE + "_family", {"family": family}
    text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name.replace('.', '_')}{'{' + text + '}' if text else ''} {signal.value!r}\n"
