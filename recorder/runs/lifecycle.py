"""The life cycle of a run's own grafts: stages in the contract's order, each with a gate on measured behaviour.

Gates are asked at packets. In order:

- DORMANT: monitors its layers. At a graft step of the plan a dormant seed takes a fitting kernel, drawn at random since the
  recorder explores (command GERMINATE).
- GERMINATED: the kernel is built for the site. Gate: its output keeps the host's loss finite (command START_TRAINING).
- TRAINING: it learns in isolation (`isolation.py`). Gate: every gradient norm was finite, and ln(shadow loss / host's loss) did
  not rise by more than .02 (command START_GRAFTING). A quarantined kernel ends here: it is never blended into a run.
- BLENDING: alpha follows its schedule. Gate at every packet from here on: the validation loss stays within 1.5 times its value
  at the start.
- SHADOWING, from alpha 1 on: a shadow pass without the seed says what it contributes, ln(loss without / loss with). Gate: at
  least -.25 (command EVALUATE; STABILIZE when the stage began).
- PROBATIONARY: until the horizon. Verdict by the uplift against a control on the same batches: at least -.02 is FOSSILIZED,
  less is CULLED (commands FOSSILIZE, CULL).
- CULLED, whichever gate failed: the graft is off. At the next packet EMBARGOED for 20 steps, then RESETTING, then DORMANT.
"""

import math
from typing import Final

import numpy as np

from recorder.kernels import KERNELS, Kernel, fitting
from recorder.runs.grafts import fossilize, join, plant, uproot
from recorder.runs.isolation import gap, isolate, shadow_loss
from recorder.runs.plan import RecordPlan
from recorder.runs.runstate import Attempt, HostRun
from recorder.runs.seeds import DORMANT_KERNEL, GRAFTED, Seed
from recorder.runs.training import Snapshot, evaluate, snapshot, step_seed
from recorder.runs.trials import DENSE_EVERY, compare, look, run_trials
from recorder.speech.reports import TRIGGER_THRESHOLD, field_report, graft_command
from recorder.speech.safety_sheets import CRITICAL_RISK
from recorder.speech.uplift import Outcome, log_ratio
from schemas.leyline import leyline_pb2 as pb

TRAINING_STEPS: Final = 10
EMBARGO_STEPS: Final = 20
SHADOW_STEPS: Final = 10
FIRST_GATE: Final = 20  # steps of blending before a gate may end it: so many have their closing looks
GAP_RISE: Final = 0.02
LOSS_BAND: Final = 1.5
LEAST_CONTRIBUTION: Final = -0.25


def quarantined(kernel: Kernel, risk: float) -> bool:
    """Return whether a kernel may only live in quarantine: HIGH_RISK by its tier, or CRITICAL by its measured risk."""
    return kernel.tier == "HIGH_RISK" or risk >= CRITICAL_RISK


def decide(run: HostRun, packet_id: str) -> None:
    """Ask every gate that is due at this packet."""
    for seed in run.seeds:
        _recover(seed, run.step)
    if run.attempt is not None:
        _gate(run, run.attempt, packet_id)
    if run.attempt is None and run.step in run.plan.graft_steps:
        _germinate(run, packet_id)


def observe_graft(run: HostRun, attempt: Attempt) -> None:
    """Follow a step of the run: train the isolated seed, or look at the losses of a grafted run."""
    seed, spec = attempt.seed, run.spec
    measured_next = (run.step + 1) % run.plan.every == 0  # the watch's hooks are on: a shadow pass would be counted
    if seed.stage == pb.SEED_STAGE_TRAINING and attempt.isolation is not None and not measured_next:
        attempt.isolation.step(step_seed(spec.seed, spec.index, 17, run.step))
        seed.gradient_norm = attempt.isolation.norms[-1] if attempt.isolation.norms else None
    if seed.stage in GRAFTED:
        look(run.host.share, run.host.model, [seed.graft], [attempt.path], attempt.blended(run.step))


def end_diverged(run: HostRun) -> None:
    """End the graft of a run whose loss is no longer finite."""
    if run.attempt is not None and run.attempt.snapshot is not None:
        _conclude(run, run.attempt, "the loss is not finite", aborted=True)


def _recover(seed: Seed, step: int) -> None:
    if seed.stage == pb.SEED_STAGE_CULLED:
        seed.enter(pb.SEED_STAGE_EMBARGOED, step)
    elif seed.stage == pb.SEED_STAGE_EMBARGOED and step - seed.since >= EMBARGO_STEPS:
        seed.enter(pb.SEED_STAGE_RESETTING, step)
    elif seed.stage == pb.SEED_STAGE_RESETTING:
        seed.reset(step)


