"""Compute the coverage of the graph of a decision, and find its blueprints without a safety sheet."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from gnn.coverage.counts import count, marks_of
from gnn.coverage.sheets import sheet_gaps
from gnn.coverage.signals import CoverageFigures, Signal, coverage_signals
from gnn.encode.build import FeatureSet
from gnn.online.config import ServingConfig
from gnn.online.snapshot import Snapshot
from schemas.features import COVERAGE_KEYS

MAP_BYTES: Final = 1024


@dataclass(frozen=True)
class GraphCoverage:
    """Coverage figures of one graph, and how many of its blueprints have no sheet or a partial one."""

    figures: CoverageFigures
    bsds_missing: int
    bsds_partial: int

    def signals(self, config: ServingConfig) -> list[Signal]:
        """List the signals of this graph, with the thresholds of `config`."""
        return coverage_signals(
            self.figures,
            self.bsds_missing,
            self.bsds_partial,
            warning_under=config.warn_coverage,
            critical_at=config.critical_coverage,
        )

    def annotations(self) -> dict[str, str]:
        """Return `feature_coverage`, `coverage_map`, `coverage_types`, and `coverage_map_truncated` if the map was cut."""
        members = {name: _member(name, ratio) for name, ratio in self.figures.keys.items()}
        found = {
            "feature_coverage": f"{self.figures.mean:.6f}",
            "coverage_map": _object(members.values()),
            "coverage_types": _object(_member(name, ratio) for name, ratio in self.figures.families.items()),
        }
        if len(found["coverage_map"]) > MAP_BYTES:
            found |= {"coverage_map": _lowest(self.figures.keys, members), "coverage_map_truncated": "true"}
        return found


def graph_coverage(features: FeatureSet, snapshot: Snapshot) -> GraphCoverage:
    """Compute the coverage of the last packet of `features`."""
    counts = count(marks_of(features.joined))
    pairs = zip(counts.measured[:, -1].tolist(), counts.elements[:, -1].tolist(), strict=True)
    figures = CoverageFigures.of(dict(zip(COVERAGE_KEYS, pairs, strict=True)))
    nodes = features.joined.nodes["blueprint"]
    if nodes.names is None:
        return GraphCoverage(figures, 0, 0)
    own = np.flatnonzero(nodes.packet == features.size - 1)
    times = features.joined.states.times[nodes.packet[own]]
    gaps = sheet_gaps(snapshot.metadata.sheets, nodes.names.take(own), times)
    return GraphCoverage(figures, len(gaps.missing), len(gaps.partial))


def _lowest(ratios: dict[str, float], members: dict[str, str]) -> str:
    """Return as JSON the keys with the lowest ratios, as many as fit; equal ratios are in order of name."""
    kept: list[str] = []
    size = len("{}")
    for _, name in sorted((ratio, name) for name, ratio in ratios.items()):
        size += len(members[name]) + bool(kept)
        if size > MAP_BYTES:
            break
        kept.append(members[name])
    return _object(kept)


def _member(name: str, ratio: float) -> str:
    """Return one member of a JSON object; `name` is a plain identifier and `ratio` finite, so nothing needs to be escaped."""
    return f'"{name}":{round(ratio, 6)!r}'


def _object(members: Iterable[str]) -> str:
    return "{" + ",".join(members) + "}"
