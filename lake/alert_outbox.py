"""Failed checks on their way to a webhook: queued durably, posted once each.

The outbox `$TAMIYO_HOME/alerts.ndjson` is append-only and fsynced. An alert's identity is the run, the asset and the
check, so that the same evaluation seen by a sensor, by `tamiyo run`, or twice, is one alert. An alert whose post fails
stays pending and is tried again at the next occasion.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lake.durable.journal import Journal
from lake.durable.publish import lock

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Alert:
    """One failed evaluation of one asset check."""

    run_id: str
    asset: str
    check: str
    severity: str
    description: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def alert_id(self) -> str:
        """Identity of the evaluation: the webhook's receiver may use it to recognise a repeat."""
        return hashlib.sha256(json.dumps([self.run_id, self.asset, self.check]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """What the outbox knows of one alert: `status` is pending, delivered, or unaddressed (no webhook was configured)."""

    alert: dict[str, Any]
    status: str
    attempts: int
    last_error: str | None


@dataclass(frozen=True)
class Delivery:
    """Counts of one delivery round."""

    delivered: int
    pending: int


class AlertOutbox:
    """The durable queue of failed checks, and its way out."""

    def __init__(self, home: Path, webhook: str | None) -> None:
        """An outbox under `home`; `webhook` is an http(s) address, or None to only record."""
        self.path = home / "alerts.ndjson"
        self._journal = Journal(self.path)
        self.webhook = webhook

    def queue(self, alerts: Iterable[Alert]) -> int:
        """Record alerts that the outbox has not seen; returns how many were new."""
        with lock(self.path.with_name(".alerts.lock")):
            known = self.entries()
            fresh = {a.alert_id: a for a in alerts if a.alert_id not in known}
            event = "queued" if self.webhook else "unaddressed"
            self._journal.append(
                {"event": event, "at": _now(), "alert": {"alert_id": i, **asdict(a)}} for i, a in fresh.items()
            )
        return len(fresh)

    def deliver(self) -> Delivery:
        """Post every pending alert, marking each as it is accepted; a refused one stays pending."""
        delivered = 0
        with lock(self.path.with_name(".alerts.lock")):
            pending = [e for e in self.entries().values() if e.status == "pending"]
            for entry in pending if self.webhook else ():
                delivered += self._post(entry.alert)
        return Delivery(delivered, len(pending) - delivered)

    def entries(self) -> dict[str, Entry]:
        """Every alert by id, in the order in which they came."""
        found: dict[str, Entry] = {}
        for line in self._journal.read():
            alert_id = line["alert"]["alert_id"]
            old = found.get(alert_id)
            match line["event"]:
                case "queued":
                    found[alert_id] = Entry(line["alert"], "pending", 0, None)
                case "unaddressed":
                    found[alert_id] = Entry(line["alert"], "unaddressed", 0, None)
                case "delivered" if old:
                    found[alert_id] = Entry(old.alert, "delivered", old.attempts + 1, None)
                case "failed" if old:
                    found[alert_id] = Entry(old.alert, "pending", old.attempts + 1, line["error"])
        return found

    def _post(self, alert: dict[str, Any]) -> int:
        body = json.dumps(alert, allow_nan=False, default=str).encode()
        request = urllib.request.Request(
            str(self.webhook), body, {"Content-Type": "application/json", "Idempotency-Key": alert["alert_id"]}
        )
        identity = {"alert_id": alert["alert_id"]}
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                pass
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            self._journal.append([{"event": "failed", "at": _now(), "alert": identity, "error": str(error)}])
            return 0
        self._journal.append([{"event": "delivered", "at": _now(), "alert": identity}])
        return 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
