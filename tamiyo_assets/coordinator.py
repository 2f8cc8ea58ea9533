"""Queue runs for `dagster.yaml`: every run of this code location, however launched, counts as a writer.

Dagster puts no tags on a run that the UI launches for an asset selection, so a limit on a tag alone would not hold for it.
"""

from collections.abc import Mapping
from typing import Final

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG, PARTITION_NAME_TAG

from lake.writes import WRITES, WRITES_TAGS, bucket_tags

BY_BUCKET: Final = dg.AssetKey(["backfill", "buckets"])  # the one asset whose runs write to one run bucket alone

# A run that was killed is repeated whole: its steps share one lock and one scan of the exports.
_RETRY_STRATEGY = {"dagster/retry_strategy": "ALL_STEPS"}


class OneWriterCoordinator(QueuedRunCoordinator):
    """QueuedRunCoordinator that tags each run with `tamiyo/writes` before it queues it."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag the run, then queue it."""
        run = context.dagster_run
        if WRITES not in run.tags:
            self._instance.add_run_tags(run.run_id, {**_writes(run), **_RETRY_STRATEGY})
        return super().submit_run(context)


def _writes(run: DagsterRun) -> Mapping[str, str]:
    """Return the tag of what a run writes to: one bucket of a backfill, or the whole home."""
    first, last = (run.tags.get(tag) for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG))
    bucket = run.tags.get(PARTITION_NAME_TAG) or (first if first == last else None)
    return bucket_tags(int(bucket)) if bucket and run.asset_selection == {BY_BUCKET} else WRITES_TAGS