def _gate(run: HostRun, attempt: Attempt, packet_id: str) -> None:
    stage = attempt.seed.stage
    if stage == pb.SEED_STAGE_GERMINATED:
        _start_training(run, attempt, packet_id)
    elif stage == pb.SEED_STAGE_TRAINING and run.step - attempt.seed.since >= TRAINING_STEPS:
        _start_grafting(run, attempt, packet_id)
    elif stage in GRAFTED:
        _watch_graft(run, attempt, packet_id)


def _germinate(run: HostRun, packet_id: str) -> None:
    number = run.plan.graft_steps.index(run.step)
    rng = np.random.default_rng([run.spec.seed, run.spec.index, 5, number])
    free = [seed for seed in run.seeds if seed.stage == pb.SEED_STAGE_DORMANT]
    if not free:
        return
    seed = free[int(rng.integers(len(free)))]
    kernels = [kernel for kernel in fitting(seed.site.layout) if kernel.blueprint_id != DORMANT_KERNEL]
    _order(
        run, germinate(run, seed, kernels[int(rng.integers(len(kernels)))], run.spec.blending), packet_id, pb.SEED_OP_GERMINATE
    )


def germinate(run: HostRun, seed: Seed, kernel: Kernel, blending: str) -> Attempt:
    """Begin a graft in the run itself: the dormant seed takes the kernel, to be blended by that method."""
    seed.take(kernel.blueprint_id, run.step, quarantine=quarantined(kernel, run.risks.get(kernel.blueprint_id, 0.0)))
    run.attempt = Attempt(run.attempts, seed, blending)
    run.attempts += 1
    return run.attempt


def shortest(plan: RecordPlan) -> int:
    """Return the smallest number of steps from the germination of a graft to its verdict."""
    return plan.every + max(TRAINING_STEPS, plan.every) + plan.horizons[0]


def cull(run: HostRun, attempt: Attempt, packet_id: str, reason: str) -> None:
    """End a graft by order; it is measured first if it was blended for long enough."""
    if attempt.blended(run.step) >= FIRST_GATE:
        _conclude(run, attempt, reason, aborted=True)
    else:
        _cull(run, attempt, packet_id, reason)


def _start_training(run: HostRun, attempt: Attempt, packet_id: str) -> None:
    seed, spec = attempt.seed, run.spec
    own = step_seed(spec.seed, spec.index, 9, attempt.number)
    seed.graft = plant(run.host.model, seed.path, seed.site, KERNELS[seed.blueprint_id], own)
    attempt.isolation = isolate(run.host, seed.graft)
    if not math.isfinite(attempt.isolation.before):
        _cull(run, attempt, packet_id, "its output is not finite")
        return
    seed.enter(pb.SEED_STAGE_TRAINING, run.step)
    _order(run, attempt, packet_id, pb.SEED_OP_START_TRAINING)


def _start_grafting(run: HostRun, attempt: Attempt, packet_id: str) -> None:
    seed, isolation = attempt.seed, attempt.isolation
    if seed.graft is None or isolation is None:
        return
    after = gap(run.host, seed.graft)
    learned = all(map(math.isfinite, [*isolation.norms, after])) and after <= isolation.before + GAP_RISE
    if math.isfinite(after):
        seed.metrics["shadow_gap"] = after
    if seed.quarantine or not learned:
        _cull(run, attempt, packet_id, "its quarantine is over" if learned else "it did not learn in isolation")
        return
    attempt.base_loss = evaluate(run.host.model, run.host.share.validation).loss
    attempt.snapshot, attempt.packet_id = snapshot(run.host, run.step), packet_id
    join([seed.graft], run.host.optimizer)
    seed.enter(pb.SEED_STAGE_BLENDING, run.step)
    _order(run, attempt, packet_id, pb.SEED_OP_START_GRAFTING)


