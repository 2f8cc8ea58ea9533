"""Budget, breakers, pause quota: what the process decides around the policy, each row of its table with a scene."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gnn.online.config import ServingConfig
from gnn.online.constraints import CONSTRAINTS, Route
from recorder.runs.orders import REFUSALS
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live.decider import Answer, Decider
from tamiyo.live.limits import PROCESS, Breaker, Moment, PauseQuota, ProcessRow, process_row
from tamiyo.live.reference import START, constraint_table, refusal_table
from tests.tamiyo.live.stub import StubPolicy, packet

SLOW = ServingConfig(budget_ms=60_000)


class Bench:
    """A decider with a clock that stands still until it is moved."""

    def __init__(self, config: ServingConfig = SLOW, *, bundle: bool = True) -> None:
        self.now, self.policy = 0.0, StubPolicy()
        snapshot: Any = None
        policy: Any = self.policy
        self.metadata = Breaker(config.breaker_faults, config.breaker_open_s, lambda: self.now)
        serving = (policy, snapshot) if bundle else None
        self.decider = Decider(config, lambda: serving, self.metadata, lambda: self.now)

    def answer(self, number: int = 0, run: str = "run-1") -> Answer:
        found = packet(number, run=run)
        return self.decider.answer(found.SerializeToString(), found)


def broken(_: pb.SystemStatePacket) -> Route:
    raise RuntimeError("the network broke")


SCENES: dict[str, tuple[Moment, Route]] = {
    "no_bundle": (Moment(has_bundle=False), Route.NO_OP),
    "conservative_mode": (Moment(conservative=True), Route.PAUSE),
    "timeout_inference": (Moment(timed_out=True), Route.PAUSE),
    "inference_failed": (Moment(failed=True), Route.PAUSE),
    "pause_quota": (Moment(route=Route.PAUSE, paused=1), Route.NO_OP),
    "already_adjusted": (Moment(route=Route.ADJUST, adjusted=True), Route.NO_OP),
}


@pytest.mark.parametrize("row", PROCESS, ids=lambda row: row.name)
def test_a_row_speaks_and_nobody_does_without_it(row: ProcessRow) -> None:
    moment, route = SCENES[row.name]
    found = process_row(moment)
    assert found is row
    assert found.route is route
    assert process_row(moment, [other for other in PROCESS if other is not row]) is None
    assert process_row(Moment()) is None


@pytest.mark.parametrize("name", ["conservative_mode", "timeout_inference", "inference_failed"])
def test_the_quota_counts_for_the_pauses_of_the_process_too(name: str) -> None:
    found = process_row(replace(SCENES[name][0], paused=1))
    assert found is not None
    assert (found.name, found.route) == ("pause_quota", Route.NO_OP)


def test_the_table_of_the_documentation_is_the_code(repository: Path) -> None:
    text = (repository / "docs" / "serving.md").read_text()
    assert constraint_table() in text, "run `python -m tamiyo.live.reference`"
    assert START in text
    assert all(f"`{row.reason}`" in constraint_table() for row in (*CONSTRAINTS, *PROCESS))


def test_the_refusals_of_the_documentation_are_the_code(repository: Path) -> None:
    text = (repository / "docs" / "loop.md").read_text()
    assert refusal_table() in text, "run `python -m tamiyo.live.reference`"
    assert all(f"`{row.reason}`" in text for row in REFUSALS)


def test_an_answer_in_time_is_the_policys() -> None:
    found = Bench().answer()
    assert (found.reason, found.route, found.urgent) == ("policy", Route.GRAFT, False)
    assert found.command is not None
    assert found.command.command_type == pb.COMMAND_SEED


def test_past_the_budget_it_pauses_and_drops_the_late_result() -> None:
    bench = Bench(ServingConfig(budget_ms=20))
    gate = threading.Event()

    def late(_: pb.SystemStatePacket) -> Route:
        gate.wait()
        return Route.GRAFT

    bench.policy.act = late
    found = bench.answer()
    assert (found.reason, found.priority, found.route) == ("timeout_inference", "HIGH", Route.PAUSE)
    assert found.urgent
    assert found.command is not None
    assert found.command.command_type == pb.COMMAND_PAUSE
    assert found.command.annotations["reason"] == "timeout_inference"
    assert found.telemetry is not None
    assert [e.description for e in found.telemetry.events] == ["timeout_inference"]
    indicators = dict(found.telemetry.system_health.indicators)
    assert (indicators["reason"], indicators["timeout_budget_ms"]) == ("timeout_inference", "20")
    gate.set()
    bench.policy.act = lambda _: Route.GRAFT
    for number in range(1, 100):  # the thread may need a while to become free
        found = bench.answer(number, run=f"run-{number}")
        bench.metadata.succeeded()
        bench.decider.inference.succeeded()
        if found.reason == "policy":
            break
    assert found.command is not None
    assert found.command.annotations["packet_id"] == f"p-{number}"


def test_three_faults_open_the_breaker_and_one_trial_closes_it() -> None:
    bench = Bench()
    bench.policy.act = broken
    reasons = [bench.answer(number, run=f"run-{number}").reason for number in range(5)]
    assert reasons == ["inference_failed"] * 3 + ["conservative_mode"] * 2
    assert bench.policy.asked == 3
    assert bench.decider.conservative
    bench.now = 29.9
    found = bench.answer(5, run="run-5")
    assert (found.reason, found.route) == ("conservative_mode", Route.PAUSE)
    assert found.telemetry is not None
    assert {m.name: m.value for m in found.telemetry.metrics}["tamiyo.conservative_mode"] == 1.0
    bench.now = 30.0
    assert bench.answer(6, run="run-6").reason == "inference_failed"  # the trial fails: open again
    assert bench.answer(7, run="run-7").reason == "conservative_mode"
    assert bench.policy.asked == 4
    bench.now = 60.0
    bench.policy.act = lambda _: Route.GRAFT
    assert [bench.answer(number, run=f"run-{number}").reason for number in (8, 9)] == ["policy", "policy"]
    assert not bench.decider.conservative


def test_faults_that_are_not_in_a_row_open_nothing() -> None:
    bench = Bench()
    for number in range(12):
        bench.policy.act = broken if number % 3 else lambda _: Route.GRAFT
        bench.answer(number, run=f"run-{number}")
    assert bench.policy.asked == 12


def test_metadata_that_can_not_be_read_make_it_conservative() -> None:
    bench = Bench()
    for _ in range(3):
        bench.metadata.failed()
    assert bench.answer().reason == "conservative_mode"
    bench.now = 30.0
    assert bench.metadata.allows()
    assert not bench.metadata.allows()  # one trial
    bench.metadata.succeeded()
    assert bench.answer(1).reason == "policy"


def test_a_run_is_paused_once_in_ten_steps() -> None:
    bench = Bench()
    bench.policy.act = lambda _: Route.PAUSE
    found = [bench.answer(number) for number in range(21)]
    assert [number for number, one in enumerate(found) if one.route is Route.PAUSE] == [0, 10, 20]
    assert [one.command is not None for one in found] == [one.route is Route.PAUSE for one in found]
    assert {one.reason for one in found if one.route is Route.NO_OP} == {"pause_quota"}
    assert bench.answer(30, run="run-2").route is Route.PAUSE  # another run has a quota of its own


def test_the_quota_holds_in_conservative_mode() -> None:
    bench = Bench()
    bench.policy.act = broken
    found = [bench.answer(number) for number in range(20)]
    assert [number for number, one in enumerate(found) if one.route is Route.PAUSE] == [0, 10]


def test_a_run_is_told_to_adjust_once() -> None:
    bench = Bench()
    bench.policy.act = lambda _: Route.ADJUST
    found = [bench.answer(number) for number in range(5)]
    assert [one.route for one in found] == [Route.ADJUST, *[Route.NO_OP] * 4]
    assert {one.reason for one in found[1:]} == {"already_adjusted"}
    assert bench.answer(9, run="run-2").route is Route.ADJUST


def test_a_quota_of_one_step_pauses_always() -> None:
    quota = PauseQuota(1)
    quota.note("run", Route.PAUSE)
    assert quota.paused("run") == 0


def test_without_a_bundle_nothing_is_sent() -> None:
    found = Bench(bundle=False).answer()
    assert (found.reason, found.route, found.command) == ("no_bundle", Route.NO_OP, None)


def test_what_is_no_state_is_no_fault_and_no_answer() -> None:
    bench = Bench()
    for _ in range(5):
        found = bench.decider.answer(b"", pb.SystemStatePacket())
        assert (found.reason, found.command, found.telemetry) == ("not_a_state", None, None)
    assert bench.answer().reason == "policy"
