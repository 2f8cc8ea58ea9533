"""Promote the newest bundle if preflight is clean and the quality gates pass; else say why not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.builds import last_trained
from lake.settings import Settings
from lake.store.versions import Versions
from schemas.errors import PromotionRefused
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.problems import Problem, check_result
from tamiyo_assets.assets.reports import SLOW, Reporter, key_of, kinds_of

PROMOTION: Final = key_of("bundle.current")
SERVING: Final = "serving"


@dg.asset(
    key=PROMOTION,
    deps=[BUNDLE],
    group_name="bundle",
    kinds=kinds_of(PROMOTION, "file"),
    owners=["team:tamiyo"],
    output_required=False,
    op_tags=SLOW,
    check_specs=[
        dg.AssetCheckSpec(SERVING, asset=PROMOTION, description="A bundle serves, and was promoted within `max_age` days.")
    ],
    description="The serving bundle: `current` moves to the newest one if preflight and the quality gates pass.",
)
def current(
    context: dg.AssetExecutionContext, settings: ResourceParam[Settings], versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Promote, or keep what serves and report why. While nothing serves, nothing is materialized."""
    from gnn.bundle import serving

    build_id = last_trained(settings.home)
    reason = promotion_refusal(settings, build_id) if build_id is not None else "no bundle was built yet"
    now = serving(settings.home)
    if now is not None:
        metadata = {"build_id": build_id or "none", "serving": now, "promoted": now == build_id, "refusal": reason}
        yield Reporter(context, versions).asset(PROMOTION, now, metadata)
    if context.selected_asset_check_keys:
        yield _serving(settings, now, reason)


def _serving(settings: Settings, now: str | None, refusal: str) -> dg.AssetCheckResult:
    """Return the result of the check `serving`: it passes if a bundle serves that is not too old."""
    from gnn.bundle.promote import promotions

    moves = [entry for entry in promotions(settings.home) if entry["build_id"] == now] if now is not None else []
    age = datetime.now(UTC) - datetime.fromisoformat(moves[-1]["at"]) if moves else None
    old = age is not None and age > settings.max_age
    since = f" since {moves[-1]['at']}" if moves else ""
    description = f"Build {now} serves{since}." if now is not None else f"Nothing serves: {refusal}"
    problems = [Problem("nothing serves", description)] if now is None else []
    if old:
        problems.append(Problem("too old", f"{description} Expected one promoted within {settings.max_age.days} days."))
    return check_result(
        problems,
        description,
        severity=dg.AssetCheckSeverity.WARN,
        check=dg.AssetCheckKey(PROMOTION, SERVING),
        metadata={"serving": now or "none", "days": round(age / timedelta(days=1), 3) if age is not None else "none"},
    )


def promotion_refusal(settings: Settings, build_id: str) -> str:
    """Promote the build and return "", or return why it was not promoted.

    A build that an operator rolled back is not promoted automatically again.
    """
    from gnn.bundle import GateConfig, promote
    from gnn.bundle.promote import promotions

    last = (promotions(settings.home) or [{}])[-1]
    if last.get("action") == "rollback" and last.get("previous") == build_id:
        return f"build {build_id} was rolled back at {last['at']}; promote it with `tamiyo promote {build_id}`"
    try:
        promote(settings.home, build_id, config=GateConfig.model_validate(settings.gates))
    except PromotionRefused as refusal:
        return str(refusal)
    return ""


BUNDLE_ASSETS = (current,)
