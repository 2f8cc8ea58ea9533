"""Define the sensors of exports and training: rebuild once what changed, and train on it in due time.

All sensors ask for runs of the whole pipeline, so whichever sees a change first has all of it rebuilt, and the others then find
nothing. While a run that writes is queued or running they keep their cursors, so that changes during it make one more run.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.alert_outbox import AlertOutbox
from lake.exports.folders import Export, Exports
from lake.exports.ledger import Ledger, is_rebuilt, present
from lake.retirement import Retirements
from lake.settings import Settings, is_empty, vanished_exports
from lake.writes import WRITES_TAGS, run_tags
from schemas.artifacts import REGISTRIES
from schemas.contracts import FOLDERS
from tamiyo_assets.alerts.delivery import alert_delivery_sensor
from tamiyo_assets.alerts.failed_checks import check_alert_failure_sensor, check_alert_success_sensor
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.model import BUNDLE, EXAMPLES
from tamiyo_assets.assets.normalization import NORMS
from tamiyo_assets.assets.registries import registry_key
from tamiyo_assets.assets.reports import DATA_VERSION, INPUT_VERSION, ROWS
from tamiyo_assets.assets.upstream import EXPORTS
from tamiyo_assets.instance import forget_sample
from tamiyo_assets.jobs import everything_job, rebuild_job, train_job
from tamiyo_assets.run_sensors import stuck_run_sensor, unfinished
from tamiyo_assets.standing import EXPORTS_ROOT, report_standing
from tamiyo_assets.upkeep import maintenance_job

_INTERVAL_SECONDS: Final = 10
_LOOKED_AT: Final = 20  # newest runs among which the newest rebuild is looked for
_WITHOUT_SCAN: Final = frozenset({train_job.name, maintenance_job.name})
OTHERS: Final = ("tolaria", "urza", "tezzeret", "weatherlight", "simic", "tamiyo", "oona")


@dataclass(frozen=True)
class Cursor:
    """What a sensor saw last: a digest, the number of changes so far, and a run id.

    The digest is that of the contents that were present and of the retirements. The run is the newest rebuild whose scan was
    compared with these contents. The number of changes is in the run key because a run key is used once for ever: exports that
    go from A to B and back to A are a third change.
    """

    digest: str = ""
    sequence: int = 0
    compared: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Return the stored cursor; the first one if none is stored."""
        return cls(**json.loads(text)) if text else cls()

    def dump(self) -> str:
        """Return the cursor as text."""
        return json.dumps(asdict(self))


def _contents(exports: Sequence[Export], retired: str = "") -> str:
    present = sorted({f"{e.folder} {e.identity}" for e in exports})
    return hashlib.sha256("\n".join([*present, *([f"retired {retired}"] if retired else [])]).encode()).hexdigest()


