"""Run a backfill over workers: one Dagster backfill of exports, contract tables, registries and every run bucket."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._daemon.controller import all_daemons_live

from lake.settings import Settings
from lake.writes import EXPORTS, HOME
from schemas.errors import StorageError
from tamiyo_assets.cluster.definitions import defs
from tamiyo_assets.coordinator import BY_BUCKET
from tamiyo_assets.instance import open_instance

_POLL_SECONDS: Final = 1.0
_DAEMON_SECONDS: Final = 120.0
Said = Callable[[Mapping[str, int]], None]  # runs of the backfill by status


@dataclass(frozen=True)
class Backfilled:
    """How a backfill ended: its id, Dagster's word for it, and its runs by status."""

    backfill_id: str
    status: str
    runs: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether every run, or the one that tried it again, succeeded."""
        return self.status == BulkActionStatus.COMPLETED_SUCCESS.value


def run_backfill(settings: Settings, said: Said, *, wait: bool = True) -> Backfilled:
    """Ask for the backfill and wait for its end. Raises StorageError if no daemon is there to execute it."""
    with open_instance(settings.dagster_home) as instance:
        _require_daemon(instance)
        asked = planned(instance, settings)
        instance.add_backfill(asked)
        while wait:
            now = instance.get_backfill(asked.backfill_id)
            if now is None or now.status in BULK_ACTION_TERMINAL_STATUSES:
                break
            said(_runs(instance, asked.backfill_id))
            time.sleep(_POLL_SECONDS)
        found = instance.get_backfill(asked.backfill_id) or asked
        return Backfilled(found.backfill_id, found.status.value, _runs(instance, found.backfill_id))


def planned(instance: dg.DagsterInstance, settings: Settings) -> PartitionBackfill:
    """Return the backfill of one home: all that the buckets are made of, then each bucket."""
    graph = defs.resolve_asset_graph()
    above = dg.AssetSelection.assets(BY_BUCKET).upstream().resolve(graph) & graph.executable_asset_keys
    return PartitionBackfill.from_asset_partitions(
        backfill_id=uuid.uuid4().hex[:8],
        asset_graph=graph,
        partition_names=None,
        asset_selection=sorted(above),
        backfill_timestamp=time.time(),
        tags={HOME: str(settings.home), EXPORTS: str(settings.exports)},
        dynamic_partitions_store=instance,
        all_partitions=True,
        title=None,
        description=f"tamiyo backfill of {settings.home}",
        run_config=None,
    )


def _runs(instance: dg.DagsterInstance, backfill_id: str) -> dict[str, int]:
    runs = instance.get_runs(filters=dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}))
    return dict(Counter(run.status.value for run in runs))


def _require_daemon(instance: dg.DagsterInstance) -> None:
    until = time.monotonic() + _DAEMON_SECONDS
    while not all_daemons_live(instance):
        if time.monotonic() > until:
            raise StorageError(
                f"instance {instance.root_directory}: expected a daemon that executes backfills, found none alive; start a "
                "cluster (`make cluster`), and name it as docs/operations/cluster.md says"
            )
        time.sleep(_POLL_SECONDS)
