"""`tamiyo alerts`: failed checks and whether the webhook has them; `--retry` posts what is pending."""

from typing import Annotated

import typer

from lake.settings import resolve
from tamiyo.commands.options import Exit, Home, Result, printing, reported
from tamiyo.terminal import table

_EXAMPLES = """
List the alerts of failed checks, newest last, and whether each was delivered.

Examples:

    tamiyo alerts

    TAMIYO_ALERT_WEBHOOK=http://127.0.0.1:9000/ tamiyo alerts --retry
"""

Retry = Annotated[bool, typer.Option("--retry", help="Post pending alerts again.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("alerts", help=_EXAMPLES)(reported(alerts))


def alerts(home: Home = None, retry: Retry = False) -> Result:
    """Exit status 0; with --retry 1 where an alert is still pending."""
    from lake.alert_outbox import AlertOutbox

    settings = resolve(home=home)
    outbox = AlertOutbox(settings.home, settings.alert_webhook)
    pending = outbox.deliver().pending if retry else 0
    entries = list(outbox.entries().values())
    names = ("severity", "asset", "check", "description")
    rows = [(entry.status, *(str(entry.alert[name]) for name in names)) for entry in entries]
    return Result(
        {"alerts": [{**entry.alert, "status": entry.status, "attempts": entry.attempts} for entry in entries]},
        printing(table("status", *names, rows=rows) if entries else "no alerts"),
        Exit.REFUSED if pending else Exit.OK,
    )
