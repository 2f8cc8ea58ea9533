"""Keep what only the Dagster instance knows in `$TAMIYO_HOME/operations.json`, for readers that have the home alone.

Whoever ends a run of the pipeline publishes it: states of checks, the last success of each stage, and how long runs took.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lake.durable.publish import publish_file, sweep
from lake.durable.strict_json import dump_object, read_object
from schemas.errors import StorageError
from tamiyo_assets.panel.facts import CheckState, Rebuild

STATE: Final = "operations.json"


@dataclass(frozen=True)
class State:
    """Newest check states by (asset, check), last success by stage, and the newest runs, newest first."""

    checks: tuple[CheckState, ...] = ()
    stages: Mapping[str, datetime] = field(default_factory=dict)
    rebuilds: tuple[Rebuild, ...] = ()


def read_state(home: Path) -> State:
    """Return the published state, an empty one before the first. Raises StorageError if the file is damaged."""
    path = home / STATE
    if not path.exists():
        return State()
    parsed: Any = read_object(path, StorageError)
    try:
        return State(
            checks=tuple(CheckState(**_with_times(check, "at", "since")) for check in parsed["checks"]),
            stages={str(stage): datetime.fromisoformat(at) for stage, at in parsed["stages"].items()},
            rebuilds=tuple(Rebuild(**_with_times(run, "started")) for run in parsed["rebuilds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as damage:
        raise StorageError(
            f"{path}: expected checks, stages and rebuilds, found {damage!r}; the next run writes it"
        ) from damage


def publish_state(home: Path, state: State) -> None:
    """Replace the file; the caller holds the lock of the home's writers."""
    content = {
        "checks": [_plain(asdict(check)) for check in state.checks],
        "stages": _plain(dict(state.stages)),
        "rebuilds": [_plain(asdict(run)) for run in state.rebuilds],
    }
    sweep(home, STATE)
    publish_file(home / STATE, dump_object(content))


def merged(before: Iterable[CheckState], now: Iterable[CheckState], covered: Collection[str]) -> tuple[CheckState, ...]:
    """Return the states after a run, in order of asset and check.

    `now` are those of the assets that the run could have checked (`covered`); of other assets the earlier ones stay. `since`
    of a result that is the same as before stays too.
    """
    old = {(check.asset, check.check): check for check in before}
    found = {key: check for key, check in old.items() if check.asset not in covered}
    for check in now:
        known = old.get((check.asset, check.check))
        same = known is not None and known.passed == check.passed
        found[check.asset, check.check] = replace(check, since=known.since) if known is not None and same else check
    return tuple(found[key] for key in sorted(found))


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in record.items()}


def _with_times(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: datetime.fromisoformat(value) if name in names else value for name, value in record.items()}
