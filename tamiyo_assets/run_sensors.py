"""Fail stuck runs by a sensor: a run whose process is gone or that is silent for too long; its lock is freed.

Dagster's run monitoring fails a run that was launched and whose process never started; it does not look at one that was created
and never launched. Of one that started it asks the run launcher, and that of plain processes does not answer; a run of
`tamiyo run` has no launcher at all.
"""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import psutil
from dagster import ResourceParam
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from lake.settings import Settings
from lake.writes import BOOT_ID, HOST, PID, PROCESS_OF, STARTED, WRITERS, WRITES, boot_id, started

_INTERVAL_SECONDS: Final = 10
_WAITING: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_FAILURES_LOOKED_AT: Final = 20
_RETRIED_WITHIN: Final = timedelta(seconds=30)
_GIVEN_UP_AFTER: Final = timedelta(minutes=5)  # what the daemon refuses to retry, it refuses again
# key under which the daemon that retries runs keeps its position in the event log
RETRY_CURSOR: Final = f"EVENT_LOG_CONSUMER_CURSOR-{dg.DagsterEventType.RUN_FAILURE.value}"
# NOT_STARTED: created by a process that was killed before it began the run; nobody else would ever end it
_WATCHED: Final = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def unfinished(instance: dg.DagsterInstance) -> str | None:
    """Return the id of a run that writes, to the whole home or a bucket, and is queued or running; None if there is none."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=_WAITING, tags={WRITES: [*WRITERS]}), limit=1)
    return runs[0].run_id if runs else None


@dg.sensor(
    name="stuck_run_sensor",
    minimum_interval_seconds=_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Fails runs whose process is gone or that have written nothing for `max_silence`, and ends their processes.",
)
def stuck_run_sensor(context: dg.SensorEvaluationContext, settings: ResourceParam[Settings]) -> dg.SkipReason:
    """Look at every run that is under way, and at those that failed and are to be tried again."""
    said = [*fail_stuck_runs(context.instance, settings.max_silence), *recall_retries(context.instance, datetime.now(UTC))]
    for line in said:
        context.log.warning(line)
    return dg.SkipReason(" ".join(said) or "No run is stuck.")


def fail_stuck_runs(instance: dg.DagsterInstance, max_silence: timedelta) -> Iterator[str]:
    """Fail every stuck run; yield a sentence for each."""
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=_WATCHED)):
        run = record.dagster_run
        here = run.tags.get(PROCESS_OF) == run.run_id and run.tags.get(HOST) == socket.gethostname()
        process = process_of(run.tags) if here else None
        silence = datetime.now(UTC) - _last_word(instance, record)
        if here and process is None:
            reason = f"its process {run.tags.get(PID)} on {run.tags[HOST]} is gone"
        elif silence > max_silence and run.status is dg.DagsterRunStatus.NOT_STARTED:
            reason = f"it was created {silence} ago and never started"
        elif silence > max_silence:
            reason = f"it has written nothing for {silence}, more than max_silence ({max_silence})"
        else:
            continue
        if _ended(instance, run.run_id):
            continue
        gone = _end(process) if process is not None else here
        if process is not None and _ended(instance, run.run_id):
            continue
        free = gone or run.status is dg.DagsterRunStatus.NOT_STARTED
        rest = ", and its lock is free" if free else "; its process can't be ended from here and may go on"
        instance.report_run_failed(run, f"Run {run.run_id} is stuck: {reason}. It was failed{rest}.")
        yield f"Run {run.run_id[:8]} of {run.job_name} was failed: {reason}."


def recall_retries(instance: dg.DagsterInstance, now: datetime) -> Iterator[str]:
    """Make Dagster look again at failures that it should have retried and did not; yield a sentence for each.

    Its daemon reads the event of a failure once. If that is before the run's status is written, some milliseconds later, it
    takes the run for one that goes on, and a backfill waits for the retry for ever.
    """
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY_TAG: "true"})
    forgotten = set()
    for record in instance.get_run_records(filters=filters, limit=_FAILURES_LOOKED_AT):
        age = now - datetime.fromtimestamp(record.end_time or 0.0, UTC)
        if AUTO_RETRY_RUN_ID_TAG not in record.dagster_run.tags and _RETRIED_WITHIN < age < _GIVEN_UP_AFTER:
            forgotten.add(record.dagster_run.run_id)
            yield f"Run {record.dagster_run.run_id[:8]} was to be tried again and was not; Dagster is told again."
    if forgotten:
        failures = instance.event_log_storage.get_logs_for_all_runs_by_log_id(
            after_cursor=-1, dagster_event_type={dg.DagsterEventType.RUN_FAILURE}
        )
        first = min(number for number, event in failures.items() if event.run_id in forgotten)
        instance.daemon_cursor_storage.set_cursor_values({RETRY_CURSOR: str(first - 1)})


def process_of(tags: Mapping[str, str]) -> psutil.Process | None:
    """Return the process that a run's tags name; None if it is gone. Its pid may be another process by now."""
    if tags.get(BOOT_ID) != boot_id():
        return None
    try:
        process = psutil.Process(int(tags[PID]))
        same = started(process.pid) == tags[STARTED]
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, KeyError, ValueError):
        return None


def _last_word(instance: dg.DagsterInstance, record: dg.RunRecord) -> datetime:
    """Return when the run wrote its newest event."""
    newest = instance.event_log_storage.get_logs_for_run(record.dagster_run.run_id, limit=1, ascending=False)
    return datetime.fromtimestamp(newest[0].timestamp, UTC) if newest else record.update_timestamp


def _end(process: psutil.Process) -> bool:
    """Kill a hung process with its children, which frees its locks; return whether all are gone."""
    try:
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        family = [process]
    for one in family:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # another user's process is reported, the other runs are still looked at
            continue
    return not psutil.wait_procs(family, timeout=5)[1]


def _ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether the run ended by itself meanwhile."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished
