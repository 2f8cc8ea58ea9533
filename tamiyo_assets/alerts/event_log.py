"""Read evaluations from Dagster's event log: those of a finished run, or all since a cursor.

A check lists its problems in its metadata, so that each becomes an alert of its own. `problems` is a list of short texts
without figures. Two entries may go with it: `system`, whom to ask, and `runs`, the training runs concerned. `runs` is a list,
or a text with the first few and `and 9 more`; if there are several problems, it maps each problem to its own runs. If a check
lists no problems, the check itself is the problem.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError

from lake.alerts.book import Evaluation, Problem
from lake.writes import HOME
from schemas.contracts import FOLDERS
from schemas.features import GROUPS

RUNS: Final = "runs"  # the asset that alerts about runs name; their check is the job
_PAGE: Final = 500
_STREAK: Final = 20  # failed runs per job that the first tick reads
_CHECKED: Final = dg.DagsterEventType.ASSET_CHECK_EVALUATION
_STEP_FAILED: Final = dg.DagsterEventType.STEP_FAILURE
_SUCCEEDED: Final = dg.DagsterEventType.RUN_SUCCESS
_FAILED: Final = dg.DagsterEventType.RUN_FAILURE


def checks_of_run(instance: dg.DagsterInstance, run_id: str) -> list[Evaluation]:
    """Return every evaluation of a check in a run, in the order in which they were made."""
    return [_of_check(entry) for entry in _of_run(instance, run_id, {_CHECKED})]


def end_of_run(instance: dg.DagsterInstance, run_id: str) -> list[Evaluation]:
    """Return what the end of a run says of its job; [] as long as it goes on, and if it was canceled."""
    return [_of_end(instance, entry) for entry in _of_run(instance, run_id, {_SUCCEEDED, _FAILED})]


def home_of(run: dg.DagsterRun | None, default: Path) -> Path | None:
    """Return the home that a run writes to, `default` if the run does not say; None if the directory no longer exists."""
    tag = run.tags.get(HOME) if run is not None else None
    home = Path(tag) if tag else default
    return home if tag is None or home.is_dir() else None


def newest_event(instance: dg.DagsterInstance) -> int:
    """Return the storage id of the newest event in the index that all runs share; -1 if there is none."""
    return instance.event_log_storage.get_maximum_record_id() or -1


def between(instance: dg.DagsterInstance, after: int | None, last: int, default: Path) -> Mapping[Path, list[Evaluation]]:
    """Return evaluations from events with storage ids in (after, last], by home, also of runs that still go on.

    If `after` is None (the first tick), past problems are left out: of each check and job, only the last evaluation that passed
    and those after it are returned.
    """
    checked = _new(instance, _CHECKED, after, last)
    ended = [entry for kind in (_SUCCEEDED, _FAILED) for entry in _new(instance, kind, after, last)]
    if after is None:
        ended = _since_passed(sorted(ended, key=lambda entry: entry.timestamp))
    homes = _homes(instance, {entry.run_id for entry in (*checked, *ended)}, default)
    found: dict[Path, list[Evaluation]] = defaultdict(list)
    for entry in checked:
        home = homes[entry.run_id]
        if home is not None:
            found[home].append(_of_check(entry))
    if after is None:
        found = defaultdict(list, {home: _last_streaks(evaluations) for home, evaluations in found.items()})
    for entry in ended:
        home = homes[entry.run_id]
        if home is not None:
            found[home].append(_of_end(instance, entry))
    return found


def run_path(run_id: str) -> str:
    """Return where the UI shows a run."""
    return f"/runs/{run_id}"


def _new(instance: dg.DagsterInstance, kind: dg.DagsterEventType, after: int | None, last: int) -> list[dg.EventLogEntry]:
    """Return the entries of one kind in (after, last], up to the first that can't be read.

    The sensors at the end of that run see the rest.
    """
    entries: list[dg.EventLogEntry] = []
    cursor = -1 if after is None else after
    while True:
        page = instance.event_log_storage.get_logs_for_all_runs_by_log_id(cursor, kind, _PAGE)
        entries += [entry for number, entry in page.items() if number <= last]
        cursor = max(page, default=last)
        if len(page) < _PAGE or cursor >= last:
            return entries


def _of_run(instance: dg.DagsterInstance, run_id: str, kinds: set[dg.DagsterEventType]) -> Iterator[dg.EventLogEntry]:
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=kinds, limit=_PAGE)
        yield from (record.event_log_entry for record in page.records)
        if not page.has_more:
            return
        cursor = page.cursor


def _homes(instance: dg.DagsterInstance, run_ids: set[str], default: Path) -> Mapping[str, Path | None]:
    runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=sorted(run_ids)))} if run_ids else {}
    return {run_id: home_of(runs.get(run_id), default) for run_id in run_ids}


def _last_streaks(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return, for each scope, the last evaluation that passed and those after it."""
    scopes: dict[tuple[str, str], list[Evaluation]] = defaultdict(list)
    for evaluation in sorted(evaluations, key=lambda one: one.look):
        if not evaluation.problems:
            scopes[evaluation.scope].clear()
        scopes[evaluation.scope].append(evaluation)
    return [evaluation for streak in scopes.values() for evaluation in streak]


