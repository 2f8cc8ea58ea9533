"""The run queue: every run is tagged as a writer before it is queued, and one writer runs at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from lake.writes import WRITES, WRITES_TAGS
from tamiyo_assets.coordinator import BY_BUCKET, OneWriterCoordinator
from tamiyo_assets.instance import open_instance
from tamiyo_assets.jobs import JOBS
from tamiyo_assets.run_sensors import unfinished
from tamiyo_assets.upkeep import maintenance_job

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="tamiyo_assets.definitions"), location_name="tamiyo_assets"
        ),
        "__repository__",
    ),
    "__ASSET_JOB",
)


@dg.job
def nothing() -> None:
    """What the UI launches for an asset selection: a run of a job that carries no tags."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path) as found:
        yield found


def submitted(instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> dg.DagsterRun:
    """A run as it is after the webserver submitted it."""
    run = instance.create_run_for_job(nothing, tags=dict(tags or {}), remote_job_origin=ORIGIN)
    assert isinstance(instance.run_coordinator, OneWriterCoordinator)
    # of the workspace, the queue needs nothing
    instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def reported(instance: dg.DagsterInstance, run: dg.DagsterRun, event: dg.DagsterEventType) -> None:
    """What the process of a run reports of it."""
    instance.report_dagster_event(dg.DagsterEvent(event.value, job_name=run.job_name), run.run_id)


def to_start(instance: dg.DagsterInstance) -> list[str]:
    """Runs that the daemon would start now."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    return [run.run_id for run in daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)]


def test_a_run_without_tags_is_queued_as_a_writer_and_repeated_whole_if_it_is_killed(instance: dg.DagsterInstance) -> None:
    run = submitted(instance)
    assert run.status is dg.DagsterRunStatus.QUEUED
    assert (run.tags[WRITES], run.tags["dagster/retry_strategy"]) == ("true", "ALL_STEPS")
    assert unfinished(instance) == run.run_id
    assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
    assert not instance.run_retries_retry_on_asset_or_op_failure


def test_tags_of_its_own_are_kept(instance: dg.DagsterInstance) -> None:
    run = submitted(instance, {"owner": "me", "tamiyo/home": "there"})
    assert (run.tags["owner"], run.tags["tamiyo/home"], run.tags[WRITES]) == ("me", "there", "true")


def test_of_two_runs_without_tags_the_second_starts_when_the_first_has_ended(instance: dg.DagsterInstance) -> None:
    first, second = submitted(instance), submitted(instance)
    assert to_start(instance) == [first.run_id]
    reported(instance, first, dg.DagsterEventType.PIPELINE_STARTING)
    assert to_start(instance) == []
    reported(instance, first, dg.DagsterEventType.PIPELINE_START)
    assert to_start(instance) == []
    reported(instance, first, dg.DagsterEventType.PIPELINE_SUCCESS)
    assert to_start(instance) == [second.run_id]


def test_a_queued_run_waits_for_a_run_that_was_not_queued(instance: dg.DagsterInstance) -> None:
    own = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=dict(WRITES_TAGS))  # `tamiyo run`
    run = submitted(instance)
    assert to_start(instance) == []
    instance.report_run_failed(own)
    assert to_start(instance) == [run.run_id]


def test_every_job_is_tagged_as_a_writer_however_it_is_launched() -> None:
    assert [job.name for job in (*JOBS, maintenance_job) if (job.tags or {}).get(WRITES) != "true"] == []
    assert [job.name for job in JOBS if (job.tags or {}).get("dagster/retry_strategy") != "ALL_STEPS"] == []


@pytest.mark.parametrize(
    ("selection", "tags", "writes"),
    [
        ([BY_BUCKET], {"dagster/partition": "7"}, "bucket-7"),
        ([BY_BUCKET], {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "0"}, "bucket-0"),
        ([BY_BUCKET], {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "3"}, "true"),
        ([BY_BUCKET], {}, "true"),
        ([BY_BUCKET, dg.AssetKey("another")], {"dagster/partition": "7"}, "true"),
        ([dg.AssetKey("another")], {"dagster/partition": "7"}, "true"),
    ],
)
def test_a_run_of_one_bucket_is_tagged_with_it(
    instance: dg.DagsterInstance, selection: list[dg.AssetKey], tags: dict[str, str], writes: str
) -> None:
    run = instance.create_run_for_job(nothing, tags=tags, remote_job_origin=ORIGIN)
    run = run._replace(asset_selection=frozenset(selection))
    assert isinstance(instance.run_coordinator, OneWriterCoordinator)
    instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None and found.tags[WRITES] == writes
    assert unfinished(instance) == run.run_id, "sensors wait for it too"
