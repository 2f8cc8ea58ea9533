"""Write the panel, the metrics and what only the instance knows, as the last step of every run.

It depends on no asset, so that it is written also when a step failed; the lowest priority makes it the last step.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.settings import Settings
from lake.store.versions import Versions
from lake.writes import HOME
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.errors import StorageError
from schemas.printable import shortened
from tamiyo_assets.assets.bundle import PROMOTION
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.model import BUNDLE, EXAMPLES, RESULTS
from tamiyo_assets.assets.problems import SYSTEM
from tamiyo_assets.assets.reports import Reporter, key_of, kinds_of
from tamiyo_assets.assets.telemetry import WAREHOUSE
from tamiyo_assets.assets.upstream import EXPORTS
from tamiyo_assets.panel.facts import CheckState, Rebuild, Severity
from tamiyo_assets.panel.state import State, merged, publish_state, read_state

PANEL: Final = key_of("operations.panel")
_AFTER_ALL: Final = {"dagster/priority": "-30"}
_RUNS: Final = 24
_TEXT: Final = 600  # most characters of the text of a check or an error
_DERIVED_STAGES: Final = ("features", "coverage", "registries", "norms")
STAGES: Final[Mapping[str, tuple[dg.AssetKey, ...]]] = {
    "scan": (EXPORTS,),
    "contract tables": tuple(key_of(name) for name in TABLES),
    **{stage: tuple(key_of(name) for name in DERIVED if name.partition(".")[0] == stage) for stage in _DERIVED_STAGES},
    "graphs": (DATASET,),
    "training": (EXAMPLES, *(key_of(name) for name in RESULTS)),
    "bundle": (BUNDLE,),
    "promotion": (PROMOTION,),
    "warehouse": (WAREHOUSE,),
}


@dg.asset(
    key=PANEL,
    group_name="telemetry",
    kinds=kinds_of(PANEL, "html", "prometheus"),
    owners=["team:tamiyo"],
    op_tags=_AFTER_ALL,
    description="panel.html and metrics.prom: what is wrong, since when, whom to ask. Written last, also if a step failed.",
)
def panel(
    context: dg.AssetExecutionContext, settings: ResourceParam[Settings], versions: ResourceParam[Versions]
) -> dg.MaterializeResult[None]:
    """Write both, and `operations.json`, from which `tamiyo panel` knows what only the instance tells."""
    from tamiyo_assets.panel.gather import gather
    from tamiyo_assets.panel.publish import digest_of, panel_path, publish_panel
    from tamiyo_assets.panel.verdict import judge

    try:
        before = read_state(settings.home)
    except StorageError as damage:
        context.log.warning(f"{damage}")
        before = State()
    publish_state(settings.home, _state(context, settings, before))
    data = gather(settings)
    publish_panel(settings.home, data)
    verdict = judge(data)
    metadata = {"path": dg.MetadataValue.path(panel_path(settings.home)), "state": verdict.level}
    found = {"headline": verdict.headline[:300], "problems": len(verdict.problems), "open_alerts": len(data.alerts)}
    return Reporter(context, versions).asset(PANEL, digest_of(data)[:32], metadata | found)


def _state(context: dg.AssetExecutionContext, settings: Settings, before: State) -> State:
    """Return the state after this run: its own checks, and the earlier ones of assets that it does not include."""
    graph = context.job_def.asset_layer.asset_graph
    covered = {key.to_user_string() for key in graph.get_all_asset_keys()}
    checks = merged(before.checks, _checks(context.instance, graph.asset_check_keys), covered)
    return State(checks, _stages(context.instance), _rebuilds(context, settings, before))


def _checks(instance: dg.DagsterInstance, keys: Collection[dg.AssetCheckKey]) -> list[CheckState]:
    """Return the newest evaluation of each check; those that were never evaluated are left out."""
    found = []
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key([*keys]).items():
        event = record.event.dagster_event if record.event is not None else None
        if record.event is None or event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        said, at = event.asset_check_evaluation_data, datetime.fromtimestamp(record.event.timestamp, UTC)
        severity: Severity = "ERROR" if said.severity is dg.AssetCheckSeverity.ERROR else "WARN"
        asset = key.asset_key.to_user_string()
        text, system = shortened(said.description or "", _TEXT), said.metadata.get(SYSTEM)
        asked = str(system.value) if system is not None else ""
        found.append(CheckState(asset, key.name, said.passed, severity, text, at, at, asked))
    return found


def _stages(instance: dg.DagsterInstance) -> dict[str, datetime]:
    """Return when all assets of each stage had last been made; a stage with an asset that was never made has no time."""
    keys = [key for own in STAGES.values() for key in own]
    made = {}
    for record in instance.get_asset_records(keys):
        newest = record.asset_entry.last_materialization_record
        if newest is not None:
            made[record.asset_entry.asset_key] = newest.timestamp
    return {
        stage: datetime.fromtimestamp(min(made[key] for key in own), UTC)
        for stage, own in STAGES.items()
        if all(key in made for key in own)
    }


def _rebuilds(context: dg.AssetExecutionContext, settings: Settings, before: State) -> tuple[Rebuild, ...]:
    """Return the newest runs that wrote to this home, newest first: those that have ended, and this one until now."""
    records = context.instance.get_run_records(filters=dg.RunsFilter(tags={HOME: str(settings.home)}), limit=_RUNS)
    now, known = datetime.now(UTC).timestamp(), {run.run_id: run.failed_steps for run in before.rebuilds}
    found = []
    for record in records:
        run = record.dagster_run
        own = run.run_id == context.run.run_id
        end = now if own else record.end_time
        if record.start_time is None or end is None:
            continue
        failed = _failed_steps(context.instance, run.run_id) if own else known.get(run.run_id, {})
        status = ("FAILURE" if failed else "SUCCESS") if own else run.status.value
        started = datetime.fromtimestamp(record.start_time, UTC)
        seconds = round(end - record.start_time, 3)
        found.append(Rebuild(run.run_id, _job(run.job_name), status, started, seconds, failed))
    return tuple(found)


def _failed_steps(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """Return steps of a run that failed so far, with what their errors say at the root."""
    found = {}
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if event is not None and event.step_key is not None:
            found[event.step_key] = shortened(error.message.strip(), _TEXT) if error is not None else ""
    return found


def _job(name: str) -> str:
    """Return the name to show for a job; Dagster names the job of an asset selection itself."""
    return "assets" if name.startswith("__") else name


PANEL_ASSETS = (panel,)
