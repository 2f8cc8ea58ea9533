"""Signals as rows of `telemetry.feature_coverage`, and as a text file for Prometheus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gnn.coverage.signals import COVERAGE, Signal
from lake.durable.publish import publish_file
from schemas.derived.coverage import SIGNALS


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
