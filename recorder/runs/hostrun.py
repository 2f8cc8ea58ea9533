"""Run one host's training, from warm-up to the end of its graft, with everything that it exports."""

import math
import time
from collections.abc import Mapping

from recorder.exports import Records
from recorder.hosts import build_host
from recorder.hosts.spec import HostSpec
from recorder.runs.benching import benchmark
from recorder.runs.compiling import compile_status, issue
from recorder.runs.grafts import probe_site, seed_mode
from recorder.runs.grid import try_everything
from recorder.runs.lifecycle import decide, end_diverged, observe_graft
from recorder.runs.plan import RecordPlan
from recorder.runs.runstate import HostRun
from recorder.runs.schedules import alpha_at
from recorder.runs.seeds import Seed, choose_sites, seed_state
from recorder.runs.training import evaluate, train_step
from recorder.speech.catalogue import Measured, urza_record
from recorder.speech.clock import Clock
from recorder.speech.health import LATENCY_BUDGET_MS, Health, Machine
from recorder.speech.reports import TRIGGER_THRESHOLD
from recorder.speech.safety_sheets import host_sheet
from recorder.speech.vocabulary import SEED_IDS
from recorder.watch.observation import Observation
from recorder.watch.watcher import Watch, watch
from schemas.configuration import BLENDING_METHODS
from schemas.leyline import leyline_pb2 as pb


def record_host(plan: RecordPlan, spec: HostSpec, risks: Mapping[str, float], clock: Clock) -> Records:
    """Train host `spec` and return every record of its run, by folder."""
    run = begin(plan, spec, risks, clock)
    with watch(run.host.model, run.host.optimizer, every=plan.every, detailed=True, follow=False) as seen:
        warm_up(run, seen)
        while run.step < plan.total_steps and run.losses_finite:
            observation = train(run, seen)
            if observation is not None:
                _decide(run, tell_packet(run, observation))
        if not run.losses_finite:
            end_diverged(run)
    return run.records


def begin(plan: RecordPlan, spec: HostSpec, risks: Mapping[str, float], clock: Clock) -> HostRun:
    """Return the run of host `spec` before its first step."""
    machine = Machine()
    run = HostRun(plan, spec, risks, clock, machine, Health(machine), build_host(spec))
    run.host.model.train()
    return run


def train(run: HostRun, seen: Watch) -> Observation | None:
    """Carry out one step of the run: set the active graft's alpha, train, and close the step of the watch."""
    run.step += 1
    host, spec, attempt = run.host, run.spec, run.attempt
    since = attempt.blended(run.step) if attempt is not None else 0
    blending = attempt.blending if attempt is not None else spec.blending
    for seed in run.seeds:
        seed.advance(run.step, alpha_at(blending, since, spec.alpha_steps))
    loss = train_step(
        host.model, host.optimizer, host.share.train, batch=spec.batch, clip=spec.clip, seed=run.seed_for(run.step)
    )
    run.losses_finite = run.losses_finite and math.isfinite(float(loss))
    if attempt is not None and since:
        attempt.path.training.append(float(loss))
        if run.step % run.plan.every == 0:
            attempt.seed.measure_gradient()
    observation = seen.step(loss, spec.batch)
    if attempt is not None:
        observe_graft(run, attempt)
    return observation


def warm_up(run: HostRun, seen: Watch) -> None:
    """Train without packets, then describe the host: Urza's record, its own sheet, its compile status, its health."""
    looks: list[Observation] = []
    started = time.perf_counter()
    while run.step < run.plan.warmup_steps:
        observation = train(run, seen)
        if observation is not None:
            looks.append(observation)
    step_ms = (time.perf_counter() - started) * 1e3 / run.step
    _plant_seeds(run, seen)
    _describe(run, seen, looks, step_ms)
    run.report_health("recording starts")
    seen.detailed = False


def _plant_seeds(run: HostRun, seen: Watch) -> None:
    host, topology = run.host, seen.topology
    if topology is None:
        return
    for seed_id, path in zip(SEED_IDS, choose_sites(host.sites, run.plan.sites_of(run.spec.index)), strict=False):
        inside = [layer for layer in topology.layers if layer.layer_id == path or layer.layer_id.startswith(f"{path}.")]
        site = probe_site(host.model, path, host.share.train.inputs)
        names = tuple(layer.layer_id for layer in inside)
        run.seeds.append(Seed(seed_id, path, site, names, max((layer.depth for layer in inside), default=0)))


