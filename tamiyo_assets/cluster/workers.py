"""Runs on Celery workers: the launcher that `deploy/dagster.yaml` names, and the application that a worker serves.

    celery --app tamiyo_assets.cluster.workers worker --queues rebuild,training --concurrency 1

A worker needs the environment of the cluster (`TAMIYO_BROKER`, `TAMIYO_POSTGRES`, `DAGSTER_HOME`) and its file system.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster_celery.config import DEFAULT_CONFIG
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.make_app import make_app
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task

from lake.durable.locks import is_alive
from lake.writes import HOST, PID, PROCESS_OF
from schemas.errors import StorageError

BROKER: Final = "TAMIYO_BROKER"
REBUILD: Final = "rebuild"
TRAINING: Final = "training"
TRAINING_JOBS: Final = frozenset({"everything", "train"})
_TRAINED: Final = frozenset({"training", "bundle"})  # first key parts of the assets that train
# a broker that is down for a minute delays runs but loses none
_CONFIG: Final[Mapping[str, Any]] = {
    **DEFAULT_CONFIG,
    "task_publish_retry_policy": {"max_retries": 60, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0},
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_send_task_events": False,
}


def application(broker: str) -> Celery:
    """Return the Celery application of the launcher and of the workers; results are kept where tasks are."""
    return make_app({"broker": broker, "backend": broker, "config_source": dict(_CONFIG), "task_default_queue": REBUILD})


class WorkerRunLauncher(CeleryRunLauncher):
    """CeleryRunLauncher with a separate queue for training; it takes a run for dead only if its process is gone."""

    def app_args(self) -> dict[str, Any]:
        """Return the arguments of the application."""
        found: dict[str, Any] = super().app_args()
        return found | {"config_source": {**_CONFIG, **self.config_source}}

    def launch_run(self, context: LaunchRunContext) -> None:
        """Send the run to the queue of its kind."""
        run = context.dagster_run
        if DAGSTER_CELERY_QUEUE_TAG not in run.tags:
            queue = {DAGSTER_CELERY_QUEUE_TAG: TRAINING if _trains(run) else REBUILD}
            self._instance.add_run_tags(run.run_id, queue)
            context = context._replace(dagster_run=run.with_tags({**run.tags, **queue}))
        super().launch_run(context)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the database lock that the run's process holds; ask Celery only about a run that no process has taken yet.

        Celery does not tell when a worker or its machine died, and forgets tasks when its broker loses its data.
        """
        if run.tags.get(PROCESS_OF) == run.run_id:
            if is_alive(run.run_id):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            current = self._instance.get_run_by_id(run.run_id)
            if current is None or current.is_finished:
                return CheckRunHealthResult(WorkerStatus.SUCCESS)
            said = f"its process {run.tags.get(PID)} on {run.tags.get(HOST)} is gone"
            return CheckRunHealthResult(WorkerStatus.FAILED, said)
        if DAGSTER_CELERY_TASK_ID_TAG in run.tags and self.celery.AsyncResult(_task(run)).state == "FAILURE":
            return CheckRunHealthResult(WorkerStatus.FAILED, "its Celery task failed before the run began")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return the Celery task of the run."""
        return f"Celery task {_task(run)}" if DAGSTER_CELERY_TASK_ID_TAG in run.tags else None


def _task(run: DagsterRun) -> str:
    return run.tags[DAGSTER_CELERY_TASK_ID_TAG]


def _trains(run: DagsterRun) -> bool:
    return run.job_name in TRAINING_JOBS or any(key.path[0] in _TRAINED for key in run.asset_selection or ())


def _served() -> Celery:
    broker = os.environ.get(BROKER)
    if not broker:
        raise StorageError(f"{BROKER}: expected the URL of a Redis, found nothing; set it as docs/operations/cluster.md says")
    found = application(broker)
    create_execute_job_task(found)
    return found


def __getattr__(name: str) -> Celery:
    """Make `app`, which `celery --app` looks for, only when it is asked for: the launcher's process does not need it."""
    if name != "app":
        raise AttributeError(name)
    app = _served()
    globals()["app"] = app
    return app
