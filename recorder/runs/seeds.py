"""Keep the seeds of a host, one per candidate site, with their stage and history, and make Kasmina's records of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from recorder.hosts.spec import FAMILIES, HostSpec
from recorder.kernels import Site
from recorder.runs.grafts import Graft
from recorder.runs.schedules import TEMPERATURE
from recorder.speech.reports import POLICY_VERSION, TRIGGER_THRESHOLD
from schemas.configuration import BLENDING_METHODS
from schemas.leyline import leyline_pb2 as pb

DORMANT_KERNEL: Final = "kernel-identity"  # a dormant seed passes its site's output through
_ISOLATED: Final = (pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING)
GRAFTED: Final = (pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY)


@dataclass
class Seed:
    """A seed at one site. `layers` are the host layers that it monitors, `depth` that of the last of them.

    In `active_steps` of `seen_steps` its kernel trained or influenced the host. `verdicts` attempts have ended, `successes` of
    them in a fossil. `since` is the step at which the present stage began.
    """

    seed_id: str
    path: str
    site: Site
    layers: tuple[str, ...]
    depth: int
    stage: "pb.SeedLifecycleStage" = pb.SEED_STAGE_DORMANT
    blueprint_id: str = DORMANT_KERNEL
    alpha: float = 0.0
    graft: Graft | None = None
    quarantine: bool = False
    active_steps: int = 0
    seen_steps: int = 0
    verdicts: int = 0
    successes: int = 0
    since: int = 0
    born_step: int = 0
    gradient_norm: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def enter(self, stage: "pb.SeedLifecycleStage", step: int) -> None:
        """Begin a stage at a step."""
        self.stage, self.since = stage, step

    def take(self, kernel_id: str, step: int, *, quarantine: bool) -> None:
        """Take a kernel on: the stage becomes GERMINATED."""
        self.blueprint_id, self.born_step, self.quarantine = kernel_id, step, quarantine
        self.enter(pb.SEED_STAGE_GERMINATED, step)

    def advance(self, step: int, alpha: float) -> None:
        """Count one training step of the host with the graft, if any, at `alpha`; at 1 BLENDING becomes SHADOWING."""
        self.seen_steps += 1
        if self.stage in GRAFTED and self.graft is not None:
            self.alpha = self.graft.alpha = alpha
            if self.stage == pb.SEED_STAGE_BLENDING and alpha >= 1.0:
                self.enter(pb.SEED_STAGE_SHADOWING, step)
        self.active_steps += self.alpha > 0 or self.stage == pb.SEED_STAGE_TRAINING

    def conclude(self, held: bool, step: int) -> None:
        """End an attempt: FOSSILIZED if it held, else CULLED; the caller removes or keeps the graft."""
        self.enter(pb.SEED_STAGE_FOSSILIZED if held else pb.SEED_STAGE_CULLED, step)
        self.verdicts += 1
        self.successes += held
        self.alpha = 1.0 if held else 0.0
        self.graft, self.gradient_norm = None, None

    def reset(self, step: int) -> None:
        """Become DORMANT again, without a kernel; the history stays."""
        self.blueprint_id, self.quarantine, self.born_step = DORMANT_KERNEL, False, step
        self.metrics.clear()
        self.enter(pb.SEED_STAGE_DORMANT, step)

    def measure_gradient(self) -> None:
        """Store the norm of the seed's own gradients after a backward pass; None without parameters."""
        parameters = [] if self.graft is None else [p for p in self.graft.module.parameters() if p.grad is not None]
        squares = [float(p.grad.square().sum()) for p in parameters if p.grad is not None]
        self.gradient_norm = sum(squares) ** 0.5 if squares else None


def _capabilities(seed: Seed) -> pb.SeedCapabilities:
    """Return capabilities: a quarantined or isolated seed has no exemption, so the host's gradient never reaches it."""
    isolated = seed.quarantine or seed.stage in _ISOLATED
    return pb.SeedCapabilities(
        allowed_blending_methods=BLENDING_METHODS,
        allowed_optimizer_families=FAMILIES,
        isolation_exemptions=() if isolated else ("host_gradient",),
    )


def seed_state(seed: Seed, spec: HostSpec, *, step: int, now_ns: int, every: int, risk: float | None) -> pb.SeedState:
    """Return Kasmina's record of a seed at a packet's time. `risk` is the attached blueprint's measured risk score."""
    message = pb.SeedState(
        seed_id=seed.seed_id,
        stage=seed.stage,
        layer_depth=seed.depth,
        age_epochs=max(0, step - seed.born_step) * spec.batch // spec.samples,
        blueprint_id=seed.blueprint_id,
        monitored_layers=seed.layers,
        monitoring_frequency=1.0 / every,
        adaptation_trigger_threshold=TRIGGER_THRESHOLD,
        activity_level=seed.active_steps / max(seed.seen_steps, 1),
        risk_tolerance=spec.risk_tolerance,
        alpha=seed.alpha,
        alpha_schedule=pb.AlphaSchedule(method=spec.blending, total_steps=spec.alpha_steps, temperature=TEMPERATURE),
        quarantine_only=seed.quarantine,
        policy_version=POLICY_VERSION,
        capabilities=_capabilities(seed),
        training_run_id=spec.run_id,
        global_step=step,
        timestamp_ns=now_ns,
    )
    if seed.verdicts:
        message.success_rate = seed.successes / seed.verdicts
    if seed.gradient_norm is not None:
        message.gradient_norm, message.learning_rate = seed.gradient_norm, spec.learning_rate
    if risk is not None:
        message.risk_score = risk
    for name, value in seed.metrics.items():
        message.metrics[name] = value
    return message


def choose_sites(sites: Sequence[str], count: int) -> tuple[str, ...]:
    """Return `count` of a host's sites, spread evenly from the first to the last."""
    if len(sites) <= count:
        return tuple(sites)
    picked = {round(k * (len(sites) - 1) / max(count - 1, 1)) for k in range(count)}
    return tuple(sites[k] for k in sorted(picked))
