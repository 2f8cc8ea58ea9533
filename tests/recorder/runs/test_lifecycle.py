"""The run's own grafts: stages in the contract's order, isolation, gates, quarantine, and what becomes of a seed."""

import copy
import math
from itertools import pairwise

import pytest
import torch

from recorder.hosts import build_host, draw_host
from recorder.kernels import KERNELS
from recorder.runs.grafts import fossilize, join, plant, probe_site, uproot
from recorder.runs.hostrun import record_host
from recorder.runs.isolation import gap, isolate, shadow_loss
from recorder.runs.lifecycle import quarantined
from recorder.runs.plan import RecordPlan
from recorder.runs.training import evaluate, snapshot, step_seed, train_step
from recorder.speech.clock import Clock
from schemas.leyline import leyline_pb2 as pb

AFTER = {
    "DORMANT": {"DORMANT", "GERMINATED"},
    "GERMINATED": {"TRAINING", "CULLED"},
    "TRAINING": {"BLENDING", "SHADOWING", "CULLED"},
    "BLENDING": {"BLENDING", "SHADOWING", "CULLED"},
    "SHADOWING": {"SHADOWING", "PROBATIONARY", "CULLED"},
    "PROBATIONARY": {"PROBATIONARY", "FOSSILIZED", "CULLED"},
    "FOSSILIZED": {"FOSSILIZED"},
    "CULLED": {"EMBARGOED"},
    "EMBARGOED": {"EMBARGOED", "RESETTING"},
    "RESETTING": {"DORMANT"},
}


def small(root) -> RecordPlan:
    return RecordPlan(
        exports=root,
        states=(50,),
        replicates=1,
        replicate_cap=1,
        horizons=(30,),
        kernels=2,
        methods=0,
        graft_steps=(50, 100),
        total_steps=160,
        long_every=0,
        data_sets=("digits",),
        architectures=("mlp",),
        compile_backend="eager",
    )


def stages(records):
    """Stages of each seed along the run."""
    found: dict[str, list[str]] = {}
    for packet in records["tolaria/system_state"]:
        for seed in packet.seed_states:
            found.setdefault(seed.seed_id, []).append(pb.SeedLifecycleStage.Name(seed.stage).removeprefix("SEED_STAGE_"))
    return found


@pytest.fixture(scope="module", params=[0, 4])
def run(request, tmp_path_factory):
    """Records of a run with two grafts."""
    plan = small(tmp_path_factory.mktemp("run"))
    return record_host(plan, plan.host(request.param), {}, Clock())


def test_stages_follow_the_contracts_order(run):
    for path in stages(run).values():
        assert path[0] == "DORMANT"
        for before, after in pairwise(path):
            assert after in AFTER[before], path


def test_a_run_takes_two_grafts_and_orders_every_stage(run):
    names = [command.command_id.partition("-own-")[2] for command in run["tamiyo/command"] if "-own-" in command.command_id]
    assert len(names) == len(set(names))
    for number in ("1", "2"):
        mine = [name.partition("-")[2] for name in names if name.startswith(number)]
        assert mine[:2] == ["germinate", "start_training"]
        assert mine[-1] in ("fossilize", "cull")
        reports = [r for r in run["tamiyo/field_report"] if r.command_id.endswith(f"-own-{number}-graft")]
        assert len(reports) == ("graft" in mine)


def test_history_tells_of_success_and_activity(run):
    last = run["tolaria/system_state"][-1]
    told = [seed for seed in last.seed_states if seed.HasField("success_rate")]
    assert told
    assert all(0.0 <= seed.success_rate <= 1.0 and seed.activity_level > 0.0 for seed in told)


def test_a_seed_before_blending_has_no_alpha(run):
    for packet in run["tolaria/system_state"]:
        for seed in packet.seed_states:
            if seed.stage in (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_CULLED):
                assert seed.alpha == 0.0


@pytest.fixture
def host():
    """A host after 20 steps."""
    spec = draw_host(3, 11, "digits", "mlp", stress=False)
    made = build_host(spec)
    made.model.train()
    for step in range(20):
        train_step(made.model, made.optimizer, made.share.train, batch=spec.batch, clip=spec.clip, seed=step_seed(3, 11, step))
    return made


