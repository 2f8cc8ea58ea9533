"""Queue runs for `dagster.yaml`: every run of this code location, however launched, counts as a writer.

Dagster puts no tags on a run that the UI launches for an asset selection, so a limit on a tag alone would not hold for it.
"""

from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRun

from lake.writes import WRITES, WRITES_TAGS

# A run that was killed is repeated whole: its steps share one lock and one scan of the exports.
_RETRY_STRATEGY = {"dagster/retry_strategy": "ALL_STEPS"}


class OneWriterCoordinator(QueuedRunCoordinator):
    """QueuedRunCoordinator that tags each run with `tamiyo/writes` before it queues it."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag the run, then queue it."""
        run = context.dagster_run
        if WRITES not in run.tags:
            self._instance.add_run_tags(run.run_id, {**WRITES_TAGS, **_RETRY_STRATEGY})
        return super().submit_run(context)
