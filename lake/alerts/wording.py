"""Compose an alert's message: text for people, and the same content as fields."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from lake.alerts.book import OPERATOR, REMINDED, RESOLVED, Alert

UI_URL: Final = "http://localhost:3000"
_LONGEST: Final = 300  # characters of a check's text; short enough for one line
_NAMED: Final = 3  # runs in the text


def payload(alert: Alert, message_id: str, *, home: str, ui_url: str, now: datetime) -> dict[str, Any]:
    """Return the body to post: Slack reads its `text`, other receivers the fields."""
    url = ui_url.rstrip("/") + alert.path if alert.path else ui_url
    return {
        "text": _text(alert, url, now),
        **fields_of(alert),
        "home": home,
        "url": url,
        "message_id": message_id,
    }


def fields_of(alert: Alert) -> dict[str, Any]:
    """Return the fields of an alert that a message and `tamiyo alerts list --json` both hold."""
    return {
        "alert_id": alert.alert_id,
        "state": alert.state,
        "severity": alert.severity,
        "asset": alert.asset,
        "check": alert.check,
        "problem": alert.problem,
        "what": alert.what,
        "system": alert.system,
        "runs": list(alert.runs),
        "run_count": alert.run_count,
        "runs_are": alert.runs_are,
        "since": alert.since,
        "run_id": alert.run_id,
    }


def trial_payload(message_id: str, *, home: str, ui_url: str, now: datetime) -> dict[str, Any]:
    """Return the body that `tamiyo alerts test` posts: the fields of an alert, with an invented problem."""
    at = now.astimezone(UTC).isoformat(timespec="microseconds")
    alert = Alert("test", "tamiyo", "test", "test", "INFO", "This is a test of the alerts of a pipeline.", at, at, state="test")
    fields = payload(alert, message_id, home=home, ui_url=ui_url, now=now)
    return fields | {"text": escaped(f"TEST: {alert.what}\nNothing is wrong. Sent for {home}.\n") + fields["url"]}


def summary(alert: Alert) -> str:
    """Return one line: the problem and its scope."""
    scope = f"{alert.asset}: {alert.check}"
    return scope if alert.problem == alert.check else f"{alert.problem} — {scope}"


def runs_named(runs: Sequence[str], count: int) -> str:
    """Return text that names the first of `runs` and how many more of `count` there are; "" if `runs` is empty."""
    named = ", ".join(shortened(run, 60) for run in runs[:_NAMED])
    others = count - len(runs[:_NAMED])
    return f"{named} and {others} more" if others > 0 else named


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text as one line without control characters, cut to `longest` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def escaped(text: str) -> str:
    """Escape what Slack reads as markup, so that an id can't call `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _text(alert: Alert, url: str, now: datetime) -> str:
    """Return three lines: severity and problem; details, whom to ask, runs, since when; where to look."""
    since = datetime.fromisoformat(alert.since)
    title = shortened(summary(alert))
    if alert.state == RESOLVED:
        head = f"RESOLVED: {title}"
        details = [f"It was {alert.severity} for {_lasting(now, since)}, since {_minute(since)}."]
    else:
        head = f"{'STILL ' if alert.state == REMINDED else ''}{alert.severity}: {title}"
        ask = "Ask the operator of the pipeline" if alert.system == OPERATOR else f"Ask {alert.system}"
        runs = runs_named(alert.runs, alert.run_count)
        details = [f"{shortened(alert.what).rstrip('.')}."] if alert.what else []
        details += [f"{ask}. Since {_minute(since)}."]
        details += [f"{alert.runs_are.capitalize()} runs: {runs}."] if runs else []
    return "\n".join((escaped(head), escaped(" ".join(details)), url))


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _lasting(now: datetime, since: datetime) -> str:
    minutes = max(0, int((now - since).total_seconds() // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
