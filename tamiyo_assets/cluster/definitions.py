"""The code location of a cluster: that of one machine, and the asset of backfills."""

from tamiyo_assets.cluster.buckets import BUCKET_ASSETS
from tamiyo_assets.definitions import build_definitions

defs = build_definitions(assets=BUCKET_ASSETS)
