"""Quarantine refused messages of Oona: keep them with their reasons, and report each reason while such messages keep coming.

`<home>/quarantine/oona/<day>.ndjson` holds the messages; `<home>/quarantine/oona.json` holds, for each reason, the count and
the newest message. Alerts read only the latter, whose size does not grow with the messages.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

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
        before = counts.get(record["reason"])
        told = {name: record[name] for name in ("stream", "entry", "found")}
        counts[record["reason"]] = {"at": at, "total": (before["total"] if before else 0) + 1, **told}
    publish_file(home / COUNTS, (json.dumps(counts, sort_keys=True) + "\n").encode("ascii"))


def look(home: Path, now: datetime) -> Evaluation:
    """Return, as one problem each, the reasons for which messages were refused within the last hour."""
    problems = []
    try:
        for reason, newest in sorted(_newest(home).items()):
            if now - datetime.fromisoformat(newest["at"]) < QUIET_FOR:
                last = f"the newest, {newest['entry']} of {newest['stream']}: {newest['found']}"
                problems.append(Problem(reason, f"{newest['total']} messages so far; {last}. They are in {home / FOLDER}."))
    except StorageError as damage:
        problems = [Problem(_DAMAGED, str(damage))]
    return Evaluation(ASSET, CHECK, now, tuple(problems), "ERROR", standing=True)


def _newest(home: Path) -> dict[str, Any]:
    """Return the count and newest message of each reason; {} if nothing was ever refused. Raises StorageError if damaged."""
    path = home / COUNTS
    if not path.exists():
        return {}
    found = read_object(path, StorageError)
    for reason, newest in found.items():
        try:
            datetime.fromisoformat(newest["at"]).astimezone(UTC)  # type: ignore[index]
            _ = newest["total"] + 1, newest["stream"], newest["entry"], newest["found"]  # type: ignore[index]
        except (KeyError, TypeError, ValueError) as damage:
            raise StorageError(f"{path}: {reason}: expected at, total, stream, entry and found, found {damage!r}") from None
    return found
