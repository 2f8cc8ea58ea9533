"""Check the newest bundle: preflight, which blocks promotion, and the quality gates."""

from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.builds import last_trained
from lake.settings import Settings
from schemas.errors import BundleRejected
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.problems import Problem, check_result


@dg.asset_check(asset=BUNDLE, name="preflight", blocking=True, description="The bundle is sound and fits the running code.")
def preflight_check(settings: ResourceParam[Settings], turn: ResourceParam[None]) -> dg.AssetCheckResult:
    """Check bytes, layout, registries and golden outputs; list every mismatch at once."""
    from gnn.bundle import bundle_path, preflight

    report = preflight(bundle_path(settings.home, _trained(settings)))
    return check_result(
        [Problem(mismatch.where, str(mismatch)) for mismatch in report.mismatches],
        "clean",
        metadata={"mismatches": len(report.mismatches)},
    )


@dg.asset_check(asset=BUNDLE, description="Figures on held-out hosts are good enough to serve.")
def quality_gates(settings: ResourceParam[Settings], turn: ResourceParam[None]) -> dg.AssetCheckResult:
    """WARN with every gate that keeps the bundle from being promoted."""
    from gnn.bundle.report import build_report

    report = build_report(settings.home, _trained(settings), settings.gates)
    return check_result(
        [Problem(gate.name, f"gate {gate.name}: {gate.detail}") for gate in report.gates if not gate.passed],
        "all gates pass",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={gate.name: gate.detail for gate in report.gates} | dict(report.figures),
    )


def _trained(settings: Settings) -> str:
    build_id = last_trained(settings.home)
    if build_id is None:
        raise BundleRejected(f"home {settings.home}: expected a bundle, found none; materialize bundle/tamiyo_gnn_v1 first")
    return build_id


MODEL_CHECKS: Final = (preflight_check, quality_gates)
