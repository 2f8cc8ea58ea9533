"""Any interleaving of evaluations, crashes and a failing webhook: each problem is told once as it comes and as it goes."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lake import alert_outbox
from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Evaluation
from lake.alerts.posting import Fault
from tests.crash.faults import no_waiting
from tests.lake.alerting import START, Clock, evaluation

PROBLEMS = ("layer.loss", "seed.alpha", "context.power")
CHECKS = ("mandatory_coverage", "family_coverage")

held = st.frozensets(st.sampled_from(PROBLEMS))
looks = st.lists(st.tuples(st.sampled_from(CHECKS), held), min_size=1, max_size=12)


def evaluations(found: Sequence[tuple[str, frozenset[str]]]) -> list[Evaluation]:
    """One evaluation a second, each of a run of its own."""
    return [evaluation(*sorted(names), at=at, run=f"run-{at}", check=check) for at, (check, names) in enumerate(found)]


def transitions(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """States that messages tell of, by check and problem, in order."""
    told = defaultdict(list)
    for record in records:
        if "message" in record:
            payload = record["message"]["payload"]
            told[payload["check"], payload["problem"]].append(payload["state"])
    return told


def lines(outbox: AlertOutbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outbox.path.read_text().splitlines()] if outbox.path.exists() else []


def now_held(found: Iterable[Evaluation]) -> set[tuple[str, str]]:
    """(check, problem) of the newest evaluation of each check."""
    newest = {one.check: one for one in sorted(found, key=lambda one: one.at)}
    return {(check, problem.name) for check, one in newest.items() for problem in one.problems}


@settings(max_examples=150, deadline=None)
@given(found=looks)
def test_in_order_each_change_is_one_message(found: list[tuple[str, frozenset[str]]]) -> None:
    expected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for check, names in found:
        for name in PROBLEMS:
            was_open = expected[check, name][-1:] == ["open"]
            if was_open != (name in names):
                expected[check, name].append("resolved" if was_open else "open")
    with tempfile.TemporaryDirectory() as home, no_waiting():
        outbox = AlertOutbox(Path(home), None, clock=Clock(START + timedelta(hours=1)))
        for one in evaluations(found):
            outbox.observe([one])
            outbox.observe([one])
        assert transitions(lines(outbox)) == {key: states for key, states in expected.items() if states}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), found=looks)
def test_in_any_order_the_newest_evaluation_decides(data: st.DataObject, found: list[tuple[str, frozenset[str]]]) -> None:
    """Each evaluation comes at least once, in batches, and some batches are torn by a crash and come again."""
    made = evaluations(found)
    again = data.draw(st.lists(st.sampled_from(made), max_size=6))
    left = data.draw(st.permutations([*made, *again]))
    with tempfile.TemporaryDirectory() as home, no_waiting():
        outbox = AlertOutbox(Path(home), None, clock=Clock(START + timedelta(hours=1)))
        while left:
            size = data.draw(st.integers(1, len(left)))
            batch, left = left[:size], left[size:]
            before = outbox.path.stat().st_size if outbox.path.exists() else 0
            outbox.observe(batch)
            if data.draw(st.booleans()):
                after = outbox.path.stat().st_size if outbox.path.exists() else 0
                if after > before:
                    with outbox.path.open("ab") as file:
                        file.truncate(data.draw(st.integers(before, after)))
                outbox.observe(batch)
        opened = {(alert.check, alert.problem) for alert in outbox.read().failing()}
        assert opened == now_held(made)
        for key, states in transitions(lines(outbox)).items():
            assert states == (["open", "resolved"] * len(states))[: len(states)]
            assert (states[-1] == "open") == (key in opened)
        messages = [line["message"]["message_id"] for line in lines(outbox) if "message" in line]
        assert len({*messages}) == len(messages)


class Delivery(RuleBasedStateMachine):
    """A check, a clock that is set forth and back, a webhook in all its states, crashes at the worst moments."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.mode = "takes"
        self.bodies: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.truth: frozenset[str] = frozenset()
        self.count = 0
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(alert_outbox, "post", self.post)
        self.patched.setattr(alert_outbox, "_LONG", 6_000)
        self.patched.setattr("os.fsync", lambda descriptor: None)

    def teardown(self) -> None:
        try:
            self.mode = "takes"
            for _ in range(40):
                self.clock.go(minutes=11)
                self.outbox().deliver()
            assert self.outbox().read().undelivered() == []
            self.check_posts()
            last = {body["problem"]: body["state"] for body in map(self.bodies.__getitem__, self.order)}
            assert {name for name, state in last.items() if state != "resolved"} == self.truth
        finally:
            self.patched.undo()
            self.folder.cleanup()

    def outbox(self) -> AlertOutbox:
        """A process that has just started."""
        webhook = None if self.mode == "none" else "http://127.0.0.1/"
        return AlertOutbox(Path(self.folder.name), webhook, clock=self.clock)

    def post(self, webhook: str, body: Mapping[str, Any], key: str) -> Fault | None:
        if self.mode in ("down", "refuses"):
            return Fault("no", refused=self.mode == "refuses")
        assert self.bodies.setdefault(key, dict(body)) == body, "the same key is the same message"
        if key not in self.order:
            self.order.append(key)
        if self.mode == "crashes":
            raise KeyboardInterrupt  # the webhook took it, and the process ends before it can note that
        return None

    @initialize()
    def begin(self) -> None:
        self.outbox().observe([])

    @rule(names=held)
    def evaluate(self, names: frozenset[str]) -> None:
        self.count += 1
        self.clock.go(seconds=1)
        at = (self.clock.now - START).total_seconds()
        self.outbox().observe([evaluation(*sorted(names), at=at, run=f"run-{self.count}")])
        self.truth = names

    @rule(mode=st.sampled_from(["takes", "down", "refuses", "none", "crashes"]))
    def webhook_becomes(self, mode: str) -> None:
        self.mode = mode

    @rule(hours=st.sampled_from([0.003, 0.2, 2, 13, 25, 80]))
    def time_passes(self, hours: float) -> None:
        self.clock.go(hours=hours)

    @rule(hours=st.sampled_from([-200, -30, -1, 100]))
    @precondition(lambda self: self.count > 0)
    def the_clock_is_set(self, hours: float) -> None:
        self.clock.go(hours=hours)

    @rule()
    def deliver(self) -> None:
        try:
            self.outbox().deliver()
        except KeyboardInterrupt:
            self.mode = "takes"

    @invariant()
    def check_posts(self) -> None:
        told = defaultdict(list)
        for key in self.order:
            told[self.bodies[key]["problem"]].append(self.bodies[key]["state"])
        for states in told.values():
            assert states[0] == "open"
            for before, after in pairwise(states):
                assert (
                    after
                    in {"open": ("reminded", "resolved"), "reminded": ("reminded", "resolved"), "resolved": ("open",)}[before]
                )


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
