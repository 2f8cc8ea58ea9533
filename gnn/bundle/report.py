"""Report on a published bundle: its manifest, the outcome of its gates, and whether it serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn.bundle.challenge import kept
from gnn.bundle.gates import Gate, GateConfig
from gnn.bundle.gates import gates as judge
from gnn.bundle.manifest import Manifest
from gnn.bundle.promote import serving
from gnn.bundle.read import read_bundle
from gnn.bundle.write import bundle_path


@dataclass(frozen=True)
class BuildReport:
    """One bundle: its manifest, the outcome of its gates, and whether it serves."""

    path: Path
    manifest: Manifest
    gates: tuple[Gate, ...]
    serving: bool

    @property
    def reasons(self) -> list[str]:
        """Why it would not be promoted: one sentence per failed gate."""
        return [f"gate {gate.name}: {gate.detail}" for gate in self.gates if not gate.passed]

    @property
    def figures(self) -> dict[str, float]:
        """The report's numbers by name: means of `gap_closed`, its lead and `benefit`, the calibrated `ece`, and the rest."""
        metrics = self.manifest.metrics
        means = {
            "gap_closed": (metrics.get("gap_closed") or {}).get("model"),
            "gap_closed_lead": metrics.get("gap_closed_minus_best_baseline"),
            "benefit": metrics.get("benefit"),
        }
        found = {name: figure["mean"] for name, figure in means.items() if figure and figure.get("mean") is not None}
        plain = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        named = {"ece": plain["risk_ece_after"]} if "risk_ece_after" in plain else {}
        return {name: float(value) for name, value in (found | named | plain).items()}

    @property
    def heads(self) -> dict[str, str]:
        """For each head, `trained` or the reason why it is not."""
        return {name: "trained" if head.trained else str(head.reason) for name, head in self.manifest.heads.items()}


def build_report(home: Path, build_id: str, thresholds: Mapping[str, Any] | None = None) -> BuildReport:
    """Return the report of a published bundle; raise BundleRejected if it is damaged or absent."""
    bundle, now = read_bundle(bundle_path(home, build_id)), serving(home)
    return BuildReport(
        path=bundle_path(home, build_id),
        manifest=bundle.manifest,
        gates=judge(bundle.manifest, GateConfig(**(thresholds or {})), kept(home, build_id, now)),
        serving=now == build_id,
    )
