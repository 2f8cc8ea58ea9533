"""Promotion: the newest bundle serves where preflight is clean and the quality gates pass; else it says why not."""

import dagster as dg
from dagster import ResourceParam

from schemas.errors import PromotionRefused
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.builds import build_inputs
from tamiyo_assets.resources.features import FeatureSource
from tamiyo_assets.settings import Settings
from tamiyo_assets.versions import Versions

PROMOTION = key_of("bundle.current")


@dg.asset(
    key=PROMOTION,
    deps=[BUNDLE],
    group_name="bundle",
    kinds={"file"},
    owners=["team:tamiyo"],
    description="The serving bundle: `current` moves to the newest one where preflight and the quality gates pass.",
)
def current(
    settings: ResourceParam[Settings], source: ResourceParam[FeatureSource], versions: ResourceParam[Versions]
) -> dg.MaterializeResult[None]:
    """Promote, or keep what serves and report why."""
    from gnn.bundle import serving

    build_id = build_inputs(source, versions, settings.training).build_id
    reason = promotion_refusal(settings, build_id)
    now = serving(settings.home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(now or "none"),
        metadata={"build_id": build_id, "serving": now or "none", "promoted": now == build_id, "refusal": reason},
    )


def promotion_refusal(settings: Settings, build_id: str) -> str:
    """Promote the build and return "", or return why it was not promoted.

    A build that an operator rolled back from is not promoted by itself again.
    """
    from gnn.bundle import GateConfig, promote
    from gnn.bundle.promote import promotions

    last = (promotions(settings.home) or [{}])[-1]
    if last.get("action") == "rollback" and last.get("previous") == build_id:
        return f"build {build_id} was rolled back at {last['at']}; promote it with `tamiyo promote {build_id}`"
    try:
        promote(settings.home, build_id, config=GateConfig(**settings.gates))
    except PromotionRefused as refusal:
        return str(refusal)
    return ""


BUNDLE_ASSETS = (current,)