def _since_passed(entries: Iterable[dg.EventLogEntry]) -> list[dg.EventLogEntry]:
    """Return, for each job, the last success and the newest failures after it."""
    jobs: dict[str | None, list[dg.EventLogEntry]] = defaultdict(list)
    for entry in entries:
        if entry.dagster_event_type is _SUCCEEDED:
            jobs[entry.job_name].clear()
        jobs[entry.job_name].append(entry)
    return [entry for streak in jobs.values() for entry in streak[-_STREAK:]]


def _of_check(entry: dg.EventLogEntry) -> Evaluation:
    event = entry.get_dagster_event().asset_check_evaluation_data
    asset = event.asset_key.to_user_string()
    path = "/".join(quote(part, safe="") for part in event.asset_key.path)
    said = {name: value.value for name, value in event.metadata.items()}
    return Evaluation(
        asset,
        event.check_name,
        _time(entry),
        () if event.passed else tuple(_problems(asset, event.check_name, event.description or "", said)),
        event.severity.value,
        event.description or "",
        entry.run_id,
        f"/assets/{path}?view=checks&checkDetail={quote(event.check_name, safe='')}",
    )


def _problems(asset: str, check: str, description: str, said: Mapping[str, Any]) -> Iterator[Problem]:
    names = _texts(said.get("problems")) or (check,)
    runs = said.get("runs")
    for name in names:
        own = runs.get(name) if isinstance(runs, Mapping) else runs if len(names) == 1 else None
        named, more = _runs(own)
        text = _part(description, name)
        if not text:  # a description that lists problems leaves out those past its limit
            listed = any(_part(description, other) for other in names)
            text = f"{name}: one of {len(names)} problems that this check found" if listed else description
        yield Problem(name, text, _system_of(asset, name, said.get("system")), named, more)


def _part(description: str, problem: str) -> str:
    """Return the parts of a description, between semicolons, that name the problem."""
    named = re.compile(rf"(?<![\w.]){re.escape(problem)}(?![\w.]*\w)")
    return "; ".join(part for part in description.split("; ") if named.search(part))


def _runs(named: object) -> tuple[tuple[str, ...], int]:
    """Return training runs and how many more there are, from a list or from a text such as `a, b, c and 9 more`."""
    if not isinstance(named, str):
        return _texts(named), 0
    text, _, more = named.partition(" and ")
    count = re.fullmatch(r"(\d+) more", more)
    return tuple((text if count else named).split(", ")), int(count[1]) if count else 0


def _texts(value: object) -> tuple[str, ...]:
    """Return the texts in a list, each once; () of anything else, such as a number of runs."""
    return tuple(dict.fromkeys(map(str, value))) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _system_of(asset: str, problem: str, said: object) -> str:
    """Return the system that sends a feature key, else that of the check or of the contract table; "" if it is our own."""
    schema = asset.partition("/")[0]
    return _system_of_keys().get(problem.partition(" ")[0]) or str(said or (schema if schema in _upstream() else ""))


@lru_cache
def _system_of_keys() -> Mapping[str, str]:
    return {group.key(feature): feature.system for group in GROUPS for feature in group.features}


@lru_cache
def _upstream() -> frozenset[str]:
    return frozenset(folder.system for folder in FOLDERS.values())


def _of_end(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> Evaluation:
    """Return the evaluation of a run's end: success resolves the job's open problems, failure adds what no check reported."""
    job = entry.get_dagster_event().job_name or "?"
    failed = entry.dagster_event_type is _FAILED
    problems = tuple(_failures(instance, entry, job)) if failed else ()
    return Evaluation(RUNS, job, _time(entry), problems, run_id=entry.run_id, path=run_path(entry.run_id), complete=not failed)


def _failures(instance: dg.DagsterInstance, entry: dg.EventLogEntry, job: str) -> Iterator[Problem]:
    """Yield a problem for each failed step that no failed ERROR check explains; if no step failed, the run itself."""
    entries = [*_of_run(instance, entry.run_id, {_CHECKED, _STEP_FAILED})]
    explained = {one.step_key for one in entries if one.dagster_event_type is _CHECKED and _is_failed_error(one)}
    steps = [one for one in entries if one.dagster_event_type is _STEP_FAILED]
    for step in steps:
        error = step.get_dagster_event().step_failure_data.error
        if step.step_key in explained or (error is not None and error.cls_name == DagsterAssetCheckFailedError.__name__):
            continue
        while error is not None and error.cause is not None:
            error = error.cause
        name = (error.cls_name if error is not None else None) or "error"
        text = error.message if error is not None else "it failed without an error"
        yield Problem(f"{job}, step {step.step_key}: {name}", text)
    if not steps:
        yield _whole_run(entry, job)


def _whole_run(entry: dg.EventLogEntry, job: str) -> Problem:
    """Return a run that ended without a failed step: killed, stuck, or failed before its first step."""
    event = entry.get_dagster_event()
    data = event.event_specific_data
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    message = event.message or "The run failed."
    if error is not None:
        return Problem(f"{job}: {error.cls_name or 'error'}", error.message)
    return Problem(f"{job}: {'stuck' if ' is stuck: ' in message else 'ended from outside'}", message)


def _is_failed_error(entry: dg.EventLogEntry) -> bool:
    data = entry.get_dagster_event().asset_check_evaluation_data
    return not data.passed and data.severity is dg.AssetCheckSeverity.ERROR


def _time(entry: dg.EventLogEntry) -> datetime:
    return datetime.fromtimestamp(entry.timestamp, UTC)
