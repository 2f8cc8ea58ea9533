"""Jobs: named selections of assets. What triggers them is declared in sensors and schedules.

A rebuild begins with the scan of all exports, so that also in a fresh home its graphs are made of everything there is.
"""

from typing import Final

import dagster as dg

from tamiyo_assets.partitions import training_runs

EXPORTS: Final = dg.AssetKey(["operations", "exports"])
KASMINA: Final = dg.AssetKey(["kasmina", "seed_state"])
URABRASK: Final = (dg.AssetKey(["urabrask", "bsds"]), dg.AssetKey(["urabrask", "bsds_failure"]))

ingest_job = dg.define_asset_job(
    "ingest_exports",
    selection=dg.AssetSelection.assets(EXPORTS),
    description="Scan the exports, ingest what is new, and register the training runs that were found.",
)

everything_job = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    partitions_def=training_runs,
    description="Every asset and check, over a range of training runs.",
)

kasmina_job = dg.define_asset_job(
    "rebuild_after_kasmina",
    selection=dg.AssetSelection.assets(EXPORTS) | dg.AssetSelection.assets(KASMINA).downstream(),
    partitions_def=training_runs,
    description="Kasmina's seed states and everything that depends on them.",
)

urabrask_job = dg.define_asset_job(
    "rebuild_after_urabrask",
    selection=dg.AssetSelection.assets(EXPORTS) | dg.AssetSelection.assets(*URABRASK).downstream(),
    partitions_def=training_runs,
    description="Urabrask's safety sheets and everything that depends on them.",
)

registries_job = dg.define_asset_job(
    "refresh_registries",
    selection=dg.AssetSelection.groups("registries"),
    description="Every registry, from the contract tables and the newest Simic snapshot.",
)

JOBS: Final = (ingest_job, everything_job, kasmina_job, urabrask_job, registries_job)
