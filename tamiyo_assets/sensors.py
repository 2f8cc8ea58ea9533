"""Sensors: new exports rebuild what depends on them; finished runs post their failed checks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import ResourceParam

from schemas.contracts import FOLDERS
from tamiyo_assets.evaluations import failed_checks
from tamiyo_assets.ingest import Ingest
from tamiyo_assets.jobs import kasmina_job, urabrask_job
from tamiyo_assets.ledger import Ledger, present
from tamiyo_assets.partitions import TRAINING_RUNS, range_tags, training_runs
from tamiyo_assets.resources.alerts import AlertOutbox
from tamiyo_assets.resources.exports import Export, Exports

_INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class Cursor:
    """What a sensor saw last: the digest of its exports, and how many changes it has seen.

    The sequence is in the run key because a run key is used once for ever: exports that go from A to B and back to A are
    a third change.
    """

    digest: str = ""
    sequence: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor as stored; the first one where nothing is."""
        return cls(**json.loads(text)) if text else cls()

    def dump(self) -> str:
        """The cursor as text."""
        return json.dumps({"digest": self.digest, "sequence": self.sequence})


def _contents(exports: Sequence[Export]) -> str:
    return hashlib.sha256("\n".join(sorted(f"{e.folder} {e.digest}" for e in exports)).encode()).hexdigest()


def _exports_sensor(name: str, system: str, job_name: str) -> dg.SensorDefinition:
    folders = tuple(path for path, folder in FOLDERS.items() if folder.system == system)

    @dg.sensor(
        name=name,
        job_name=job_name,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Rebuilds what depends on {system}'s exports when their content changes.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, exports: ResourceParam[Exports], ingest: ResourceParam[Ingest]
    ) -> dg.SensorResult | dg.SkipReason:
        if not exports.root.is_dir():
            return dg.SkipReason(f"{exports.root} is no directory.")
        found = exports.scan(folders).exports
        cursor = Cursor.parse(context.cursor)
        if _contents(found) == (cursor.digest or _contents(())):
            return dg.SkipReason(f"{system}: nothing new in {len(found)} exports.")
        arrived = present(Ledger(ingest.home).entries(), folders)
        fresh = [export for export in found if (export.folder, export.digest) not in arrived]
        after = Cursor(_contents(found), cursor.sequence + 1)
        if not cursor.digest and not fresh:
            return dg.SensorResult(skip_reason=f"{system}: all {len(found)} exports were read before.", cursor=after.dump())
        return _rebuild(context.instance, after, fresh, ingest)

    return sensor


def _rebuild(
    instance: dg.DagsterInstance, cursor: Cursor, fresh: Sequence[Export], ingest: Ingest
) -> dg.SensorResult | dg.SkipReason:
    known = list(instance.get_dynamic_partitions(TRAINING_RUNS))
    runs = {run for export in fresh for run in ingest.runs_in(export)} | set(ingest.run_ids())
    new = sorted(runs - set(known))
    ordered = [*known, *new]
    if not ordered:
        return dg.SkipReason("No training run is known yet: run the job `everything` first.")
    # a safety sheet, and a registry that grew, reach the graphs of every run
    request = dg.RunRequest(run_key=f"{cursor.digest}:{cursor.sequence}", tags=range_tags(ordered, set(ordered)))
    return dg.SensorResult(
        run_requests=[request],
        dynamic_partitions_requests=[training_runs.build_add_request(new)] if new else [],
        cursor=cursor.dump(),
    )


kasmina_exports_sensor = _exports_sensor("kasmina_exports_sensor", "kasmina", kasmina_job.name)
urabrask_exports_sensor = _exports_sensor("urabrask_exports_sensor", "urabrask", urabrask_job.name)


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


SENSORS = (kasmina_exports_sensor, urabrask_exports_sensor, check_alert_success_sensor, check_alert_failure_sensor)
