"""The quarantine of Oona: kept, counted by reason, told for as long as messages come."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from lake import quarantine
from lake.alert_outbox import AlertOutbox
from tests.lake.alerting import START, Clock
from tests.webhook import Webhook


def refuse(home: Path, clock: Clock, *reasons: str) -> None:
    records = [
        {"stream": "oona.normal", "entry": f"{number}-0", "reason": reason, "found": "no signature", "payload": ""}
        for number, reason in enumerate(reasons)
    ]
    quarantine.keep(home, records, clock())


def told(webhook: Webhook) -> list[tuple[str, str]]:
    return [(post["problem"], post["state"]) for post in webhook.posts]


def look(alerts: AlertOutbox, clock: Clock) -> None:
    alerts.observe([quarantine.look(alerts.home, clock())])
    alerts.deliver()


def test_a_reason_is_told_once_reminded_and_resolved_when_no_more_come(tmp_path: Path, webhook: Webhook) -> None:
    clock = Clock()
    alerts = AlertOutbox(tmp_path, webhook.address, clock=clock)
    look(alerts, clock)
    assert told(webhook) == []
    for _ in range(5):
        refuse(tmp_path, clock, "bad_signature", "bad_signature")
        look(alerts, clock)
        clock.go(minutes=50)
    assert told(webhook) == [("bad_signature", "open")]
    (post,) = webhook.posts
    assert (post["asset"], post["check"], post["severity"]) == ("oona", "quarantine", "ERROR")
    assert "2 messages so far" in post["what"] and "no signature" in post["what"]
    refuse(tmp_path, clock, "undecodable")
    look(alerts, clock)
    assert told(webhook)[1:] == [("undecodable", "open")]
    clock.go(minutes=11)  # 61 minutes after the last one of the first reason, 11 after the other's
    look(alerts, clock)
    assert told(webhook)[2:] == [("bad_signature", "resolved")]
    clock.go(minutes=50)
    look(alerts, clock)
    look(alerts, clock)
    assert told(webhook)[3:] == [("undecodable", "resolved")]
    clock.go(seconds=5)
    refuse(tmp_path, clock, "undecodable")
    look(alerts, clock)
    assert told(webhook)[4:] == [("undecodable", "open")]
    for _ in range(30):
        clock.go(minutes=50)
        refuse(tmp_path, clock, "undecodable")
        look(alerts, clock)
    assert told(webhook)[5:] == [("undecodable", "reminded")]


def test_it_is_told_after_exactly_the_window(tmp_path: Path) -> None:
    clock = Clock()
    refuse(tmp_path, clock, "unknown_type")
    moment = timedelta(microseconds=1)
    assert [problem.name for problem in quarantine.look(tmp_path, START + quarantine.QUIET_FOR - moment).problems] == [
        "unknown_type"
    ]
    assert quarantine.look(tmp_path, START + quarantine.QUIET_FOR).problems == ()


def test_messages_are_kept_by_day_and_counted(tmp_path: Path) -> None:
    clock = Clock()
    refuse(tmp_path, clock, "bad_signature")
    clock.go(days=1)
    refuse(tmp_path, clock, "bad_signature", "no_payload")
    folder = tmp_path / quarantine.FOLDER
    days = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.ndjson")}
    assert days == {"2026-11-27.ndjson": 1, "2026-11-28.ndjson": 2}
    counts = json.loads((tmp_path / quarantine.COUNTS).read_text())
    assert {reason: one["total"] for reason, one in counts.items()} == {"bad_signature": 2, "no_payload": 1}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"bad_signature": 5}', '{"bad_signature": {}}', '{"x": {"at": "never", "total": 1}}']
)
def test_damaged_counts_are_told_and_cost_no_message(tmp_path: Path, text: str) -> None:
    (tmp_path / quarantine.COUNTS).parent.mkdir()
    (tmp_path / quarantine.COUNTS).write_text(text)
    (problem,) = quarantine.look(tmp_path, START).problems
    assert problem.name == "oona.json is damaged" and str(quarantine.COUNTS) in problem.text
    refuse(tmp_path, Clock(), "bad_signature")
    assert [one.name for one in quarantine.look(tmp_path, START).problems] == ["bad_signature"]
