"""Define the code location of a cluster: that of one machine, with the asset of backfills added."""

from tamiyo_assets.cluster.buckets import BUCKET_ASSETS
from tamiyo_assets.definitions import build_definitions

defs = build_definitions(assets=BUCKET_ASSETS)
