"""Coverage of one graph: by key, by family, on the whole, and its blueprints without a safety sheet."""

import json
from dataclasses import dataclass

import numpy as np

from gnn.coverage.counts import count, marks_of
from gnn.encode.build import FeatureSet
from gnn.online.snapshot import Snapshot
from schemas.features import COVERAGE_KEYS, GROUPS


@dataclass(frozen=True)
class GraphCoverage:
    """Ratios by key and by family (those without elements are left out), their mean, and the sheets that are missing."""

    keys: dict[str, float]
    families: dict[str, float]
    mean: float
    bsds_missing: int
    bsds_partial: int

    def annotations(self) -> dict[str, str]:
        """`feature_coverage`, `coverage_map`, `coverage_types` of a command."""
        return {
            "feature_coverage": f"{self.mean:.6f}",
            "coverage_map": _rounded(self.keys),
            "coverage_types": _rounded(self.families),
        }


def graph_coverage(features: FeatureSet, snapshot: Snapshot) -> GraphCoverage:
    """Coverage of the last packet of `features`."""
    counts = count(marks_of(features.joined))
    measured, elements = counts.measured[:, -1], counts.elements[:, -1]
    keys = {key: float(m / e) for key, m, e in zip(COVERAGE_KEYS, measured, elements, strict=True) if e}
    families, start = {}, 0
    for group in GROUPS:
        stop = start + len(group.features)
        total = int(elements[start:stop].sum())
        if total:
            families[group.family] = float(measured[start:stop].sum() / total)
        start = stop
    at_ns = int(features.joined.states.times[-1])
    nodes = features.joined.nodes["blueprint"]
    own = np.flatnonzero(nodes.packet == features.size - 1)
    names = {name for name in nodes.names.take(own).arrow().to_pylist() if name} if nodes.names is not None else set()
    sheets = [snapshot.sheet(name, at_ns) for name in sorted(names)]
    return GraphCoverage(
        keys=keys,
        families=families,
        mean=float(np.mean(list(keys.values()))) if keys else 0.0,
        bsds_missing=sum(not sheet.known for sheet in sheets),
        bsds_partial=sum(sheet.partial for sheet in sheets),
    )


def _rounded(ratios: dict[str, float]) -> str:
    return json.dumps({name: round(ratio, 6) for name, ratio in ratios.items()}, separators=(",", ":"))
