"""Queue alerts at the end of a run, from its checks and its outcome, whatever was seen while it ran."""

import dagster as dg
from dagster import ResourceParam

from lake.alert_outbox import AlertOutbox
from tamiyo_assets.alerts.event_log import checks_of_run, end_of_run, home_of


def queue_run(instance: dg.DagsterInstance, run_id: str, alerts: AlertOutbox) -> str:
    """Queue what a run's checks and its end say, in the outbox of the run's home, and deliver; return a sentence about it."""
    home = home_of(instance.get_run_by_id(run_id), alerts.home)
    if home is None:
        return f"The home of run {run_id[:8]} is gone."
    own = alerts.of(home)
    changed = own.observe([*checks_of_run(instance, run_id), *end_of_run(instance, run_id)])
    delivery = own.deliver()
    return f"{changed} alerts opened or resolved, {delivery.delivered} messages delivered, {delivery.pending} pending."


@dg.run_status_sensor(
    name="check_alert_success_sensor",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Queues alerts of the checks (WARN too) of a successful run, and resolves those of its job.",
)
def check_alert_success_sensor(context: dg.RunStatusSensorContext, alerts: ResourceParam[AlertOutbox]) -> None:
    """Look at successful runs too, since a failed check does not fail its run."""
    context.log.info(queue_run(context.instance, context.dagster_run.run_id, alerts))


@dg.run_status_sensor(
    name="check_alert_failure_sensor",
    run_status=dg.DagsterRunStatus.FAILURE,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Queues alerts of the checks (WARN too) of a failed run, and of what failed without a failed check.",
)
def check_alert_failure_sensor(context: dg.RunStatusSensorContext, alerts: ResourceParam[AlertOutbox]) -> None:
    """Look at failed runs: one that was killed, or whose step raised, has no failed check to report it."""
    context.log.info(queue_run(context.instance, context.dagster_run.run_id, alerts))
