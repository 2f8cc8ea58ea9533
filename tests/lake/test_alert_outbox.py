"""The outbox: each transition is written before it is posted, posted until it is taken, and read at the same cost for ever."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lake import alert_outbox
from lake.alert_outbox import HISTORY, AlertOutbox, history
from lake.alerts import posting
from lake.alerts.book import Problem, identity
from lake.alerts.transitions import overdue
from tests.lake.alerting import ASSET, CHECK, START, Clock, evaluation
from tests.webhook import Webhook

LOSS, GAP = "layer.loss", "seed.alpha"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, webhook: Webhook, clock: Clock) -> AlertOutbox:
    return AlertOutbox(tmp_path, webhook.address, clock=clock)


def told(webhook: Webhook) -> list[tuple[str, str]]:
    return [(post["state"], post["problem"]) for post in webhook.posts]


def test_a_problem_of_ten_runs_is_one_alert_that_names_them(outbox: AlertOutbox, webhook: Webhook) -> None:
    for number in range(10):
        outbox.observe([evaluation(LOSS, at=number, run=f"run-{number}")])
        outbox.deliver()
    assert told(webhook) == [("open", LOSS)]
    (alert,) = outbox.read().alerts.values()
    assert (alert.run_count, alert.runs[:2], alert.run_id) == (10, ("run-0", "run-1"), "run-9")
    assert outbox.observe([evaluation(at=10, run="run-10")]) == 1
    outbox.deliver()
    assert told(webhook) == [("open", LOSS), ("resolved", LOSS)]
    assert len({post["message_id"] for post in webhook.posts}) == len(webhook.posts)


def test_each_problem_of_a_check_is_an_alert_of_its_own(outbox: AlertOutbox, webhook: Webhook) -> None:
    outbox.observe([evaluation(LOSS, GAP)])
    outbox.observe([evaluation(GAP, at=1, run="run-2"), evaluation(LOSS, at=1, run="run-2", check="other")])
    outbox.deliver()
    assert told(webhook) == [("open", LOSS), ("open", GAP), ("resolved", LOSS), ("open", LOSS)]
    assert webhook.posts[0]["alert_id"] == webhook.posts[2]["alert_id"] == identity(ASSET, CHECK, LOSS)
    assert len({post["alert_id"] for post in webhook.posts}) == 3


def test_a_b_a_is_told_as_three_transitions(outbox: AlertOutbox, webhook: Webhook) -> None:
    for at, problems in enumerate([(LOSS,), (), (LOSS,)]):
        outbox.observe([evaluation(*problems, at=at, run=f"run-{at}")])
    outbox.deliver()
    assert [post["state"] for post in webhook.posts] == ["open", "resolved", "open"]
    assert len({post["alert_id"] for post in webhook.posts}) == 1
    assert len({*webhook.keys}) == 3


def test_what_is_older_than_what_is_known_reopens_nothing(outbox: AlertOutbox) -> None:
    outbox.observe([evaluation(at=10, run="newer")])
    assert outbox.observe([evaluation(LOSS, at=5, run="older")]) == 0
    assert outbox.read().alerts == {}
    assert outbox.observe([evaluation(LOSS, at=11, run="newest")]) == 1


def test_a_failed_run_adds_a_problem_and_resolves_no_other(outbox: AlertOutbox) -> None:
    outbox.observe([evaluation(LOSS), evaluation(GAP, at=1, run="run-2", complete=False)])
    assert [alert.state for alert in outbox.read().alerts.values()] == ["open", "open"]
    outbox.observe([evaluation(at=2, run="run-3")])
    assert [alert.state for alert in outbox.read().alerts.values()] == ["resolved", "resolved"]


def test_the_message_says_what_and_whom_to_ask(outbox: AlertOutbox, webhook: Webhook, tmp_path: Path) -> None:
    outbox.observe([evaluation(LOSS, runs=[f"host-{n}" for n in range(30)])])
    outbox.deliver()
    (post,) = webhook.posts
    assert post["text"].splitlines() == [
        "ERROR: layer.loss — coverage/by_key: mandatory_coverage",
        "layer.loss 0.500. Ask tolaria. Since 2026-11-27 03:00 UTC. Training runs: host-0, host-1, host-2 and 27 more.",
        "http://localhost:3000/runs/1",
    ]
    fields = {
        name: post[name] for name in ("state", "asset", "check", "problem", "severity", "system", "run_id", "url", "home")
    }
    assert fields == {
        "state": "open",
        "asset": ASSET,
        "check": CHECK,
        "problem": LOSS,
        "severity": "ERROR",
        "system": "tolaria",
        "run_id": "run-1",
        "url": "http://localhost:3000/runs/1",
        "home": str(tmp_path),
    }
    assert (post["run_count"], len(post["runs"])) == (30, 20)
    assert [post["message_id"]] == webhook.keys


@pytest.mark.parametrize("status", [500, 503, 404, 302])
def test_a_webhook_that_takes_nothing_is_tried_again_after_longer_and_longer_pauses(
    outbox: AlertOutbox, webhook: Webhook, clock: Clock, status: int
) -> None:
    webhook.status = status
    outbox.observe([evaluation(LOSS, GAP)])
    tried = []
    for second in range(0, 1000, 10):
        clock.now = START + timedelta(seconds=second)
        before = len(webhook.keys)
        delivery = outbox.deliver()
        assert (delivery.delivered, delivery.pending) == (0, 2)
        assert delivery.fault is not None and str(status) in delivery.fault
        tried += [second] * (len(webhook.keys) - before)
    assert tried == [0, 10, 30, 70, 150, 310, 630]
    webhook.status = 200
    again = replace(outbox, clock=Clock(START + timedelta(hours=2)))  # after a restart
    assert again.deliver().delivered == 2
    assert told(webhook) == [("open", LOSS), ("open", GAP)]
    assert len({*webhook.keys}) == 2, "the same key at each attempt"


def test_a_message_that_is_refused_holds_up_no_other_alert(outbox: AlertOutbox, webhook: Webhook, clock: Clock) -> None:
    webhook.status, webhook.answer = 400, b"no_text\n"
    outbox.observe([evaluation(LOSS)])
    assert outbox.deliver().fault is None
    (message,) = outbox.read().undelivered()
    assert (message.attempts, message.error) == (1, "status 400 Bad Request: no_text")
    webhook.status, webhook.answer = 200, b""
    outbox.observe([evaluation(GAP, at=1, run="run-2")])
    outbox.deliver()
    assert told(webhook) == [("open", GAP)], "the resolution waits for what it resolves"
    clock.go(seconds=10)
    outbox.deliver()
    assert told(webhook) == [("open", GAP), ("open", LOSS), ("resolved", LOSS)]


def test_an_unreachable_webhook_loses_nothing(outbox: AlertOutbox) -> None:
    nobody = replace(outbox, webhook="http://127.0.0.1:9/")
    nobody.observe([evaluation(LOSS)])
    delivery = nobody.deliver()
    assert (delivery.delivered, delivery.pending) == (0, 1) and "refused" in (delivery.fault or "")
    assert outbox.deliver().delivered == 1, "another address is tried at once"


def test_a_webhook_that_hangs_is_given_up(outbox: AlertOutbox, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_SILENCE_SECONDS", 0.2)
    webhook.hangs = True
    outbox.observe([evaluation(LOSS, GAP)])
    assert "timed out" in (outbox.deliver().fault or "")
    assert len(webhook.keys) == 1, "the others are not tried"


def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_DEADLINE_SECONDS", 0.2)
    webhook.hangs = True
    fault = posting.post(webhook.address, {}, "key")
    assert fault is not None and "no answer within" in fault.reason and not fault.refused


@pytest.mark.parametrize("address", ["file:///etc/passwd", "hooks.example.org", "http://[", "http://a b/"])
def test_an_address_that_is_none_is_a_fault_that_does_not_tell_it(address: str) -> None:
    fault = posting.post(address, {}, "key")
    assert fault is not None and address not in fault.reason


def test_a_webhook_that_is_set_later_is_told_all(outbox: AlertOutbox, webhook: Webhook, clock: Clock) -> None:
    silent = replace(outbox, webhook=None)
    silent.observe([evaluation(LOSS)])
    assert silent.deliver().pending == 1
    clock.go(days=40)
    assert silent.deliver().pending == 1, "nobody is reminded of what nobody was told"
    silent.observe([evaluation(at=50, run="run-2")])
    assert outbox.deliver().delivered == 2
    assert [post["state"] for post in webhook.posts] == ["open", "resolved"]


def test_an_open_alert_is_reminded_of_once_a_day(outbox: AlertOutbox, webhook: Webhook, clock: Clock) -> None:
    outbox.observe([evaluation(LOSS)])
    for _ in range(72):
        outbox.deliver()
        clock.go(hours=1)
    assert [post["state"] for post in webhook.posts] == ["open", "reminded", "reminded"]
    assert webhook.posts[1]["text"].startswith("STILL ERROR: layer.loss")
    outbox.observe([evaluation(at=3 * 86400, run="run-2")])
    outbox.deliver()
    assert webhook.posts[-1]["text"].splitlines()[:2] == [
        "RESOLVED: layer.loss — coverage/by_key: mandatory_coverage",
        "It was ERROR for 3 d 0 h, since 2026-11-27 03:00 UTC.",
    ]
    clock.go(days=3)
    assert outbox.deliver().pending == 0
    assert len(webhook.posts) == 4


def test_an_acknowledged_alert_is_silent_until_it_is_resolved(outbox: AlertOutbox, webhook: Webhook, clock: Clock) -> None:
    outbox.observe([evaluation(LOSS)])
    outbox.deliver()
    alert_id = identity(ASSET, CHECK, LOSS)
    assert outbox.acknowledge(alert_id, "known").acknowledged == "known"
    clock.go(days=3)
    outbox.observe([evaluation(LOSS, at=5, run="run-2")])
    outbox.deliver()
    assert outbox.read().alerts[alert_id].acknowledged == "known"
    assert len(webhook.posts) == 1
    outbox.observe([evaluation(at=6, run="run-3"), evaluation(LOSS, at=7, run="run-4")])
    outbox.deliver()
    assert [post["state"] for post in webhook.posts] == ["open", "resolved", "open"]
    assert outbox.read().alerts[alert_id].acknowledged is None
    with pytest.raises(KeyError):
        outbox.acknowledge("unknown", "")


def test_a_clock_that_is_set_back_stops_neither_posts_nor_reminders_nor_evaluations(
    outbox: AlertOutbox, webhook: Webhook, clock: Clock
) -> None:
    clock.go(days=400)
    ahead = 400 * 86400.0
    webhook.status = 500
    outbox.observe([evaluation(LOSS, at=ahead)])
    outbox.deliver()
    clock.now = START
    webhook.status = 200
    assert outbox.deliver().delivered == 1
    outbox.deliver()
    clock.go(days=1, minutes=1)
    outbox.deliver()
    assert [post["state"] for post in webhook.posts] == ["open", "reminded"]
    assert outbox.observe([evaluation(at=86400.0, run="run-2")]) == 1
    assert outbox.observe([evaluation(LOSS, at=ahead)]) == 0, "seen before"
    assert outbox.observe([evaluation(LOSS, at=86401.0, run="run-3")]) == 1


def test_what_waits_for_more_than_an_hour_is_overdue(outbox: AlertOutbox, clock: Clock) -> None:
    outbox.observe([evaluation(LOSS)])
    clock.go(minutes=60)
    assert overdue(outbox.read(), clock()) == []
    clock.go(seconds=1)
    (message,) = overdue(outbox.read(), clock())
    assert message.payload["problem"] == LOSS
    clock.go(days=-1)
    assert len(overdue(outbox.read(), clock())) == 1
    outbox.deliver()
    assert overdue(outbox.read(), clock()) == []


def test_a_trouble_is_reported_at_each_look_and_written_once(outbox: AlertOutbox, webhook: Webhook, clock: Clock) -> None:
    assert outbox.report("feeds/tolaria", "freshness", []) == 0
    assert not outbox.path.exists()
    for minute in range(5):
        silent = Problem("silent", f"nothing for {minute} minutes", "tolaria")
        assert outbox.report("feeds/tolaria", "freshness", [silent], severity="WARN") == (minute == 0)
        clock.go(minutes=1)
    size = outbox.path.stat().st_size
    outbox.report("feeds/tolaria", "freshness", [silent], severity="WARN")
    assert outbox.path.stat().st_size == size
    assert outbox.report("feeds/tolaria", "freshness", []) == 1
    outbox.deliver()
    assert [(post["state"], post["severity"], post["system"]) for post in webhook.posts] == [
        ("open", "WARN", "tolaria"),
        ("resolved", "WARN", "tolaria"),
    ]


def older(event: str, run_id: str, **more: Any) -> dict[str, Any]:
    """A line of the earlier format."""
    alert: dict[str, Any] = {"alert_id": f"old-{run_id}"}
    if event in ("queued", "unaddressed"):
        alert |= {
            "run_id": run_id,
            "asset": ASSET,
            "check": CHECK,
            "severity": "ERROR",
            "description": "layer.loss",
            "metadata": {},
        }
    return {"event": event, "at": "2026-11-20T03:00:00.000+00:00", "alert": alert, **more}


@pytest.mark.parametrize(
    ("lines", "posted"),
    [
        ([older("queued", "1")], True),
        ([older("unaddressed", "1")], True),
        ([older("queued", "1"), older("failed", "1", error="HTTP Error 503"), older("queued", "2")], True),
        ([older("queued", "1"), older("delivered", "1"), older("queued", "2"), older("delivered", "2")], False),
        ([older("unaddressed", "1"), older("queued", "2"), older("delivered", "2")], False),
    ],
    ids=["queued", "no webhook", "failed, again", "delivered, again", "no webhook, delivered"],
)
def test_an_outbox_of_the_earlier_format_is_taken_over(
    outbox: AlertOutbox, webhook: Webhook, clock: Clock, lines: list[dict[str, Any]], posted: bool
) -> None:
    outbox.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (alert,) = outbox.read().alerts.values()
    assert (alert.problem, alert.state, alert.run_count) == (
        CHECK,
        "open",
        sum("queued" in line["event"] or "un" in line["event"] for line in lines),
    )
    outbox.deliver()
    opened = [post for post in webhook.posts if post["state"] == "open"]
    assert len(opened) == posted
    assert all(post["text"] and post["message_id"] == "old-1" for post in opened)
    outbox.observe([evaluation(run="new")])
    outbox.deliver()
    assert webhook.posts[-1]["state"] == "resolved"
    assert outbox.read().failing() == []


def test_a_torn_last_line_never_counts(outbox: AlertOutbox) -> None:
    outbox.observe([evaluation(LOSS)])
    with outbox.path.open("ab") as file:
        file.write(b'{"event": "opened", "alert": {"alert_')
    assert outbox.damage() is None
    outbox.observe([evaluation(LOSS, GAP, at=1, run="run-2")])
    assert len(outbox.read().alerts) == 2
    assert all(json.loads(line) for line in outbox.path.read_text().splitlines())


@pytest.mark.parametrize("damage", ["x", "[1]", "{}", '{"event": "opened", "alert": {}}', '{"event": "seen", "looks": [1]}'])
def test_a_damaged_line_is_named_and_silences_nobody(outbox: AlertOutbox, webhook: Webhook, damage: str) -> None:
    outbox.observe([evaluation(LOSS)])
    with outbox.path.open("a") as file:
        file.write(f"{damage}\n")
    outbox.observe([evaluation(GAP, at=1, run="run-2")])
    outbox.deliver()
    assert told(webhook) == [("open", LOSS), ("open", GAP), ("resolved", LOSS)]
    assert str(outbox.path) in (outbox.damage() or "")


def test_a_long_outbox_is_written_anew_and_loses_nothing_that_matters(
    outbox: AlertOutbox, webhook: Webhook, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_outbox, "_LONG", 20_000)
    sizes = []
    outbox.observe([evaluation(GAP, check="other")])
    for day in range(120):
        clock.now = START + timedelta(days=day)
        outbox.observe([evaluation(*[LOSS] * (day % 2), at=day * 86400.0, run=f"run-{day}")])
        outbox.deliver()
        sizes.append(outbox.path.stat().st_size)
    assert max(sizes) < 60_000
    transitions = [post["state"] for post in webhook.posts if post["problem"] == LOSS]
    assert transitions == ["open", "resolved"] * 59 + ["open"]
    assert len({post["message_id"] for post in webhook.posts}) == len(webhook.posts)
    book = outbox.read()
    assert {alert.problem: alert.state for alert in book.alerts.values()} == {GAP: "reminded", LOSS: "open"}
    assert outbox.observe([evaluation(at=0.5, run="older")]) == 0
    past = [json.loads(line) for line in (outbox.home / HISTORY).read_text().splitlines()]
    kept = {line["message"]["message_id"] for line in past if "message" in line} | {*book.messages}
    assert kept == {post["message_id"] for post in webhook.posts}


def test_what_was_resolved_long_ago_goes_to_the_history(
    outbox: AlertOutbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_outbox, "_LONG", 0)
    outbox.observe([evaluation(LOSS), evaluation(at=1, run="run-2")])
    outbox.deliver()
    clock.go(days=31)
    outbox.observe([evaluation(GAP, at=5, run="run-3")])
    monkeypatch.setattr(AlertOutbox, "_needed_bytes", lambda _: 0)
    outbox.deliver()
    assert [alert.problem for alert in outbox.read().alerts.values()] == [GAP]
    assert [(alert.problem, alert.state) for alert in history(outbox.home)] == [(LOSS, "resolved")]


POST_AND_HANG = """
import sys
from pathlib import Path
from lake.alert_outbox import AlertOutbox
from tests.lake.alerting import evaluation
outbox = AlertOutbox(Path(sys.argv[1]), sys.argv[2])
outbox.observe([evaluation("layer.loss")])
outbox.deliver()
"""


def test_a_kill_between_the_post_and_its_record_repeats_it_with_the_same_key(tmp_path: Path, webhook: Webhook) -> None:
    webhook.hangs = True
    with subprocess.Popen([sys.executable, "-c", POST_AND_HANG, str(tmp_path), webhook.address]) as child:
        while not webhook.keys:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    webhook.hangs = False
    outbox = AlertOutbox(tmp_path, webhook.address)
    assert outbox.observe([evaluation(LOSS)]) == 0
    assert outbox.deliver().delivered == 1
    assert webhook.keys == [webhook.posts[0]["message_id"]] * 2
    assert outbox.deliver().delivered == 0


def test_messages_of_two_homes_have_keys_of_their_own(tmp_path: Path, webhook: Webhook, clock: Clock) -> None:
    one = AlertOutbox(tmp_path / "one", webhook.address, clock=clock)
    for outbox in (one, one.of(tmp_path / "two")):
        outbox.observe([evaluation(LOSS)])
        outbox.deliver()
    assert len({*webhook.keys}) == 2
    assert len({post["alert_id"] for post in webhook.posts}) == 1


def test_an_id_calls_nobody(outbox: AlertOutbox, webhook: Webhook) -> None:
    outbox.observe([evaluation("<!channel>\n\x1b[31m&", runs=["<@U123>" * 20])])
    outbox.deliver()
    text = webhook.posts[0]["text"]
    assert "<" not in text and "\x1b" not in text and text.count("\n") == 2
    assert webhook.posts[0]["problem"] == "<!channel>\n\x1b[31m&"


def test_a_trial_is_no_alert(outbox: AlertOutbox, webhook: Webhook) -> None:
    assert outbox.test() is None
    assert webhook.posts[0]["state"] == "test" and webhook.posts[0]["text"].startswith("TEST:")
    assert not outbox.path.exists()
    webhook.status = 403
    fault = outbox.test()
    assert fault is not None and "403" in fault.reason
