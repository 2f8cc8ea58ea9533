"""Report check results: problems under lasting names, with the system to ask, the runs, and since when.

Alerts tell problems apart by (asset, check, name): a name holds no run, no count and no figure. These stand in the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

PROBLEMS: Final = "problems"
SYSTEM: Final = "system"
RUNS: Final = "runs"
SINCE: Final = "since"
_LISTED: Final = 100  # names in the metadata
_TOLD: Final = 10  # texts in the description
_RUNS_NAMED: Final = 3


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `systems`: whom to ask; `runs`: training runs concerned; `since_ns`: ns since 1970 UTC."""

    name: str
    text: str
    systems: Sequence[str] = ()
    runs: Sequence[str] = ()
    since_ns: int | None = None


def check_result(
    problems: Sequence[Problem],
    sound: str,
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    check: dg.AssetCheckKey | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Return the result of a check: passed if there are no problems, then described as `sound`.

    `check` names the check if the step has several. Names of problems are unique, and their texts hold no semicolon. The
    metadata `runs` is a text if there is one problem, else a mapping from the name of each problem to its text.
    """
    found: dict[str, Any] = {PROBLEMS: [*dict.fromkeys(problem.name for problem in problems)][:_LISTED]}
    systems = dict.fromkeys(system for problem in problems for system in problem.systems)
    since = min((problem.since_ns for problem in problems if problem.since_ns is not None), default=None)
    found |= {SYSTEM: ", ".join(systems)} if systems else {}
    runs = {problem.name: named_runs(problem.runs) for problem in problems[:_LISTED] if problem.runs}
    found |= {RUNS: runs[problems[0].name] if len(problems) == 1 else runs} if runs else {}
    found |= {SINCE: time_of(since)} if since is not None else {}
    more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    return dg.AssetCheckResult(
        asset_key=check.asset_key if check is not None else None,
        check_name=check.name if check is not None else None,
        passed=not problems,
        severity=severity,
        description="; ".join(problem.text for problem in problems[:_TOLD]) + more if problems else sound,
        metadata=found | dict(metadata or {}),
    )


def named_runs(runs: Sequence[str]) -> str:
    """Return the first runs by name, and how many there are."""
    more = f" and {len(runs) - _RUNS_NAMED} more" if len(runs) > _RUNS_NAMED else ""
    return ", ".join(runs[:_RUNS_NAMED]) + more


def counted_runs(runs: Sequence[str]) -> str:
    """Return how many runs there are, with the first by name: `1 run (a)`, `7 runs (a, b, c and 4 more)`."""
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''} ({named_runs(runs)})"


def time_of(nanoseconds: int) -> str:
    """Return a time in ns since 1970 as UTC in ISO 8601, to the second."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds")
