"""Sensors of alerts: finished runs post their failed checks."""

from typing import Final

import dagster as dg
from dagster import ResourceParam

from tamiyo_assets.alerts.evaluations import failed_checks
from tamiyo_assets.alerts.outbox import AlertOutbox


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