def _newest_rebuild(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """Return the newest run that may have scanned the exports."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags=dict(WRITES_TAGS)), limit=_LOOKED_AT)
    return next((run for run in runs if run.job_name not in _WITHOUT_SCAN), None)


def _without_exports(settings: Settings, alerts: AlertOutbox) -> dg.SkipReason:
    """Alert if the exports of a home have vanished."""
    report_standing(settings, alerts)
    vanished = vanished_exports(settings)
    return dg.SkipReason(
        f"{vanished or f'exports root {settings.exports}: expected files <system>/<contract>/<file>, found none'}."
    )


def _ask(
    context: dg.SensorEvaluationContext, settings: Settings, exports: Exports, folders: Sequence[str]
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run if what is present differs from what the cursor saw, and was not read by a rebuild meanwhile."""
    exports.recall(settings.home)
    found = exports.scan(folders).exports
    cursor = Cursor.parse(context.cursor)
    retired = Retirements(settings.home).digest()
    contents = _contents(found, retired)
    newest = _newest_rebuild(context.instance)
    same, after = contents == (cursor.digest or _contents(())), replace(cursor, compared=newest.run_id if newest else "")
    if same and after == cursor:
        return dg.SkipReason(f"Nothing new in {len(found)} exports.")
    entries = Ledger(settings.home).entries()
    arrived = present(entries, folders)
    read = all((e.folder, e.identity) in arrived for e in found)
    # exports that were absent while a rebuild scanned and are back now equal the cursor, but were not read
    if same and (read or newest is None or newest.status is not dg.DagsterRunStatus.SUCCESS):
        return dg.SensorResult(skip_reason=f"Nothing new in {len(found)} exports.", cursor=after.dump())
    after = replace(after, digest=contents, sequence=cursor.sequence + 1)
    if read and is_rebuilt(settings.home, entries, retired):
        return dg.SensorResult(skip_reason=f"All {len(found)} exports were read before.", cursor=after.dump())
    # a home in which nothing arrived yet gets its model too
    job = rebuild_job if entries else everything_job
    if forget_sample(context.instance, settings):
        context.log.info("Wiped the asset events of the committed sample.")
    request = dg.RunRequest(
        run_key=f"{contents}:{after.sequence}", job_name=job.name, tags=run_tags(settings.home, settings.exports)
    )
    return dg.SensorResult(run_requests=[request], cursor=after.dump())


def _exports_sensor(name: str, systems: Sequence[str]) -> dg.SensorDefinition:
    folders = tuple(path for path, folder in FOLDERS.items() if folder.system in systems)

    @dg.sensor(
        name=name,
        jobs=[rebuild_job, everything_job],
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Asks for one run of `rebuild` when {', '.join(systems)} sent new contents or runs are retired.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        settings: ResourceParam[Settings],
        exports: ResourceParam[Exports],
        alerts: ResourceParam[AlertOutbox],
    ) -> dg.SensorResult | dg.SkipReason:
        if exports.is_sample:
            return dg.SkipReason("No exports of your own yet: `Materialize all` and `make run` read the committed sample.")
        if is_empty(exports.root):
            return _without_exports(settings, alerts)
        alerts.report(EXPORTS.to_user_string(), EXPORTS_ROOT, [])
        writer = unfinished(context.instance)
        if writer is not None:
            return dg.SkipReason(f"Waiting for the end of run {writer[:8]}.")
        return _ask(context, settings, exports, folders)

    return sensor


kasmina_exports_sensor = _exports_sensor("kasmina_exports_sensor", ["kasmina"])
urabrask_exports_sensor = _exports_sensor("urabrask_exports_sensor", ["urabrask"])
exports_sensor = _exports_sensor("exports_sensor", OTHERS)


@dg.sensor(
    name="training_sensor",
    job=train_job,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a training when examples, graphs, registries or norms differ from those of the newest bundle, "
    "once `retrain_after` has passed since the last one.",
)
def training_sensor(context: dg.SensorEvaluationContext, settings: ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
    """Compare the data versions that the newest bundle was made of with the present ones.

    The cursor is the digest of the inputs that a training was asked for last: what failed once is not asked for again.
    """
    inputs = (EXAMPLES, DATASET, NORMS, *(registry_key(name) for name in REGISTRIES))
    events = {key: context.instance.get_latest_materialization_event(key) for key in (*inputs, BUNDLE)}
    found = {key: event.asset_materialization for key, event in events.items() if event and event.asset_materialization}
    if not all(found.get(key) is not None and found[key].metadata[ROWS].value for key in (EXAMPLES, DATASET)):
        return dg.SkipReason("No graph with a measured outcome to train on yet.")
    now = {key.to_user_string(): _version(found[key].tags) for key in inputs if key in found}
    bundle = events[BUNDLE]
    made_of = _inputs(found[BUNDLE].tags or {}) if BUNDLE in found else {}
    if bundle is not None and all(made_of.get(key) == version for key, version in now.items()):
        return dg.SkipReason("The newest bundle was made of what is there now.")
    writer = unfinished(context.instance)
    if writer is not None:
        return dg.SkipReason(f"The inputs changed; waiting for the end of run {writer[:8]}.")
    digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    if context.cursor == digest:
        return dg.SkipReason("A training on these inputs was asked for and has not ended well: see the newest run of `train`.")
    age = _age(bundle.timestamp) if bundle is not None else None
    if age is not None and age < settings.retrain_after:
        return dg.SkipReason(f"The inputs changed; the next training is due in {settings.retrain_after - age}.")
    request = dg.RunRequest(run_key=f"{digest}:{datetime.now(UTC).isoformat()}", tags=run_tags(settings.home, settings.exports))
    return dg.SensorResult(run_requests=[request], cursor=digest)


def _version(tags: Mapping[str, str] | None) -> str:
    return (tags or {}).get(DATA_VERSION, "")


def _inputs(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the data version of each asset that a materialization was made from."""
    return {name.removeprefix(INPUT_VERSION): value for name, value in tags.items() if name.startswith(INPUT_VERSION)}


def _age(timestamp: float) -> timedelta:
    return datetime.now(UTC) - datetime.fromtimestamp(timestamp, UTC)


SENSORS: Final = (
    kasmina_exports_sensor,
    urabrask_exports_sensor,
    exports_sensor,
    training_sensor,
    stuck_run_sensor,
    check_alert_success_sensor,
    check_alert_failure_sensor,
    alert_delivery_sensor,
)
