"""`tamiyo alerts`: what is open first, a test of the webhook, silence for what is known."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lake.alert_outbox import AlertOutbox
from lake.alerts.book import identity
from tamiyo.cli import app
from tests.lake.alerting import ASSET, CHECK, evaluation
from tests.webhook import Webhook


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an open ERROR, and a WARN of another check that was resolved."""
    AlertOutbox(tmp_path, None).observe(
        [evaluation("seed.alpha", check="other"), evaluation(at=1, run="run-2", check="other"), evaluation("layer.loss", at=2)]
    )
    return tmp_path


def alerts(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["alerts", *map(str, arguments)])


def listed(home: Path, *arguments: str) -> list[tuple[str, str]]:
    found = json.loads(alerts("list", "--home", home, "--json", *arguments).stdout)
    return [(one["problem"], one["state"]) for one in found["alerts"]]


def test_open_alerts_are_listed_and_resolved_ones_after_them(home: Path) -> None:
    assert listed(home) == [("layer.loss", "open")]
    assert listed(home, "--all") == [("layer.loss", "open"), ("seed.alpha", "resolved")]
    text = alerts("list", "--home", home).stdout
    for word in (
        "open",
        "ERROR",
        "2026-11-27 03:00",
        "not yet",
        "layer.loss — coverage/by_key: mandatory_coverage",
        "ask tolaria",
    ):
        assert word in text


def test_what_the_webhook_has_not_taken_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AlertOutbox(home, "http://127.0.0.1:9/").deliver()
    found = json.loads(alerts("list", "--home", home, "--json").stdout)
    assert (found["undelivered"], found["overdue"], found["damage"]) == (3, 0, None)
    (one,) = found["alerts"]
    assert (one["attempts"], one["waiting"], one["last_said"]) == (0, 1, None), "the one before it holds it up"
    monkeypatch.setattr("lake.alerts.transitions.OVERDUE", timedelta(days=-1))
    assert (
        "3 messages have waited for more than an hour: TAMIYO_ALERT_WEBHOOK is not set."
        in alerts("list", "--home", home).stdout
    )


def test_a_test_message_is_posted(home: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAMIYO_ALERT_WEBHOOK", raising=False)
    unset = alerts("test", "--home", home)
    assert (unset.exit_code, webhook.posts) == (2, []) and "TAMIYO_ALERT_WEBHOOK" in unset.stderr
    monkeypatch.setenv("TAMIYO_ALERT_WEBHOOK", webhook.address)
    assert alerts("test", "--home", home).exit_code == 0
    assert [post["state"] for post in webhook.posts] == ["test"]
    webhook.status, webhook.answer = 400, b"invalid_payload"
    refused = alerts("test", "--home", home)
    assert refused.exit_code == 1 and "status 400 Bad Request: invalid_payload" in refused.stderr


def test_an_alert_is_acknowledged_by_the_begin_of_its_id(home: Path) -> None:
    alert_id = identity(ASSET, CHECK, "layer.loss")
    assert alerts("ack", alert_id[:6], "--reason", "known", "--home", home).exit_code == 0
    assert AlertOutbox(home, None).read().alerts[alert_id].acknowledged == "known"
    assert "open, silent" in alerts("list", "--home", home).stdout
    for wrong in ("", "nothing", identity(ASSET, "other", "seed.alpha")):
        refused = alerts("ack", wrong, "--home", home)
        assert refused.exit_code == 1 and "expected one that is open, found 0" in refused.stderr
