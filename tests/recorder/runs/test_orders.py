"""A policy's commands at a live host: one case for each row of refusals, and what is carried out."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from recorder.runs.live import LiveHost
from recorder.runs.orders import REFUSALS, refusal
from recorder.runs.plan import RecordPlan
from recorder.speech.clock import Clock
from schemas.leyline import leyline_pb2 as pb

KERNEL = "kernel-linear"


def plan(root: Path, **changes: object) -> RecordPlan:
    values = {
        "exports": root,
        "replicates": 1,
        "horizons": (20, 30),
        "total_steps": 120,
        "long_every": 0,
        "data_sets": ("digits",),
        "architectures": ("mlp",),
        "compile_backend": "eager",
        "stress_share": 0.0,
    }
    return RecordPlan.model_validate(values | changes)


@pytest.fixture
def host(tmp_path: Path) -> LiveHost:
    """A host after its first packet."""
    found = live(plan(tmp_path))
    found.go_on()
    found.take()
    return found


def live(plan: RecordPlan) -> LiveHost:
    return LiveHost(plan, plan.host(0), {"kernel-tanh": 0.9}, Clock())


def order(host: LiveHost, **changes: object) -> pb.AdaptationCommand:
    """GERMINATE at the first seed, in answer to the newest packet."""
    found = pb.AdaptationCommand(command_id="c-1", command_type=pb.COMMAND_SEED, target_seed_id="seed-1", issued_by="tamiyo")
    found.seed_operation.operation = pb.SEED_OP_GERMINATE
    found.seed_operation.blueprint_id = KERNEL
    found.seed_operation.parameters.update({"blending_method_index": 0.0, "blending_schedule_end": 1.0})
    found.annotations.update({"packet_id": host.run.packet_ids[-1], "blending_method": "linear", "policy_version": "p-1"})
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def pause(host: LiveHost) -> pb.AdaptationCommand:
    found = order(host, command_type=pb.COMMAND_PAUSE)
    found.ClearField("seed_operation")
    return found


def adjustment(host: LiveHost, **values: float) -> pb.AdaptationCommand:
    found = order(host, command_type=pb.COMMAND_OPTIMIZER)
    found.optimizer_adjustment.optimizer_id = host.run.spec.optimizer
    found.optimizer_adjustment.hyperparameters.update(values)
    return found


def _over(host: LiveHost) -> pb.AdaptationCommand:
    found = order(host)
    host.run.losses_finite = False
    return found


def _overtaken(host: LiveHost) -> pb.AdaptationCommand:
    found = order(host)
    host.go_on()
    assert refusal(host.run, found) is None  # the last packet but one
    host.go_on()
    return found


def _operation(host: LiveHost) -> pb.AdaptationCommand:
    return order(host, command_type=pb.COMMAND_STRUCTURAL_PRUNING)


def _of_kernel(kernel: str) -> Callable[[LiveHost], pb.AdaptationCommand]:
    def made(host: LiveHost) -> pb.AdaptationCommand:
        found = order(host)
        found.seed_operation.blueprint_id = kernel
        return found

    return made


def _cull(host: LiveHost) -> pb.AdaptationCommand:
    found = order(host)
    found.seed_operation.operation = pb.SEED_OP_CULL
    return found


def _blending(host: LiveHost) -> pb.AdaptationCommand:
    found = order(host)
    found.annotations["blending_method"] = "cosine"  # the index says linear
    return found


def _busy(host: LiveHost) -> pb.AdaptationCommand:
    assert host.obey(order(host))[0] is None
    return order(host, target_seed_id="seed-2")


def _fossil(host: LiveHost) -> pb.AdaptationCommand:
    host.run.seeds[0].stage = pb.SEED_STAGE_FOSSILIZED
    return order(host)


def _late(host: LiveHost) -> pb.AdaptationCommand:
    while host.run.step < 90:
        host.go_on()
    return order(host)


def _family(host: LiveHost) -> pb.AdaptationCommand:
    found = adjustment(host, learning_rate_scale=0.5)
    found.optimizer_adjustment.optimizer_id = "lion"
    return found


CASES: dict[str, Callable[[LiveHost], pb.AdaptationCommand]] = {
    "run_over": _over,
    "overtaken": _overtaken,
    "unknown_operation": _operation,
    "unknown_seed": lambda host: order(host, target_seed_id="seed-9"),
    "nothing_to_cull": _cull,
    "unknown_kernel": _of_kernel("kernel-of-nobody"),
    "kernel_does_not_fit": _of_kernel("kernel-conv"),
    "kernel_quarantined": _of_kernel("kernel-tanh"),
    "unknown_blending": _blending,
    "run_ends_first": _late,
    "host_busy": _busy,
    "seed_not_dormant": _fossil,
    "other_optimizer": _family,
    "rate_out_of_bounds": lambda host: adjustment(host, learning_rate_scale=3.0),
}


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.reason)
def test_a_row_refuses_and_nobody_does_without_it(row, host: LiveHost) -> None:
    found = CASES[row.reason](host)
    assert refusal(host.run, found) == row.reason
    rest = tuple(other for other in REFUSALS if other is not row)
    if row.reason not in ("unknown_seed", "unknown_kernel"):  # the rows after these need what they ask for
        assert refusal(host.run, found, rest) is None


def test_a_graft_is_measured_against_its_control_and_lives_on_in_the_run(host: LiveHost) -> None:
    before = host.run.packet_ids[-1]
    reason, outcomes = host.obey(order(host))
    assert reason is None
    assert [outcome.horizon for outcome in outcomes] == [20, 30]
    reports = host.take()["tamiyo/field_report"]
    assert [report.report_id for report in reports] == ["c-1-h20-r0", "c-1-h30-r0"]
    for report, outcome in zip(reports, outcomes, strict=True):
        assert (report.command_id, report.packet_id, report.tamiyo_policy_version) == ("c-1", before, "p-1")
        assert (report.seed_id, report.blueprint_id) == ("seed-1", KERNEL)
        treated, control = report.base_loss + report.treated_delta, report.base_loss + report.control_delta
        assert math.log(control / treated) == pytest.approx(outcome.uplift, abs=1e-4)
        assert outcome.uplift != 0.0
    while not host.is_over:
        host.go_on()
    records = host.take()
    stages = {state.stage for packet in records["tolaria/system_state"] for state in packet.seed_states[:1]}
    assert {pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING} <= stages
    ordered = [command.seed_operation.operation for command in records["tamiyo/command"]]
    assert ordered[0] == pb.SEED_OP_START_TRAINING  # the policy's own command was the first
    assert ordered[-1] in (pb.SEED_OP_FOSSILIZE, pb.SEED_OP_CULL)
    assert "tamiyo/telemetry" not in records  # the policy speaks for itself


def test_measuring_a_graft_does_not_touch_the_run(tmp_path: Path) -> None:
    """A kernel that changes nothing, measured and culled: the run's losses are those of a run without it."""
    runs = []
    for obeys in (False, True):
        host = live(plan(tmp_path))
        host.go_on()
        if obeys:
            found = order(host)
            found.seed_operation.blueprint_id = "kernel-identity"
            _, outcomes = host.obey(found)
            assert {outcome.uplift for outcome in outcomes} == {0.0}
        while not host.is_over:
            host.go_on()
        runs.append([packet.training_loss for packet in host.take()["tolaria/system_state"]])
    assert runs[0] == runs[1]


