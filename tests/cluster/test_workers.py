"""The launcher of a cluster: which queue a run goes to, and when its process counts as gone."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from lake.writes import PROCESS_OF
from tamiyo_assets.assets.bundle import PROMOTION
from tamiyo_assets.assets.model import BUNDLE, RESULTS
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.coordinator import BY_BUCKET
from tamiyo_assets.instance import CONFIGURATION, open_instance
from tamiyo_assets.jobs import everything_job, rebuild_job, train_job

pytest.importorskip("dagster_celery", reason="a cluster needs dagster_celery; install the extra `cluster`")
from tamiyo_assets.cluster import workers
from tamiyo_assets.cluster.workers import TRAINING_JOBS, WorkerRunLauncher

QUEUE = "dagster-celery/queue"


@dg.job
def nothing() -> None:
    """A job for runs that are never executed."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path) as found:
        yield found


@pytest.fixture
def launcher(instance: dg.DagsterInstance) -> WorkerRunLauncher:
    found = WorkerRunLauncher(default_queue="rebuild", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1")
    found.register_instance(instance)
    return found


def a_run(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> dg.DagsterRun:
    return instance.create_run_for_job(nothing, tags=dict(tags))


def sent(launcher: WorkerRunLauncher, run: dg.DagsterRun, patch: pytest.MonkeyPatch) -> str:
    """The queue that a run is sent to, which is in its tags too."""
    found: list[dg.DagsterRun] = []
    patch.setattr(workers.CeleryRunLauncher, "launch_run", lambda _, context: found.append(context.dagster_run))
    launcher.launch_run(LaunchRunContext(run, None))
    kept = launcher._instance.get_run_by_id(run.run_id)
    assert kept is not None and kept.tags[QUEUE] == found[0].tags[QUEUE]
    return found[0].tags[QUEUE]


def test_what_trains_has_a_queue_of_its_own() -> None:
    assert {everything_job.name, train_job.name} == TRAINING_JOBS and rebuild_job.name not in TRAINING_JOBS
    keys = [*(key_of(name) for name in RESULTS), BUNDLE, PROMOTION]
    assert {key.path[0] for key in keys} <= workers._TRAINED


@pytest.mark.parametrize(
    ("selection", "queue"),
    [([BUNDLE], "training"), ([BY_BUCKET], "rebuild"), (None, "rebuild"), ([BUNDLE, BY_BUCKET], "training")],
)
def test_a_run_is_sent_to_the_queue_of_its_kind(
    instance: dg.DagsterInstance,
    launcher: WorkerRunLauncher,
    selection: list[dg.AssetKey] | None,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = None if selection is None else frozenset(selection)
    assert sent(launcher, a_run(instance, {})._replace(asset_selection=chosen), monkeypatch) == queue


def test_a_queue_of_ones_own_is_kept(
    instance: dg.DagsterInstance, launcher: WorkerRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(instance, {QUEUE: "large"})
    assert sent(launcher, run._replace(asset_selection=frozenset([BUNDLE])), monkeypatch) == "large"


def test_a_run_is_gone_only_if_its_process_is(
    instance: dg.DagsterInstance, launcher: WorkerRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = {"yes"}
    monkeypatch.setattr(workers, "is_alive", lambda name: name in living)
    run = a_run(instance, {})
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING, "its process has not said its name yet"
    instance.add_run_tags(run.run_id, {PROCESS_OF: run.run_id, "tamiyo/pid": "17", "tamiyo/host": "there"})
    named = instance.get_run_by_id(run.run_id)
    assert named is not None
    gone = launcher.check_run_worker_health(named)
    assert (gone.status, gone.msg) == (WorkerStatus.FAILED, "its process 17 on there is gone")
    living.add(run.run_id)
    assert launcher.check_run_worker_health(named).status is WorkerStatus.RUNNING
    living.clear()
    instance.report_run_canceled(named)
    assert launcher.check_run_worker_health(named).status is WorkerStatus.SUCCESS, "it ended between two looks"


def test_the_process_of_the_run_that_is_tried_again_does_not_count(
    instance: dg.DagsterInstance, launcher: WorkerRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster copies the tags of a run to the one that tries it again."""
    monkeypatch.setattr(workers, "is_alive", lambda name: False)
    assert launcher.check_run_worker_health(a_run(instance, {PROCESS_OF: "parent"})).status is WorkerStatus.RUNNING


def test_the_clusters_instance_differs_from_that_of_one_machine_only_where_it_must(repository: Path) -> None:
    ours, theirs = (yaml.safe_load(path.read_bytes()) for path in (CONFIGURATION, repository / "deploy" / "dagster.yaml"))
    assert {name for name in theirs if theirs[name] != ours.get(name)} == {
        "storage", "compute_logs", "run_launcher", "run_coordinator", "run_monitoring",
    }  # fmt: skip
    assert ours.keys() <= theirs.keys()
    first = [path.read_bytes().partition(b"\n")[0] for path in (CONFIGURATION, repository / "deploy" / "dagster.yaml")]
    assert first[0] == first[1], "or the file is brought up to date to that of one machine"
