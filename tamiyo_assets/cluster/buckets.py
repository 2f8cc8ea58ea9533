"""Define the asset of a backfill: features, coverage and graphs of one run bucket in each Dagster run.

It writes what the assets `features`, `coverage` and `graphs/dataset` write, in the same tables, records and shards; in the next
rebuild these find the work done, and report it. Several buckets are made at the same time, but never the same one twice, and
never beside another writer.
"""

from typing import Final

import dagster as dg
from dagster import ResourceParam

from gnn.registry.refresh import load as load_registries
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.buckets import BUCKETS
from schemas.features import GROUPS
from tamiyo_assets.assets.coverage import refresh_coverage
from tamiyo_assets.assets.features import FeatureBuild, sources_of
from tamiyo_assets.assets.graphs import GraphBuild
from tamiyo_assets.assets.registries import registries_directory, registry_key
from tamiyo_assets.assets.upstream import RETIRED
from tamiyo_assets.coordinator import BY_BUCKET
from tamiyo_assets.jobs import BACKFILL

PARTITIONS: Final = dg.StaticPartitionsDefinition([str(bucket) for bucket in range(BUCKETS)])
_SOURCES: Final = sorted({key for group in GROUPS for key in sources_of(group)})


@dg.asset(
    key=BY_BUCKET,
    deps=[*_SOURCES, RETIRED, *(registry_key(name) for name in REGISTRIES)],
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    group_name=BACKFILL,
    kinds={"deltalake", "pytorch"},
    owners=["team:tamiyo"],
    description="Features, coverage and graphs of the training runs of a bucket, for backfills on several workers.",
)
def buckets(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Join, count and encode what changed in the buckets of the run."""
    chosen = [int(key) for key in context.partition_keys]
    done = {"joined": 0, "counted": 0}
    for what, steps in (
        ("joined", FeatureBuild(tables, versions, chosen).refresh()),
        ("counted", refresh_coverage(tables, chosen)),
    ):
        for done[what], of in steps:
            context.log.info(f"{done[what]} of {of} training runs {what}")
    graphs = GraphBuild(settings.home, tables, load_registries(registries_directory(settings.home)), chosen)
    for _, encoded, copied in graphs.refresh():
        context.log.info(f"{encoded} training runs encoded, {copied} copied")
    return dg.MaterializeResult(metadata={**done, "encoded": graphs.encoded})


BUCKET_ASSETS: Final = (buckets,)
