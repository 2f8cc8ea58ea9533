"""One pass over everything, in this process: the exports first, to learn the training runs, then all assets over them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from tamiyo_assets.accounting import total
from tamiyo_assets.assets.bundle import PROMOTION
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.telemetry import WAREHOUSE, publish_warehouse
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.evaluations import failed_checks
from tamiyo_assets.instance import open_instance
from tamiyo_assets.jobs import EXPORTS, everything_job, ingest_job
from tamiyo_assets.partitions import TRAINING_RUNS, range_tags
from tamiyo_assets.resources.alerts import Alert, AlertOutbox
from tamiyo_assets.resources.tables import TableStore
from tamiyo_assets.settings import Settings

_ENDED = frozenset({"STEP_SUCCESS", "STEP_FAILURE", "STEP_SKIPPED"})

Step = Callable[[str, int, int], None]  # step name, steps done, steps in all


@dataclass(frozen=True)
class Outcome:
    """What the runs said: failed checks of both severities, failed steps with their error, and the run ids.

    `unknown_fields`: fields and enum values of the exports read in this run that no contract declares, with their counts.
    """

    failed_checks: tuple[Alert, ...]
    failed_steps: Mapping[str, str]
    run_ids: tuple[str, ...]
    build_id: str | None = None
    refusal: str = ""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No step failed and no ERROR check failed."""
        return not self.failed_steps and not self.errors

    @property
    def errors(self) -> tuple[Alert, ...]:
        """Failed checks of severity ERROR."""
        return tuple(check for check in self.failed_checks if check.severity == "ERROR")


class _Progress(logging.Handler):
    """Turns the run's step events into calls of `step`."""

    def __init__(self, step: Step, total: int) -> None:
        super().__init__()
        self._step = step
        self._total = total
        self._done = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by Dagster for every event of the run."""
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None or not event.step_key or not event.event_type_value.startswith("STEP_"):
            return
        self._done += event.event_type_value in _ENDED
        self._step(event.step_key, self._done, self._total)


def run_everything(settings: Settings, step: Step) -> Outcome:
    """Materialize every asset once and evaluate every check; failed checks go to the webhook where there is one."""
    outcomes: list[dg.ExecuteInProcessResult] = []
    with open_instance(settings.dagster_home) as instance:
        for job_name in (ingest_job.name, everything_job.name):
            outcomes.append(_execute(settings, instance, job_name, step))
            if not outcomes[-1].success and job_name == ingest_job.name:
                break
        if not _metadata(outcomes[-1], WAREHOUSE):
            publish_warehouse(settings.home)  # a check blocked what is downstream: what was committed is shown all the same
        failed = [check for result in outcomes for check in failed_checks(instance, result.run_id)]
    alerts = AlertOutbox(settings.home, settings.alert_webhook)
    alerts.queue(failed)
    alerts.deliver()
    promotion = _metadata(outcomes[-1], PROMOTION)
    return Outcome(
        failed_checks=tuple(failed),
        failed_steps=_failed_steps(outcomes),
        run_ids=tuple(result.run_id for result in outcomes),
        build_id=_metadata(outcomes[-1], BUNDLE).get("build_id"),
        refusal=promotion.get("refusal") or "",
        unknown_fields=total([_metadata(result, EXPORTS).get("unknown_fields", {}) for result in outcomes]),
    )


def _metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    """Metadata of the asset's materialization in the run; empty where it was not materialized."""
    for event in result.get_asset_materialization_events():
        if event.asset_key == key:
            return {name: value.value for name, value in event.materialization.metadata.items()}
    return {}


def _execute(settings: Settings, instance: dg.DagsterInstance, job_name: str, step: Step) -> dg.ExecuteInProcessResult:
    handlers: list[_Progress] = []

    @dg.logger
    def progress(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("progress")
        logger.handlers = list(handlers)
        return logger

    definitions = build_definitions(settings, loggers={"progress": progress})
    job = definitions.resolve_job_def(job_name)
    handlers.append(_Progress(step, len(job.graph.nodes)))
    known = list(instance.get_dynamic_partitions(TRAINING_RUNS)) if job_name == everything_job.name else []
    return job.execute_in_process(
        instance=instance,
        run_config={"loggers": {"progress": {}}},
        tags=range_tags(known, set(known)),
        raise_on_error=False,
        asset_selection=_without_graphs(definitions) if job_name == everything_job.name and not _has_states(settings) else None,
    )


def _has_states(settings: Settings) -> bool:
    """Whether any training state was kept."""
    completion = TableStore(settings.home).read("tolaria.system_state", columns=["is_completion"]).column(0)
    return pc.any(pc.invert(completion), min_count=1).as_py() is True


def _without_graphs(definitions: dg.Definitions) -> list[dg.AssetKey]:
    """What can be made of exports that hold no training state: all but the graphs, the model and its bundle.

    Where not even a seed names a training run there is no partition, and Dagster runs no partitioned asset that reads
    another one without a partition.
    """
    selection = dg.AssetSelection.all() - dg.AssetSelection.assets(DATASET).downstream()
    return sorted(selection.resolve(definitions.resolve_asset_graph()))


def _failed_steps(outcomes: list[dg.ExecuteInProcessResult]) -> dict[str, str]:
    """Failed steps with the error that they ended with; a blocking check's own failure is told by the check."""
    failed: dict[str, str] = {}
    for result in outcomes:
        for event in result.get_step_failure_events():
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            text = (cause.message if cause else "").strip()
            if "DagsterAssetCheckFailedError" not in (error.message if error else "") and "AssetCheck" not in text:
                failed[event.step_key or "?"] = text
    return failed
