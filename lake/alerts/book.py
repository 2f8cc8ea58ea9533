"""Keep the book of alerts: read evaluations, and fold the records of the outbox into alerts and messages.

An alert is a problem in a scope; a scope is an asset and a check. Times are ISO 8601 texts in UTC with microseconds, so that
they sort as texts.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

OPEN: Final = "open"
REMINDED: Final = "reminded"
RESOLVED: Final = "resolved"
OPERATOR: Final = "tamiyo-assets"  # whom to ask if no upstream system is responsible
LISTED: Final = 20  # runs that an alert names; the others are counted
_REMEMBERED: Final = 4  # evaluations of a scope that are recognized if seen again

Scope = tuple[str, str]  # asset, check
Look = tuple[str, str]  # when a scope was evaluated, and by which run


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a scope. `name` is its identity and holds no figures; `text` has details and figures.

    `system`: the upstream system to ask, "" for the operator of the pipeline. `runs`: the training runs with the problem, or
    the first of them and how many more there are.
    """

    name: str
    text: str = ""
    system: str = ""
    runs: tuple[str, ...] = ()
    more_runs: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The result of one look at a scope: every problem that holds, or with `complete=False` only some new ones.

    `at`: when, with a time zone. `run_id`: the pipeline run that looked. `path`: where the UI shows the scope. `standing`: the
    scope is looked at all the time, so that a look without changes is not recorded.
    """

    asset: str
    check: str
    at: datetime
    problems: tuple[Problem, ...] = ()
    severity: str = "ERROR"
    description: str = ""
    run_id: str = ""
    path: str = ""
    complete: bool = True
    standing: bool = False

    @property
    def scope(self) -> Scope:
        """The asset and the check."""
        return self.asset, self.check

    @property
    def look(self) -> Look:
        """The identity of this evaluation within its scope; it sorts by time."""
        return iso(self.at), self.run_id


@dataclass(frozen=True)
class Alert:
    """A problem as it stands: `state` is open, reminded or resolved; `said` is when its last message was delivered or written.

    `runs` holds the first runs of `run_count`; `runs_are` is "training", or "pipeline" if no training run was named.
    `acknowledged` is the reason that an operator gave for silencing the reminders; None if nobody did.
    """

    alert_id: str
    asset: str
    check: str
    problem: str
    severity: str
    what: str
    since: str
    said: str
    state: str = OPEN
    system: str = OPERATOR
    runs: tuple[str, ...] = ()
    run_count: int = 0
    runs_are: str = "pipeline"
    run_id: str = ""
    path: str = ""
    acknowledged: str | None = None

    @property
    def scope(self) -> Scope:
        """The asset and the check."""
        return self.asset, self.check


@dataclass(frozen=True)
class Message:
    """The message of one transition: `payload` is the body to post, `delivered` is when the webhook took it.

    `refused`: the webhook refused this body at the last attempt. `to` names the address of that attempt.
    """

    message_id: str
    alert_id: str
    state: str
    at: str
    payload: Mapping[str, Any]
    attempts: int = 0
    tried: str | None = None
    error: str | None = None
    refused: bool = False
    to: str = ""
    delivered: str | None = None


@dataclass
class Book:
    """All alerts and messages by id, in order of arrival, and the newest looks at each scope, oldest first."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    looks: dict[Scope, tuple[Look, ...]] = field(default_factory=dict)
    _older_ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> "Book":
        """Build the book from the records of an outbox. Raises KeyError or TypeError for a record of another format."""
        book = cls()
        for record in records:
            book.add(record)
        return book

    def add(self, record: Mapping[str, Any]) -> None:
        """Apply one record of the outbox to the book."""
        match record["event"]:
            case "queued" | "unaddressed":
                self._add_older(record)
            case "delivered" | "failed":
                self._attempted(record)
            case "seen":
                for asset, check, at, run_id in record["looks"]:
                    known = self.looks.get((asset, check), ())
                    self.looks[asset, check] = (*known, (at, run_id))[-_REMEMBERED:]
            case _:
                if "alert" in record:
                    alert = _loaded(Alert, record["alert"])
                    self.alerts[alert.alert_id] = replace(alert, runs=tuple(alert.runs))
                if "message" in record:
                    message = _loaded(Message, record["message"])
                    self.messages[message.message_id] = message

    @staticmethod
    def histories(records: Iterable[Mapping[str, Any]]) -> Iterator[Alert]:
        """Yield the alerts in the records of a history file."""
        for record in records:
            if "alert" in record:
                yield _loaded(Alert, record["alert"])

    def undelivered(self) -> list[Message]:
        """Return the messages that no webhook has taken yet, oldest first."""
        return [message for message in self.messages.values() if message.delivered is None]

    def last_message(self, alert_id: str) -> Message | None:
        """Return the newest message of an alert."""
        return next((message for message in reversed(self.messages.values()) if message.alert_id == alert_id), None)

    def failing(self) -> list[Alert]:
        """Return the alerts that are not resolved."""
        return [alert for alert in self.alerts.values() if alert.state != RESOLVED]

    def _attempted(self, record: Mapping[str, Any]) -> None:
        older = record.get("alert", {}).get("alert_id")
        message = self.messages.get(self._older_ids.get(older, "") if older else record["message_id"])
        if message is None:
            return
        attempts, at = message.attempts + 1, record["at"]
        if record["event"] == "failed":
            to, refused = record.get("to", ""), record.get("refused", False)
            tried = replace(message, attempts=attempts, tried=at, error=record["error"], refused=refused, to=to)
            self.messages[message.message_id] = tried
            return
        self.messages[message.message_id] = replace(
            message, attempts=attempts, tried=at, error=None, refused=False, delivered=message.delivered or at
        )
        alert = self.alerts.get(message.alert_id)
        if alert is not None:
            self.alerts[alert.alert_id] = replace(alert, said=max(alert.said, at))

    def _add_older(self, record: Mapping[str, Any]) -> None:
        """Add an alert of the earlier format, whose identity held the run: all alerts of a check become one problem."""
        older = record["alert"]
        alert_id = identity(older["asset"], older["check"], older["check"])
        known = self.alerts.get(alert_id)
        at = iso(datetime.fromisoformat(record["at"]))
        if known is None:
            known = Alert(
                alert_id, older["asset"], older["check"], older["check"], older["severity"], older["description"], at, at
            )
            payload = {**older, "alert_id": alert_id, "message_id": older["alert_id"], "state": OPEN, "problem": known.problem}
            payload["text"] = f"{known.severity}: {known.asset}, check {known.check}\n{known.what}"
            self.messages[older["alert_id"]] = Message(older["alert_id"], alert_id, OPEN, at, payload)
        self._older_ids[older["alert_id"]] = next(m.message_id for m in self.messages.values() if m.alert_id == alert_id)
        self.alerts[alert_id] = with_run(replace(known, what=older["description"]), older["run_id"])
        self.looks[known.scope] = (*self.looks.get(known.scope, ()), (at, older["run_id"]))[-_REMEMBERED:]


def with_run(alert: Alert, run_id: str) -> Alert:
    """Return the alert as seen by one more pipeline run; unchanged if that run also saw it last."""
    if not run_id or run_id == alert.run_id:
        return alert
    return replace(alert, run_id=run_id, runs=(*alert.runs, run_id)[:LISTED], run_count=alert.run_count + 1)


def identity(asset: str, check: str, problem: str) -> str:
    """Return the id of an alert: a digest of asset, check and problem."""
    return hashlib.sha256(json.dumps([asset, check, problem]).encode()).hexdigest()[:32]


def iso(at: datetime) -> str:
    """Return a time as the outbox writes it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def recorded(value: Alert | Message) -> dict[str, Any]:
    """Return an alert or a message as the outbox writes it."""
    return asdict(value)


def _loaded(kind: Any, values: Mapping[str, Any]) -> Any:
    """Build an alert or message from its recorded values; ignore fields that a later version added."""
    known = {each.name for each in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