def planted(host, kernel_id):
    path = host.sites[0]
    site = probe_site(host.model, path, host.share.train.inputs)
    return path, plant(host.model, path, site, KERNELS[kernel_id], 1)


def test_an_isolated_seed_learns_and_the_host_neither_sees_nor_feels_it(host):
    _, graft = planted(host, "kernel-mlp-gelu")
    before = copy.deepcopy(host.model.state_dict())
    loss = evaluate(host.model, host.share.validation).loss
    isolation = isolate(host, graft)
    for step in range(20):
        isolation.step(step)
    assert gap(host, graft) < isolation.before
    assert all(math.isfinite(norm) for norm in isolation.norms)
    assert all(torch.equal(value, host.model.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is None or p.grad.isfinite().all() for p in host.model.parameters())
    assert evaluate(host.model, host.share.validation).loss == loss


def test_a_fossil_is_part_of_the_host_its_snapshots_and_its_optimizer(host):
    path = host.sites[0]
    site = probe_site(host.model, path, host.share.train.inputs)
    graft = plant(host.model, path, site, KERNELS["kernel-linear"], 1)
    join([graft], host.optimizer)
    graft.alpha = 1.0
    for step in range(5):
        train_step(host.model, host.optimizer, host.share.train, batch=16, clip=0.0, seed=step)
    loss = shadow_loss(host, graft, host.share.validation)
    fossilize(host.model, host.optimizer, path, graft)
    assert evaluate(host.model, host.share.validation).loss == loss
    model, optimizer = snapshot(host, 25).restore(host)
    assert evaluate(model, host.share.validation).loss == loss
    assert [group["name"] for group in optimizer.param_groups][-1] == f"fossil-{path}"


def test_what_is_uprooted_leaves_nothing_behind(host):
    before = evaluate(host.model, host.share.validation).loss
    groups, states = len(host.optimizer.param_groups), len(host.optimizer.state)
    path = host.sites[-1]
    site = probe_site(host.model, path, host.share.train.inputs)
    graft = plant(host.model, path, site, KERNELS["kernel-tanh"], 1)
    join([graft], host.optimizer)
    uproot(graft, host.optimizer)
    assert evaluate(host.model, host.share.validation).loss == before
    assert (len(host.optimizer.param_groups), len(host.optimizer.state)) == (groups, states)


def test_a_snapshot_leaves_a_graft_on_trial_out(host):
    path = host.sites[0]
    site = probe_site(host.model, path, host.share.train.inputs)
    before = evaluate(host.model, host.share.validation).loss
    graft = plant(host.model, path, site, KERNELS["kernel-linear"], 1)
    join([graft], host.optimizer)
    graft.alpha = 1.0
    model, optimizer = snapshot(host, 20).restore(host)
    assert evaluate(model, host.share.validation).loss == before
    assert [group["name"] for group in optimizer.param_groups] == ["weight", "bias", "head"]


@pytest.mark.parametrize(
    ("kernel", "risk", "expected"),
    [("kernel-linear", 0.1, False), ("kernel-linear", 0.7, True), ("kernel-batch-norm", 0.0, True)],
)
def test_high_risk_tiers_and_critical_risks_live_in_quarantine(kernel, risk, expected):
    assert quarantined(KERNELS[kernel], risk) is expected


def test_a_quarantined_kernel_is_never_blended_into_the_run(tmp_path):
    plan = small(tmp_path)
    everything = dict.fromkeys(KERNELS, 1.0)
    records = record_host(plan, plan.host(0), everything, Clock())
    seen = {stage for path in stages(records).values() for stage in path}
    assert not seen & {"BLENDING", "SHADOWING", "PROBATIONARY", "FOSSILIZED"}
    assert {"TRAINING", "CULLED", "EMBARGOED", "RESETTING"} <= seen
    held = [seed for packet in records["tolaria/system_state"] for seed in packet.seed_states if seed.quarantine_only]
    assert held
    assert all(seed.alpha == 0.0 and not seed.capabilities.isolation_exemptions for seed in held)