def _describe(run: HostRun, seen: Watch, looks: list[Observation], step_ms: float) -> None:
    spec, host, example = run.spec, run.host, run.host.share.train.inputs[: run.spec.batch]
    cost = benchmark(host.model, host.optimizer, example, step_ms=step_ms)
    losses = [look.loss for look in looks]
    norms = [look.metrics["gradient_norm"] for look in looks if "gradient_norm" in look.metrics]
    sheet = host_sheet(spec.blueprint_id, losses, norms, cost, issued_at_ns=run.clock.now())
    run.emit("urabrask/bsds", sheet)
    if seen.topology is not None:
        measured = Measured.of(seen, seen.topology, looks[-1])
        descriptor = host_descriptor(spec, sheet.risk_score)
        monitors = {
            "by_seed_id": {seed.seed_id: list(seed.layers) for seed in run.seeds},
            "thresholds": {seed.seed_id: TRIGGER_THRESHOLD for seed in run.seeds},
        }
        now = run.clock.now()
        record = urza_record(descriptor, measured, blending=BLENDING_METHODS, exported_at_ns=now, monitors=monitors)
        run.emit("urza/blueprint", record)
    update = compile_status(spec.blueprint_id, host.model, example, backend=run.plan.compile_backend)
    run.emit("tezzeret/kernel", issue(update, run.clock.now()))


def host_descriptor(spec: HostSpec, risk: float) -> pb.BlueprintDescriptor:
    """Return a host's descriptor; a stressed one is HIGH_RISK and needs approval."""
    return pb.BlueprintDescriptor(
        blueprint_id=spec.blueprint_id,
        name=f"{spec.architecture} on {spec.data_set}",
        tier=pb.BLUEPRINT_TIER_HIGH_RISK if spec.stress else pb.BLUEPRINT_TIER_SAFE,
        risk=risk,
        stage=spec.depth,
        quarantine_only=False,
        approval_required=spec.stress,
        description=f"{spec.depth} blocks of {spec.width}, {spec.activation}, norm {spec.norm}, {spec.samples} samples",
    )


def tell_packet(run: HostRun, seen: Observation) -> str:
    """Write the packet of a measured step, with its seeds; return the packet's id."""
    spec, graft = run.spec, run.attempt.seed.graft if run.attempt else None
    with seed_mode(graft, training=False):
        scores = evaluate(run.host.model, run.host.share.validation)
    run.health.observe_latency(seen.metrics["hook_latency_ms"])
    now = run.clock.now()
    packet = pb.SystemStatePacket(
        version=1,
        current_epoch=run.step * spec.batch // spec.samples,
        validation_accuracy=scores.accuracy,
        validation_loss=scores.loss,
        timestamp_ns=now,
        hardware_context=run.machine.hardware(),
        packet_id=f"{spec.run_id}-{run.step:06d}",
        global_step=run.step,
        training_loss=seen.loss,
        source_subsystem="tolaria",
        training_run_id=spec.run_id,
        experiment_name=spec.experiment,
        blueprint_id=spec.blueprint_id,
        layers=seen.layers,
        activations=seen.activations,
        parameters=seen.parameters,
        connections=seen.connections,
    )
    extra = {"latency_budget_ms": LATENCY_BUDGET_MS, "cpu_util_percent": run.machine.cpu_percent, "stress": float(spec.stress)}
    for name, value in (seen.metrics | extra).items():
        packet.training_metrics[name] = value
    for seed in run.seeds:
        risk = run.risks.get(seed.blueprint_id)
        state = seed_state(seed, spec, step=run.step, now_ns=now, every=run.plan.every, risk=risk)
        packet.seed_states.append(state)
        run.emit("kasmina/seed_state", state)
    run.emit("tolaria/system_state", packet)
    run.packet_ids.append(packet.packet_id)
    return packet.packet_id


def _decide(run: HostRun, packet_id: str) -> None:
    """Do what follows a packet: counterfactuals, the gates of the run's own grafts, a health report now and then."""
    if run.step in run.plan.states:
        started = run.clock.now()
        try_everything(run.host, run.seeds, run.step, packet_id, run.plan.grid_of(run.spec.index), run.clock, run.emit)
        run.health.span("recorder.runs.trials", packet_id, started, run.clock.now())
    decide(run, packet_id)
    if run.step % (10 * run.plan.every) == 0:
        run.report_health("recording goes on")
