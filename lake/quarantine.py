"""Quarantine refused messages of Oona: keep them with their reasons, and report each reason while such messages keep coming.

`<home>/quarantine/oona/<day>.ndjson` holds the messages; `<home>/quarantine/oona.json` holds, for each reason, the count and
the newest message. Alerts read only the latter, whose size does not grow with the messages.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lake.alerts.book import Evaluation, Problem, iso
from lake.durable.journal import Journal
from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from schemas.errors import StorageError

FOLDER: Final = Path("quarantine") / "oona"
COUNTS: Final = Path("quarantine") / "oona.json"
ASSET: Final = "oona"
CHECK: Final = "quarantine"
QUIET_FOR: Final = timedelta(hours=1)  # an alert ends after this time without another message of its reason
_DAMAGED: Final = "oona.json is damaged"


class _Newest(BaseModel):
    """How many messages were refused for one reason, and the newest of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: AwareDatetime
    total: int = Field(ge=1)
    stream: str
    entry: str
    found: str


def keep(home: Path, records: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Append refused messages (`stream`, `entry`, `reason`, `found`, what was sent) and count them; durable on return.

    Only one writer may call this at a time.
    """
    folder, at = home / FOLDER, iso(now)
    Journal(folder / f"{now.astimezone(UTC):%Y-%m-%d}.ndjson").append([{"at": at, **record} for record in records])
    try:
        counts = _newest(home)
    except StorageError:
        counts = {}  # the messages themselves are kept; only the counts begin anew
    for record in records:
        before, reason = counts.get(record["reason"]), record["reason"]
        told = {name: record[name] for name in ("stream", "entry", "found")}
        counts[reason] = _Newest(at=now, total=(before.total if before else 0) + 1, **told)
    written = {reason: newest.model_dump(mode="json") for reason, newest in counts.items()}
    publish_file(home / COUNTS, (json.dumps(written, sort_keys=True) + "\n").encode("ascii"))


def look(home: Path, now: datetime) -> Evaluation:
    """Return, as one problem each, the reasons for which messages were refused within the last hour."""
    problems = []
    try:
        for reason, newest in sorted(_newest(home).items()):
            if now - newest.at < QUIET_FOR:
                last = f"the newest, {newest.entry} of {newest.stream}: {newest.found}"
                problems.append(Problem(reason, f"{newest.total} messages so far; {last}. They are in {home / FOLDER}."))
    except StorageError as damage:
        problems = [Problem(_DAMAGED, str(damage))]
    return Evaluation(ASSET, CHECK, now, tuple(problems), "ERROR", standing=True)


def _newest(home: Path) -> dict[str, "_Newest"]:
    """Return the count and newest message of each reason; {} if nothing was ever refused. Raises StorageError if damaged."""
    path = home / COUNTS
    if not path.exists():
        return {}
    found = read_object(path, StorageError)
    try:
        return {reason: _Newest.model_validate(newest) for reason, newest in found.items()}
    except ValidationError as damage:
        first = damage.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StorageError(
            f"{path}: expected at, total, stream, entry and found of each reason, found {place}: {first['msg']}"
        ) from None
