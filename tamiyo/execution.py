"""Materialize every asset and evaluate every check once, in this process."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Evaluation
from lake.settings import Settings
from lake.store.table_store import TableStore
from tamiyo_assets.alerts.event_log import checks_of_run
from tamiyo_assets.alerts.failed_checks import queue_run
from tamiyo_assets.assets.bundle import PROMOTION
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.telemetry import WAREHOUSE, publish_warehouse
from tamiyo_assets.assets.upstream import EXPORTS
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.instance import forget_sample, open_instance
from tamiyo_assets.jobs import everything_job, rebuild_job

_BEFORE_STEPS = "run"  # stands for the step if a run failed before its first one
_ENDED = frozenset({"STEP_SUCCESS", "STEP_FAILURE", "STEP_SKIPPED"})

Step = Callable[[str, int, int], None]  # step name, steps done, steps in all


@dataclass(frozen=True)
class Outcome:
    """What the run said: failed checks of both severities, failed steps with their error, and the run id.

    `unknown_fields`: fields and enum values of the exports read in this run that no contract declares, with their counts.
    `rebuilt`: tables that were damaged, with what was wrong. `failed_exports`: files that could not be read, and why.
    """

    failed_checks: tuple[Evaluation, ...]
    failed_steps: Mapping[str, str]
    run_id: str
    build_id: str | None = None
    refusal: str = ""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    rebuilt: Mapping[str, str] = field(default_factory=dict)
    failed_exports: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No step failed and no ERROR check failed."""
        return not self.failed_steps and not self.errors

    @property
    def errors(self) -> tuple[Evaluation, ...]:
        """Failed checks of severity ERROR."""
        return tuple(check for check in self.failed_checks if check.severity == "ERROR")


class _Progress(logging.Handler):
    """Turns the run's step events into calls of `step`."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step
        self._done = 0
        self.total = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Handle an event of the run; Dagster calls it for each."""
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None or not event.step_key or not event.event_type_value.startswith("STEP_"):
            return
        self._done += event.event_type_value in _ENDED
        self._step(event.step_key, self._done, self.total)


def run_everything(settings: Settings, step: Step, *, train: bool = True) -> Outcome:
    """Materialize every asset once and evaluate every check; failed checks go to the webhook if there is one.

    Without `train`, the results of training, the bundle and its promotion are left out.
    """
    with open_instance(settings.dagster_home) as instance:
        forget_sample(instance, settings)
        result = _execute(settings, instance, step, (everything_job if train else rebuild_job).name)
        failed_steps = _failed_steps(result)
        if not _metadata(result, WAREHOUSE) and _BEFORE_STEPS not in failed_steps:
            # an earlier step failed: what was committed is shown anyway
            publish_warehouse(settings.home, TableStore(settings.home))
        failed = [check for check in checks_of_run(instance, result.run_id) if check.problems]
        queue_run(instance, result.run_id, AlertOutbox(settings.home, settings.alert_webhook, settings.ui_url))
    return Outcome(
        failed_checks=tuple(failed),
        failed_steps=failed_steps,
        run_id=result.run_id,
        build_id=_metadata(result, BUNDLE).get("build_id"),
        refusal=_metadata(result, PROMOTION).get("refusal") or "",
        unknown_fields=_metadata(result, EXPORTS).get("unknown_fields", {}),
        rebuilt=_metadata(result, EXPORTS).get("rebuilt", {}),
        failed_exports=_metadata(result, EXPORTS).get("failed", {}),
    )


def _metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    """Return the metadata of the asset's materialization in the run; empty if it was not materialized."""
    for event in result.get_asset_materialization_events():
        if event.asset_key == key:
            return {name: value.value for name, value in event.materialization.metadata.items()}
    return {}


def _execute(settings: Settings, instance: dg.DagsterInstance, step: Step, name: str) -> dg.ExecuteInProcessResult:
    handler = _Progress(step)

    @dg.logger
    def progress(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("progress")
        logger.handlers = [handler]
        return logger

    job = build_definitions(settings, loggers={"progress": progress}).resolve_job_def(name)
    handler.total = len(job.graph.nodes)
    return job.execute_in_process(instance=instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False)


def _failed_steps(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the failed steps with the error that ended each; the failure of a blocking check is reported by the check.

    A run that failed before its first step, because it lacked a resource, counts as a step named `run`.
    """
    failed: dict[str, str] = {}
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        text = _told(error)
        if "DagsterAssetCheckFailedError" not in (error.message if error else "") and "AssetCheck" not in text:
            failed[event.step_key or "?"] = text
    if not result.success and not result.get_step_failure_events():
        failures = [event for event in result.all_events if event.event_type is dg.DagsterEventType.RUN_FAILURE]
        failed[_BEFORE_STEPS] = (
            _told(failures[-1].job_failure_data.error) if failures else "it ended without a word; see it in the UI"
        )
    return failed


def _told(error: SerializableErrorInfo | None) -> str:
    """Return what an error says at its root, without Dagster's own words around it."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else ""