def test_a_pause_holds_one_packet(host: LiveHost) -> None:
    step = host.run.step
    assert host.obey(pause(host)) == (None, ())
    host.go_on()
    assert (host.run.step, host.take()) == (step, {})
    host.go_on()
    assert host.run.step == step + host.run.plan.every


def test_the_learning_rate_is_lowered_within_bounds(host: LiveHost) -> None:
    own = host.run.spec.learning_rate
    for _ in range(2):
        assert host.obey(adjustment(host, learning_rate_scale=0.5, learning_rate=1.0)) == (None, ())
    assert {group["lr"] for group in host.run.host.optimizer.param_groups} == {own * 0.25}
    assert host.obey(adjustment(host, learning_rate_scale=0.5))[0] == "rate_out_of_bounds"
    assert host.obey(adjustment(host, learning_rate=own))[0] is None
    assert host.obey(adjustment(host, momentum=0.5, learning_rate=own))[0] == "rate_out_of_bounds"


def test_a_cull_ends_the_graft(host: LiveHost) -> None:
    assert host.obey(order(host))[0] is None
    host.go_on()
    host.take()
    assert host.obey(_cull(host)) == (None, ())
    assert host.run.attempt is None
    assert host.run.seeds[0].stage == pb.SEED_STAGE_CULLED
    assert [command.seed_operation.operation for command in host.take()["tamiyo/command"]] == [pb.SEED_OP_CULL]
