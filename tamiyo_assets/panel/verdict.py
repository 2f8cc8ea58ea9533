"""Judge the gathered facts: what is wrong, since when, and whom to ask, worst first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from schemas.printable import shortened
from tamiyo_assets.panel.facts import OPERATOR, Gap, PanelData, Serving, Severity

Level = Literal["ERROR", "WARN", "GOOD", "YOUNG"]
# checks whose failure the panel tells in its own words, from the same tables
_TOLD_OTHERWISE: Final = frozenset({"mandatory_coverage", "graphs_have_elements", "serving", "quality_gates"})
_NAMED: Final = 3
_LONGEST: Final = 320  # most characters of the text of one problem, which is read at night
_EXPECTED_WITHIN: Final = timedelta(hours=26)  # a day between nightly refreshes, and two hours for one
_NEEDED: Final = frozenset({"layer", "activation", "parameter"})  # node types that every graph has
_FAULTS: Final = {
    "missing": "does not send",
    "no elements": "sends no element that could have",
    "placeholder": "has a placeholder instead of what has",
}
_ORDER: Final = {"ERROR": 0, "WARN": 1}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `where` is the section of the panel with its details."""

    severity: Severity
    what: str
    since: datetime | None
    ask: str
    where: str


@dataclass(frozen=True)
class Verdict:
    """The state as a whole: its level, one sentence, and every problem, worst first."""

    level: Level
    headline: str
    problems: tuple[Problem, ...]


def judge(data: PanelData) -> Verdict:
    """Judge a home."""
    found = (replace(problem, what=shortened(problem.what, _LONGEST)) for problem in _problems(data))
    problems = tuple(sorted(found, key=lambda problem: _ORDER[problem.severity]))
    if data.young and not problems:
        return Verdict("YOUNG", "Nothing has arrived in this home yet.", ())
    if not problems:
        return Verdict("GOOD", f"All is well. {_served(data)}", ())
    worst = problems[0]
    return Verdict(worst.severity, worst.what, problems)


def _served(data: PanelData) -> str:
    return f"Build {(data.serving.build_id or '')[:12]} serves."


def _problems(data: PanelData) -> Iterator[Problem]:
    for part, damage in data.unreadable.items():
        yield Problem("ERROR", f"The {part} of this home can't be read: {damage}", None, OPERATOR, "top")
    yield from _of_runs(data)
    yield from _of_gaps(data.gaps, len(data.runs))
    yield from _of_serving(data)
    silent = {f"feeds/{feed.system}" for feed in data.feeds if feed.state == "silent"}
    for alert in data.alerts:
        if alert.check not in _TOLD_OTHERWISE and alert.asset not in silent:
            what = f"{alert.text or 'It failed.'} (check {alert.check} of {alert.asset})"
            yield Problem(alert.severity, what, alert.since, alert.system, "alerts")
    for feed in data.feeds:
        if feed.state == "silent":
            yield Problem("WARN", f"{feed.system} has sent nothing new.", feed.last_seen, feed.system, "feeds")


def _of_runs(data: PanelData) -> Iterator[Problem]:
    """Yield failed steps of the newest run, checks that were never reported, and the absence of runs that were due."""
    if not data.rebuilds:
        if not data.young:
            yield Problem("WARN", "No run has reported its checks here: `tamiyo run` does.", None, OPERATOR, "rebuilds")
        return
    run = data.rebuilds[0]
    for step, error in run.failed_steps.items():
        what = f"Step {step.replace('__', '/')} failed in the newest run ({run.job} {run.run_id[:8]}): {error}"
        yield Problem("ERROR", what, run.started, OPERATOR, "rebuilds")
    ended = run.started + timedelta(seconds=run.seconds)
    if data.made_at - ended > _EXPECTED_WITHIN and not data.holds_sample:
        what = "No run has brought this home up to date for more than a day; the daemon starts one every night."
        yield Problem("WARN", what, ended, OPERATOR, "rebuilds")


def _of_gaps(gaps: Iterable[Gap], runs: int) -> Iterator[Problem]:
    """Yield one problem for all mandatory keys that one system leaves out in one way."""
    grouped: dict[tuple[str, str], list[Gap]] = {}
    for gap in gaps:
        kind = gap.reason.partition(":")[0]
        if gap.mandatory and (gap.missing or gap.key.partition(".")[0] in _NEEDED):
            grouped.setdefault((gap.system, kind), []).append(gap)
    for (system, kind), own in grouped.items():
        keys, names = [gap.key for gap in own], sorted({run for gap in own for run in gap.runs})
        which = f"{keys[0]}, a mandatory key," if len(keys) == 1 else f"{len(keys)} mandatory keys ({_listed(keys)})"
        what = f"{system} {_FAULTS.get(kind, kind)} {which} in {len(names)} of {runs} training runs: {_listed(names)}."
        yield Problem("ERROR", what, min(gap.since for gap in own), system, "gaps")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _of_serving(data: PanelData) -> Iterator[Problem]:
    serving = data.serving
    if serving.build_id is None:
        if not data.young:
            refused = f"the newest bundle, {str(serving.newest)[:12]}, was refused ({_why(serving)})"
            newest = refused if serving.newest else "no bundle was built yet"
            yield Problem("WARN", f"Nothing serves: {newest}.", serving.newest_at, OPERATOR, "serving")
        return
    if serving.newest not in (None, serving.build_id):
        what = f"The newest bundle, {str(serving.newest)[:12]}, does not serve ({_why(serving)})."
        yield Problem("WARN", what, serving.newest_at, OPERATOR, "serving")
    if serving.since is not None and data.made_at - serving.since > timedelta(days=data.max_age_days):
        days = (data.made_at - serving.since).days
        what = f"What serves is {days} days old; expected one promoted within {data.max_age_days:g} days."
        yield Problem("WARN", what, serving.since, OPERATOR, "serving")


def _why(serving: Serving) -> str:
    """Return why the newest bundle does not serve, in a few words; the section on serving has the figures."""
    failed = [gate.name for gate in serving.gates if not gate.passed]
    if not failed:
        return shortened("; ".join(serving.reasons), _LONGEST // 2)
    return f"gate {failed[0]} fails" if len(failed) == 1 else f"gates {', '.join(failed)} fail"
