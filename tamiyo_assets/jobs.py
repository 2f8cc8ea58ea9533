"""Define jobs: named selections of assets. What triggers them is declared in sensors and schedules.

`everything` is what `tamiyo run` and "Materialize all" do. `rebuild` brings up to date all that depends on exports, except what
is trained; `train` does the rest.
"""

from typing import Final

import dagster as dg

from lake.writes import WRITES_TAGS
from tamiyo_assets.assets.bundle import PROMOTION
from tamiyo_assets.assets.model import BUNDLE, RESULTS
from tamiyo_assets.assets.panel import PANEL
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.assets.telemetry import WAREHOUSE

BACKFILL: Final = "backfill"
_TAGS: Final = {**WRITES_TAGS, "dagster/retry_strategy": "ALL_STEPS"}
_ALL: Final = dg.AssetSelection.all() - dg.AssetSelection.groups(BACKFILL)  # a cluster's backfill has one run per bucket
_TRAINED: Final = dg.AssetSelection.assets(*(key_of(name) for name in RESULTS), BUNDLE, PROMOTION)

everything_job = dg.define_asset_job(
    "everything",
    selection=_ALL,
    tags=_TAGS,
    description="Every asset and check, training included.",
)

rebuild_job = dg.define_asset_job(
    "rebuild",
    selection=_ALL - _TRAINED,
    tags=_TAGS,
    description="Ingests every pending export and brings all that depends on exports up to date, but trains nothing.",
)

train_job = dg.define_asset_job(
    "train",
    selection=_TRAINED | dg.AssetSelection.assets(WAREHOUSE, PANEL),
    tags=_TAGS,
    description="Trains on the current graphs and examples, publishes the bundle, and promotes it if its gates pass.",
)

JOBS: Final = (everything_job, rebuild_job, train_job)
