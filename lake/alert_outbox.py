"""Keep the outbox of alerts `$TAMIYO_HOME/alerts.ndjson`: each transition is written and fsynced before it is posted.

The file is append-only until it has grown long. Then what still matters is written to a new file, and the rest (alerts resolved
long ago, delivered messages) moves to `alerts.history.ndjson`, so that the cost of reading stays bounded. A message is posted
until the webhook takes it, with the same `Idempotency-Key` each time: a crash between a post and its record repeats the message
but never loses it. Files of the earlier format, with one alert per run and check, can still be read.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from lake.alerts import wording
from lake.alerts.book import RESOLVED, Alert, Book, Evaluation, Message, Problem, iso, recorded
from lake.alerts.posting import Fault, address, is_due, post
from lake.alerts.transitions import Place, Record, acknowledge, by_the_clock, is_news, observe, seen
from lake.durable.journal import Journal
from lake.durable.publish import lock, publish_file, sweep
from schemas.errors import StorageError

OUTBOX: Final = "alerts.ndjson"
HISTORY: Final = "alerts.history.ndjson"
_LONG: Final = 256 << 10  # bytes; a longer file is worth rewriting
_KEPT_FOR: Final = timedelta(days=30)
_ROUND_SECONDS: Final = 20.0  # a sensor's tick may take 60


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Delivery:
    """Counts of one delivery round, and why it ended early: the fault of the webhook, if there was one."""

    delivered: int
    pending: int
    fault: str | None = None


@dataclass(frozen=True)
class AlertOutbox:
    """The alerts of a home. `webhook`: an http(s) URL; None keeps messages until there is one. `clock` gives aware times."""

    home: Path
    webhook: str | None
    ui_url: str = wording.UI_URL
    clock: Callable[[], datetime] = field(default=_clock, repr=False)

    @property
    def path(self) -> Path:
        """The file."""
        return self.home / OUTBOX

    def of(self, home: Path) -> "AlertOutbox":
        """Return the outbox of another home, with the same webhook."""
        return replace(self, home=home)

    def read(self) -> Book:
        """Return all alerts and messages as they are now; leave out damaged lines (see `damage`)."""
        journal = self._journal()
        book = Book()
        for record in journal.readable():
            try:
                book.add(record)
            except (KeyError, TypeError, ValueError):
                continue
        return book

    def damage(self) -> str | None:
        """Return what is wrong with the file; None if every line can be read."""
        try:
            Book.of(self._journal().read())
        except StorageError as error:
            return str(error)
        except (KeyError, TypeError, ValueError) as error:
            return f"{self.path}: expected lines of an outbox of alerts, found one without {error}; remove that line"
        return None

    def observe(self, evaluations: Iterable[Evaluation]) -> int:
        """Record what evaluations change; return how many alerts were opened or resolved.

        The order of the evaluations does not matter, and repeated ones change nothing.
        """
        ordered = sorted(evaluations, key=lambda one: one.look)
        if not self._changes(self.read(), ordered):
            return 0  # most evaluations change nothing, which needs no lock
        with self._locked():
            records = self._changes(self.read(), ordered)
            self._journal().append(records)
        return sum("message" in record for record in records)

    def report(self, asset: str, check: str, problems: Iterable[Problem], *, severity: str = "ERROR", path: str = "") -> int:
        """Record which problems of a scope hold at this moment; return how many alerts were opened or resolved.

        For problems that no asset check reports. Call it at each look with all problems that hold: new ones open alerts, those
        that are gone are resolved, and unchanged ones are not written again. A text that changes between looks, such as one
        with the age of something, stays as it was when the problem appeared.
        """
        found = Evaluation(asset, check, self.clock(), tuple(problems), severity, path=path, standing=True)
        return self.observe([found])

    def acknowledge(self, alert_id: str, reason: str) -> Alert:
        """Silence the reminders of an alert until it is resolved. Raises KeyError if the alert is unknown or resolved."""
        with self._locked():
            alert = self.read().alerts[alert_id]
            if alert.state == RESOLVED:
                raise KeyError(alert_id)
            self._journal().append([acknowledge(alert, reason, self.clock())])
        return replace(alert, acknowledged=reason)

    def deliver(self) -> Delivery:
        """Write the reminders that are due, post every message that is due, oldest first, and note each answer.

        If the webhook does not answer or takes no message, all messages wait; if it refuses one message, only those of that
        alert wait. Two processes never post at the same time.
        """
        if not self.path.exists():
            return Delivery(0, 0)
        with lock(self.path.with_name(".alerts-delivery.lock")):
            with self._locked():
                self._shorten()
                book = self.read()
                self._append(book, [*by_the_clock(book, self._place(), self.clock())])
            waiting = book.undelivered()
            fault = self._post(book, waiting, self.webhook) if self.webhook is not None else None
        left = len(book.undelivered())
        return Delivery(len(waiting) - left, left, fault)

    def test(self) -> Fault | None:
        """Post a message that is not an alert; return why it failed. Raises ValueError without a webhook."""
        if self.webhook is None:
            raise ValueError("no webhook")
        message_id = secrets.token_hex(16)
        body = wording.trial_payload(message_id, home=str(self.home), ui_url=self.ui_url, now=self.clock())
        return post(self.webhook, body, message_id)

    def _post(self, book: Book, waiting: Iterable[Message], webhook: str) -> str | None:
        """Post what is due; return the fault that ended the round, if any."""
        held: set[str] = set()
        ends = time.monotonic() + _ROUND_SECONDS
        for message in waiting:
            if message.alert_id in held:
                continue
            if not is_due(message, webhook, self.clock()):
                if not message.refused:
                    return message.error
                held.add(message.alert_id)
                continue
            fault = post(webhook, message.payload, message.message_id)
            note: dict[str, Any] = {"at": iso(self.clock()), "message_id": message.message_id}
            if fault is None:
                note |= {"event": "delivered"}
            else:
                note |= {"event": "failed", "error": fault.reason, "refused": fault.refused, "to": address(webhook)}
            with self._locked():
                self._append(book, [note])
            if fault is not None and not fault.refused:
                return fault.reason
            if fault is not None:
                held.add(message.alert_id)
            if time.monotonic() > ends:
                return None
        return None

    def _changes(self, book: Book, evaluations: list[Evaluation]) -> list[Record]:
        """Return the records that follow from evaluations, and apply them to the book.

        The record of each look comes after its own changes and before those of the next look. If a crash tears the write, the
        same evaluations give exactly the lost records again.
        """
        now = self.clock()
        records: list[Record] = []
        known: list[Evaluation] = []
        for evaluation in evaluations:
            if not is_news(book, evaluation, now):
                continue
            found = observe(book, evaluation, self._place(), now)
            if found and known:
                records.append(seen(*known, now=now))
                known = []
            if found or not evaluation.standing:
                known.append(evaluation)
                book.add(seen(evaluation, now=now))
            for record in found:
                book.add(record)
            records += found
        return [*records, seen(*known, now=now)] if known else records

    def _append(self, book: Book, records: list[Record]) -> None:
        self._journal().append(records)
        for record in records:
            book.add(record)

    def _shorten(self) -> None:
        """Rewrite a long file without what is over, which is appended to the history first (a crash may repeat it there).

        The caller holds the lock.
        """
        size = self.path.stat().st_size
        if size <= _LONG:
            return
        if size <= 2 * self._needed_bytes():
            return  # too much of it still matters
        book = self.read()
        kept, over = _split(book, iso(self.clock() - _KEPT_FOR))
        sweep(self.home, OUTBOX)
        Journal(self.home / HISTORY).append({"event": "over", **record} for record in over)
        looks = [[*scope, *look] for scope, scope_looks in book.looks.items() for look in scope_looks]
        lines = [{"event": "kept", **record} for record in kept] + [{"event": "seen", "looks": looks}]
        data = "".join(json.dumps(line, default=str) + "\n" for line in lines)
        head = json.dumps({"event": "compacted", "at": iso(self.clock()), "bytes": len(data)}) + "\n"
        publish_file(self.path, (head + data).encode("ascii"))

    def _needed_bytes(self) -> int:
        """Return the size in bytes of the file when it was last rewritten; 0 if it never was."""
        with self.path.open("rb") as file:
            try:
                return int(json.loads(file.readline())["bytes"])
            except (KeyError, TypeError, ValueError):
                return 0

    def _journal(self) -> Journal:
        return Journal(self.path)

    def _locked(self) -> AbstractContextManager[None]:
        return lock(self.path.with_name(".alerts.lock"))

    def _place(self) -> Place:
        return Place(str(self.home), self.ui_url)


def history(home: Path) -> list[Alert]:
    """Return the alerts that have moved from the outbox to the history, each once, oldest first."""
    found = {(alert.alert_id, alert.since): alert for alert in Book.histories(Journal(home / HISTORY).readable())}
    return list(found.values())


def _split(book: Book, oldest: str) -> tuple[list[Record], list[Record]]:
    """Split a book's records into those still needed and the rest: alerts resolved before `oldest`, superseded messages."""
    waiting = {message.alert_id for message in book.undelivered()}
    last = {message.alert_id: message.message_id for message in book.messages.values()}
    over = {i for i, a in book.alerts.items() if a.state == RESOLVED and a.said < oldest and i not in waiting}
    kept: list[Record] = []
    gone: list[Record] = []
    for alert_id, alert in book.alerts.items():
        (gone if alert_id in over else kept).append({"alert": recorded(alert)})
    for message_id, message in book.messages.items():
        needed = message.delivered is None or (last[message.alert_id] == message_id and message.alert_id not in over)
        (kept if needed else gone).append({"message": recorded(message)})
    return kept, gone
