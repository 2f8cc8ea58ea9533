"""Define `tamiyo alerts`: list what is wrong, test the webhook, silence reminders."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from lake.alert_outbox import AlertOutbox, history
from lake.alerts.book import RESOLVED, Alert, Book
from lake.alerts.transitions import overdue
from lake.alerts.wording import fields_of, runs_named, summary
from lake.settings import resolve
from tamiyo.commands.options import Exit, Home, Result, fail, printing, reported
from tamiyo.terminal import table

_EXAMPLES = """
What is wrong with the pipeline, since when, and who was told.

Examples:

    tamiyo alerts list

    TAMIYO_ALERT_WEBHOOK=http://127.0.0.1:9000/ tamiyo alerts test

    tamiyo alerts ack 3f9c --reason "tolaria sends it again from Monday"
"""
_ID = 8  # characters of an id that are shown

All = Annotated[bool, typer.Option("--all", help="Resolved alerts too.")]
Identity = Annotated[str, typer.Argument(metavar="ID", help="The id of an alert, or its first characters.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]

group = typer.Typer(help=_EXAMPLES, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    examples: dict[str, tuple[Callable[..., Result], str]] = {
        "list": (list_alerts, "tamiyo alerts list --all --json"),
        "test": (test, "TAMIYO_ALERT_WEBHOOK=https://hooks.example.org/T0/B0 tamiyo alerts test"),
        "ack": (ack, 'tamiyo alerts ack 3f9c --reason "known, a fix is under way"'),
    }
    for name, (command, example) in examples.items():
        group.command(name, help=f"{command.__doc__}\n\nExamples:\n\n    {example}")(reported(command))
    app.add_typer(group, name="alerts")


def list_alerts(home: Home = None, everything: All = False) -> Result:
    """Open alerts, ERROR first and oldest first; with --all resolved ones after them.

    `last said` is when the webhook took the last message; `attempts` counts the posts of the newest one.
    """
    outbox = _outbox(home)
    book = outbox.read()
    alerts = sorted(book.failing(), key=lambda alert: (alert.severity, alert.since))
    if everything:
        over = [*history(outbox.home), *(alert for alert in book.alerts.values() if alert.state == RESOLVED)]
        alerts += sorted(over, key=lambda alert: alert.since, reverse=True)
    found = [_described(book, alert) for alert in alerts]
    late = overdue(book, outbox.clock())
    damage = outbox.damage()
    names = ("id", "state", "severity", "since", "last said", "attempts", "what")
    rows = [_row(one) for one in found]
    notes = [_late(len(late), late[0].error, outbox.webhook)] if late else []
    notes += [f"Left out: {damage}"] if damage else []
    return Result(
        {"alerts": found, "undelivered": len(book.undelivered()), "overdue": len(late), "damage": damage},
        printing(table(*names, rows=rows) if rows else "no alerts", *notes),
    )


def test(home: Home = None) -> Result:
    """Post a test message to TAMIYO_ALERT_WEBHOOK.

    Exit status 1 with the reason if the webhook does not take it, 2 if no webhook is set.
    """
    outbox = _outbox(home)
    if outbox.webhook is None:
        fail("TAMIYO_ALERT_WEBHOOK: expected an http(s) address, found none; set it", Exit.USAGE)
    fault = outbox.test()
    if fault is not None:
        fail(f"webhook: expected it to take a test message, found: {fault.reason}; mend TAMIYO_ALERT_WEBHOOK", Exit.REFUSED)
    return Result({"delivered": True}, printing("The webhook took a test message."))


def ack(identity: Identity, reason: Reason = "", home: Home = None) -> Result:
    """Silence the reminders of an alert until it is resolved; the resolution is still announced."""
    outbox = _outbox(home)
    matching = [alert for alert in outbox.read().failing() if identity and alert.alert_id.startswith(identity)]
    if len(matching) != 1:
        fail(
            f"alert {identity!r}: expected one that is open, found {len(matching)}; see `tamiyo alerts list`",
            Exit.REFUSED,
        )
    try:
        alert = outbox.acknowledge(matching[0].alert_id, reason or "no reason given")
    except KeyError:
        fail(f"alert {identity!r}: expected an open alert, found that it was resolved meanwhile", Exit.REFUSED)
    return Result(
        {"alert_id": alert.alert_id, "acknowledged": alert.acknowledged},
        printing(f"No reminders of {summary(alert)} until it is resolved: {alert.acknowledged}"),
    )


def _outbox(home: Home) -> AlertOutbox:
    settings = resolve(home=home)
    return AlertOutbox(settings.home, settings.alert_webhook, settings.ui_url)


def _described(book: Book, alert: Alert) -> dict[str, Any]:
    """Describe an alert with what became of its messages."""
    own = [message for message in book.messages.values() if message.alert_id == alert.alert_id]
    said = [message.delivered for message in own if message.delivered is not None]
    newest = own[-1] if own else None
    return {
        **fields_of(alert),
        "last_said": max(said) if said else None,
        "attempts": newest.attempts if newest else 0,
        "waiting": sum(message.delivered is None for message in own),
        "error": newest.error if newest else None,
        "acknowledged": alert.acknowledged,
        "summary": summary(alert),
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    runs = runs_named(one["runs"], one["run_count"])
    details = [one["summary"], *([one["what"]] if one["what"] else []), f"ask {one['system']}"]
    details += [f"{one['runs_are']} runs {runs}"] if runs else []
    details += [f"acknowledged: {one['acknowledged']}"] if one["acknowledged"] is not None else []
    details += [f"not delivered: {one['error']}"] if one["error"] else []
    said = _minute(one["last_said"]) if one["last_said"] else "not yet"
    state = f"{one['state']}, silent" if one["acknowledged"] is not None else one["state"]
    return one["alert_id"][:_ID], state, one["severity"], _minute(one["since"]), said, str(one["attempts"]), "; ".join(details)


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _late(count: int, error: str | None, webhook: str | None) -> str:
    unset = "TAMIYO_ALERT_WEBHOOK is not set"
    reason = unset if webhook is None else error or "no attempt was made, is the daemon running?"
    return f"{count} messages have waited for more than an hour: {reason}."
