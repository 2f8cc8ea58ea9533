"""The outbox: recorded durably, posted once each, tried again after a refusal."""

import json
from pathlib import Path

from lake.alert_outbox import Alert, AlertOutbox
from tests.webhook import Webhook


def alert(check: str = "mandatory_coverage", run_id: str = "r1") -> Alert:
    return Alert(run_id, "coverage/by_key", check, "ERROR", "layer.loss 0.500", {"keys_under": 1})


def test_an_alert_is_posted_once_however_often_it_is_queued(tmp_path: Path, webhook: Webhook) -> None:
    outbox = AlertOutbox(tmp_path, webhook.address)
    assert outbox.queue([alert(), alert()]) == 1
    assert outbox.deliver().delivered == 1
    assert outbox.queue([alert()]) == 0
    assert AlertOutbox(tmp_path, webhook.address).deliver().delivered == 0
    assert [post["check"] for post in webhook.posts] == ["mandatory_coverage"]


def test_each_run_and_each_check_is_an_alert_of_its_own(tmp_path: Path, webhook: Webhook) -> None:
    outbox = AlertOutbox(tmp_path, webhook.address)
    outbox.queue([alert(), alert(check="family_coverage"), alert(run_id="r2")])
    outbox.deliver()
    assert len({post["alert_id"] for post in webhook.posts}) == 3


def test_a_refused_alert_stays_pending_and_is_delivered_later(tmp_path: Path, webhook: Webhook) -> None:
    webhook.status = 503
    outbox = AlertOutbox(tmp_path, webhook.address)
    outbox.queue([alert()])
    assert outbox.deliver().pending == 1
    (entry,) = outbox.entries().values()
    assert (entry.status, entry.attempts) == ("pending", 1)
    assert "503" in (entry.last_error or "")
    webhook.status = 200
    assert outbox.deliver().delivered == 1
    assert next(iter(outbox.entries().values())).status == "delivered"


def test_an_unreachable_webhook_loses_nothing(tmp_path: Path) -> None:
    outbox = AlertOutbox(tmp_path, "http://127.0.0.1:9/")
    outbox.queue([alert()])
    assert outbox.deliver().pending == 1


def test_without_a_webhook_alerts_are_recorded_and_never_posted(tmp_path: Path, webhook: Webhook) -> None:
    AlertOutbox(tmp_path, None).queue([alert()])
    later = AlertOutbox(tmp_path, webhook.address)
    later.queue([alert()])
    later.deliver()
    assert webhook.posts == []
    assert [entry.status for entry in later.entries().values()] == ["unaddressed"]


def test_a_torn_last_line_is_ignored_and_overwritten(tmp_path: Path, webhook: Webhook) -> None:
    outbox = AlertOutbox(tmp_path, webhook.address)
    outbox.queue([alert()])
    with outbox.path.open("ab") as file:
        file.write(b'{"event": "queued", "alert": {"alert_')
    assert len(outbox.entries()) == 1
    outbox.queue([alert(run_id="r2")])
    assert len(outbox.entries()) == 2
    assert all(json.loads(line) for line in outbox.path.read_text().splitlines())