def _watch_graft(run: HostRun, attempt: Attempt, packet_id: str) -> None:
    seed, since = attempt.seed, attempt.blended(run.step)
    loss = attempt.path.validation.get(since, math.inf)
    if since >= FIRST_GATE and not loss <= LOSS_BAND * attempt.base_loss:
        _conclude(run, attempt, "the loss left its band", aborted=True)
    elif seed.stage == pb.SEED_STAGE_SHADOWING and run.step - seed.since >= SHADOW_STEPS and seed.graft is not None:
        without = shadow_loss(run.host, seed.graft, run.host.share.validation, alpha=0.0)
        contribution = log_ratio(without, loss)
        seed.metrics["contribution"] = contribution if math.isfinite(contribution) else -1.0
        if not contribution >= LEAST_CONTRIBUTION:
            _conclude(run, attempt, "the host does better without it", aborted=True)
        else:
            seed.enter(pb.SEED_STAGE_PROBATIONARY, run.step)
            _order(run, attempt, packet_id, pb.SEED_OP_EVALUATE)
    elif seed.stage == pb.SEED_STAGE_SHADOWING and "stabilized" not in seed.metrics:
        seed.metrics["stabilized"] = float(run.step)
        _order(run, attempt, packet_id, pb.SEED_OP_STABILIZE)
    if run.attempt is attempt and since >= run.plan.horizons[0]:
        _conclude(run, attempt, "", aborted=False)


def _measure(run: HostRun, attempt: Attempt, state: Snapshot) -> Outcome:
    """Compare the run since blending began with a control on the run's own batches."""
    horizon = max(FIRST_GATE, math.ceil(attempt.blended(run.step) / DENSE_EVERY) * DENSE_EVERY)
    (control,) = run_trials(
        run.host,
        state,
        [None],
        replicate=0,
        horizons=(horizon,),
        stream=lambda step: run.seed_for(state.step + step),
        dense=True,
    )
    return compare(control, attempt.path, base_loss=attempt.base_loss, horizon=horizon, replicate=0)


def _conclude(run: HostRun, attempt: Attempt, reason: str, *, aborted: bool) -> None:
    """Conclude a graft that was blended: measure it, report it, and carry out the verdict."""
    seed, spec = attempt.seed, run.spec
    if attempt.snapshot is None or seed.graft is None:
        return
    outcome = _measure(run, attempt, attempt.snapshot)
    held = not aborted and outcome.uplift >= -TRIGGER_THRESHOLD
    seed.metrics["uplift"] = outcome.uplift if math.isfinite(outcome.uplift) else -1.0
    report = field_report(
        spec,
        seed.seed_id,
        seed.blueprint_id,
        outcome,
        layer_id=seed.layers[0],
        command_id=command_name(run, attempt, pb.SEED_OP_START_GRAFTING),
        packet_id=attempt.packet_id,
        se=math.nan,
        now_ns=run.clock.now(),
        aborted=aborted,
    )
    run.emit("tamiyo/field_report", report)
    if not held:
        _cull(run, attempt, attempt.packet_id, reason or f"its uplift is {outcome.uplift:.3f}")
        return
    _order(run, attempt, attempt.packet_id, pb.SEED_OP_FOSSILIZE)
    fossilize(run.host.model, run.host.optimizer, seed.path, seed.graft)
    _finish(run, attempt, held=True, reason=f"its uplift is {outcome.uplift:.3f}")


def _cull(run: HostRun, attempt: Attempt, packet_id: str, reason: str) -> None:
    _order(run, attempt, packet_id, pb.SEED_OP_CULL)
    if attempt.seed.graft is not None:
        uproot(attempt.seed.graft, run.host.optimizer)
    _finish(run, attempt, held=False, reason=reason)


def _finish(run: HostRun, attempt: Attempt, *, held: bool, reason: str) -> None:
    attempt.seed.conclude(held, run.step)
    attempt.seed.metrics.pop("stabilized", None)
    run.attempt = None
    run.health.conservative = not held
    run.report_health(f"{attempt.seed.seed_id} {'fossilized' if held else 'culled'}: {reason}")


def command_name(run: HostRun, attempt: Attempt, operation: "pb.SeedOperation") -> str:
    """Return the id of one of the commands of the run's own grafts."""
    name = {pb.SEED_OP_START_GRAFTING: "graft"}.get(operation, pb.SeedOperation.Name(operation)[len("SEED_OP_") :].lower())
    return f"{run.spec.run_id}-own-{attempt.number + 1}-{name}"


def _order(run: HostRun, attempt: Attempt, packet_id: str, operation: "pb.SeedOperation") -> None:
    command = graft_command(
        run.spec,
        attempt.seed.seed_id,
        attempt.seed.blueprint_id,
        command_id=command_name(run, attempt, operation),
        packet_id=packet_id,
        method=attempt.blending,
        steps=run.spec.alpha_steps,
        now_ns=run.clock.now(),
        operation=operation,
    )
    run.emit("tamiyo/command", command)
