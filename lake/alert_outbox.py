"""Keep the outbox of alerts `$TAMIYO_HOME/alerts.ndjson`: each transition is written and fsynced before it is posted.

The file is append-only until it has grown long. Then what still matters is written anew, and what does not (alerts that were
resolved long ago, messages that were delivered) goes to `alerts.history.ndjson`; so reading it costs the same for ever.
A message is posted until the webhook takes it, with the same `Idempotency-Key` each time: a crash between the post and its
record repeats it, and loses none. Files of the earlier format, one alert a run and check, are read as they are.
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
_LONG: Final = 256 << 10  # bytes of a file that is worth writing anew
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
    """The alerts of a home. `webhook`: an http(s) address; None keeps messages until there is one. `clock`: with time zone."""

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
        """Return all alerts and messages as they are now; damaged lines are left out, see `damage`."""
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

        The order in which they come does not matter, nor does it how often one comes.
        """
        ordered = sorted(evaluations, key=lambda one: one.look)
        if not self._changes(self.read(), ordered):
            return 0  # what most looks find needs no lock
        with self._locked():
            records = self._changes(self.read(), ordered)
            self._journal().append(records)
        return sum("message" in record for record in records)

    def report(self, asset: str, check: str, problems: Iterable[Problem], *, severity: str = "ERROR", path: str = "") -> int:
        """Record which problems of a scope hold at this moment; return how many alerts were opened or resolved.

        For troubles that no asset check tells of. The caller calls it at each look, with all problems that hold: those that are
        new are told, those that are gone are resolved, and unchanged ones are neither reported nor written. A text that differs
        between looks, such as one with the age of something, stays as it was when the problem came up.
        """
        found = Evaluation(asset, check, self.clock(), tuple(problems), severity, path=path, standing=True)
        return self.observe([found])

    def acknowledge(self, alert_id: str, reason: str) -> Alert:
        """Silence the reminders of an alert until it is resolved. Raises KeyError if it is resolved, or there is none."""
        with self._locked():
            alert = self.read().alerts[alert_id]
            if alert.state == RESOLVED:
                raise KeyError(alert_id)
            self._journal().append([acknowledge(alert, reason, self.clock())])
        return replace(alert, acknowledged=reason)

    def deliver(self) -> Delivery:
        """Write the reminders that are due, post every message that is due, oldest first, and note each answer.

        A webhook that does not answer, or takes no message, holds up all; one that refuses a message holds up those of that
        alert. Two processes never post at the same time.
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
        """Post what is due; return the fault that ended the round, None if none did."""
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
        """Return the records that follow from evaluations; the book is brought up to date with them.

        A look is written after what followed from it, and before what follows from the next: if a crash tears the write, what
        was lost of it follows again from the same evaluations, and nothing else does.
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
        """Write a long file anew, without what is over; that is appended to the history first, where a crash may repeat it.

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
        """Return bytes that were needed when the file was last written anew; 0 if it never was."""
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
    """Return the alerts that were resolved so long ago that the outbox has them no more, each once, oldest first."""
    found = {(alert.alert_id, alert.since): alert for alert in Book.histories(Journal(home / HISTORY).readable())}
    return list(found.values())


def _split(book: Book, oldest: str) -> tuple[list[Record], list[Record]]:
    """Return what a book still needs, and what it does not: alerts resolved before `oldest`, messages that others followed."""
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
