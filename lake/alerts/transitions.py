"""Decide which records an evaluation, the clock or an operator adds to a book. Nothing is written here.

The newest evaluation of a scope, by the time at which it was made, decides. Evaluations may arrive in any order: one that is
older than what is known, or is seen again, changes nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from lake.alerts import wording
from lake.alerts.book import (
    LISTED,
    OPEN,
    OPERATOR,
    REMINDED,
    RESOLVED,
    Alert,
    Book,
    Evaluation,
    Message,
    Problem,
    identity,
    iso,
    recorded,
    with_run,
)

REMIND_AFTER: Final = timedelta(days=1)
OVERDUE: Final = timedelta(hours=1)
_AHEAD: Final = timedelta(minutes=1)  # a time further in the future means that the clock was set back since

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the messages of an outbox come from, as they say it."""

    home: str
    ui_url: str = wording.UI_URL


def is_news(book: Book, evaluation: Evaluation, now: datetime) -> bool:
    """Return whether an evaluation is newer than what is known of its scope."""
    looks = book.looks.get(evaluation.scope, ())
    if evaluation.look in looks:
        return False
    # a look in the future means that the clock was set back: it must not hide newer looks
    return not looks or evaluation.look > looks[-1] or datetime.fromisoformat(looks[-1][0]) > now + _AHEAD


def observe(book: Book, evaluation: Evaluation, place: Place, now: datetime) -> list[Record]:
    """Return the records that follow from an evaluation that is news."""
    failing = {alert.problem: alert for alert in book.failing() if alert.scope == evaluation.scope}
    records: list[Record] = []
    held = {problem.name: problem for problem in evaluation.problems}
    for name, problem in held.items():
        known = failing.get(name)
        alert = _seen(known or _opened(evaluation, name, now), problem, evaluation)
        if known is None:
            records.append(_said("opened", alert, evaluation.look, place, now))
        elif (replace(alert, what=known.what) if evaluation.standing else alert) != known:
            records.append({"event": "still", "at": iso(now), "alert": recorded(alert)})
    if evaluation.complete:
        for name, alert in failing.items():
            if name not in held:
                gone = replace(alert, state=RESOLVED, said=iso(now), run_id=evaluation.run_id or alert.run_id)
                records.append(_said("resolved", gone, evaluation.look, place, now))
    return records


def seen(*evaluations: Evaluation, now: datetime) -> Record:
    """Return the record that marks these evaluations as known."""
    return {"event": "seen", "at": iso(now), "looks": [[*one.scope, *one.look] for one in evaluations]}


def by_the_clock(book: Book, place: Place, now: datetime) -> Iterator[Record]:
    """Yield the reminders that are due: a day after the last message was delivered, unless the alert is acknowledged."""
    waiting = {message.alert_id for message in book.undelivered()}
    for alert in book.failing():
        if alert.alert_id in waiting or alert.acknowledged is not None:
            continue
        said = datetime.fromisoformat(alert.said)
        if said > now + _AHEAD:
            # the clock was set back: else the next reminder would wait until it shows that time again
            yield {"event": "still", "at": iso(now), "alert": recorded(replace(alert, said=iso(now)))}
        elif now - said >= REMIND_AFTER:
            again = replace(alert, state=REMINDED, said=iso(now))
            yield _said("reminded", again, (iso(now), ""), place, now)


def acknowledge(alert: Alert, reason: str, now: datetime) -> Record:
    """Return the record that silences the reminders of an alert until it is resolved."""
    return {"event": "acknowledged", "at": iso(now), "alert": recorded(replace(alert, acknowledged=reason))}


def overdue(book: Book, now: datetime) -> list[Message]:
    """Return the messages that have waited for over an hour, oldest first, and those dated in the future (clock set back)."""
    waited = ((message, now - datetime.fromisoformat(message.at)) for message in book.undelivered())
    return [message for message, time in waited if time > OVERDUE or time < -_AHEAD]


def _opened(evaluation: Evaluation, problem: str, now: datetime) -> Alert:
    alert_id = identity(evaluation.asset, evaluation.check, problem)
    return Alert(
        alert_id, evaluation.asset, evaluation.check, problem, evaluation.severity, "", iso(evaluation.at), iso(now), state=OPEN
    )


def _seen(alert: Alert, problem: Problem, evaluation: Evaluation) -> Alert:
    """Return the alert, updated with what an evaluation says about its problem."""
    found = replace(
        alert,
        severity=evaluation.severity,
        what=problem.text or evaluation.description,
        system=problem.system or OPERATOR,
        path=evaluation.path,
    )
    if problem.runs:
        runs, count = problem.runs[:LISTED], len(problem.runs) + problem.more_runs
        return replace(found, run_id=evaluation.run_id, runs=runs, run_count=count, runs_are="training")
    if found.runs_are == "training":
        found = replace(found, runs=(), run_count=0, runs_are="pipeline", run_id="")
    return with_run(found, evaluation.run_id)


def _said(event: str, alert: Alert, look: tuple[str, str], place: Place, now: datetime) -> Record:
    """Return the record of a transition: the alert as it is now, and the message about it.

    The message's id is deterministic, and unique among all transitions of all homes.
    """
    told = json.dumps([place.home, alert.alert_id, alert.since, alert.state, *look])
    message_id = hashlib.sha256(told.encode()).hexdigest()[:32]
    body = wording.payload(alert, message_id, home=place.home, ui_url=place.ui_url, now=now)
    message = Message(message_id, alert.alert_id, alert.state, iso(now), body)
    return {"event": event, "at": iso(now), "alert": recorded(alert), "message": recorded(message)}
