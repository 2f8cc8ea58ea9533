"""Failed checks of finished runs: read from Dagster's event log, and posted by sensors."""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
from dagster import ResourceParam

from lake.alert_outbox import Alert, AlertOutbox

_PAGE = 500


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[Alert]:
    """The failed evaluations of a run, WARN and ERROR alike, in the order in which they were made."""
    return [
        Alert(
            run_id=run_id,
            asset=evaluation.asset_key.to_user_string(),
            check=evaluation.check_name,
            severity=evaluation.severity.value,
            description=evaluation.description or "",
            metadata={name: _plain(value) for name, value in evaluation.metadata.items()},
        )
        for evaluation in evaluations(instance, run_id)
        if not evaluation.passed
    ]


def evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetCheckEvaluation]:
    """Every evaluation of a run, read a page at a time."""
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(
            run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, limit=_PAGE
        )
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is not None:
                yield event.asset_check_evaluation_data
        if not page.has_more:
            return
        cursor = page.cursor


def _plain(value: dg.MetadataValue[Any]) -> Any:
    """A metadata value as JSON: numbers, text and lists as they are, everything else as text."""
    raw = value.value
    return raw if isinstance(raw, int | float | str | bool | list | dict) or raw is None else str(raw)


def _post_failed_checks(context: dg.RunStatusSensorContext, alerts: AlertOutbox) -> None:
    queued = alerts.queue(failed_checks(context.instance, context.dagster_run.run_id))
    delivery = alerts.deliver()
    context.log.info(f"{queued} new alerts, {delivery.delivered} delivered, {delivery.pending} pending")


@dg.run_status_sensor(
    name="check_alert_success_sensor",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts the failed checks (WARN too) of a successful run to the webhook, once each.",
)
def check_alert_success_sensor(context: dg.RunStatusSensorContext, alerts: ResourceParam[AlertOutbox]) -> None:
    """A failed check does not fail its run, so failed checks of successful runs matter too."""
    _post_failed_checks(context, alerts)


@dg.run_status_sensor(
    name="check_alert_failure_sensor",
    run_status=dg.DagsterRunStatus.FAILURE,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts the failed checks (WARN too) of a failed run to the webhook, once each.",
)
def check_alert_failure_sensor(context: dg.RunStatusSensorContext, alerts: ResourceParam[AlertOutbox]) -> None:
    """A blocking check that fails fails its run."""
    _post_failed_checks(context, alerts)


ALERT_SENSORS: Final = (check_alert_success_sensor, check_alert_failure_sensor)
