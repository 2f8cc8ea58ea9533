"""Seeds: one for each candidate site of a host, from DORMANT to FOSSILIZED or CULLED, and what Kasmina says of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from recorder.grafts import Graft
from recorder.hosts.spec import FAMILIES, HostSpec
from recorder.kernels import Site
from recorder.schedules import METHODS, TEMPERATURE
from schemas.leyline import leyline_pb2 as pb

POLICY_VERSION: Final = "recorder-exploration-1"
DORMANT_KERNEL: Final = "kernel-identity"  # a dormant seed passes its site's output through
TRIGGER_THRESHOLD: Final = 0.02  # |u| under which a graft counts as neutral


@dataclass
class Seed:
    """A seed at one site. `layers` are the host layers that it monitors, `depth` that of the last of them."""

    seed_id: str
    path: str
    site: Site
    layers: tuple[str, ...]
    depth: int
    stage: "pb.SeedLifecycleStage" = pb.SEED_STAGE_DORMANT
    blueprint_id: str = DORMANT_KERNEL
    alpha: float = 0.0
    graft: Graft | None = None
    active_steps: int = 0
    seen_steps: int = 0
    attempts: int = 0
    successes: int = 0
    born_step: int = 0
    gradient_norm: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def germinate(self, kernel_id: str, step: int) -> None:
        """Take a kernel on; it is built and blends when its graft starts."""
        self.stage, self.blueprint_id, self.born_step = pb.SEED_STAGE_GERMINATED, kernel_id, step
        self.attempts += 1

    def advance(self, alpha: float) -> None:
        """One training step: the graft's alpha, and BLENDING below 1, PROBATIONARY at 1."""
        self.seen_steps += 1
        if self.graft is None or self.stage in (pb.SEED_STAGE_FOSSILIZED, pb.SEED_STAGE_CULLED):
            self.active_steps += self.stage == pb.SEED_STAGE_FOSSILIZED
            return
        self.alpha = self.graft.alpha = alpha
        self.active_steps += alpha > 0
        self.stage = pb.SEED_STAGE_PROBATIONARY if alpha >= 1.0 else pb.SEED_STAGE_BLENDING

    def settle(self, uplift: float) -> bool:
        """The gate after probation: FOSSILIZED unless the measured uplift is a loss (or no number); True where it held."""
        held = uplift > -TRIGGER_THRESHOLD
        self.stage = pb.SEED_STAGE_FOSSILIZED if held else pb.SEED_STAGE_CULLED
        self.successes += held
        if not held and self.graft is not None:
            self.graft.remove()
            self.alpha = 0.0
        return held

    def measure_gradient(self) -> None:
        """Norm of the seed's own gradients after a backward pass; None without parameters."""
        parameters = [] if self.graft is None else [p for p in self.graft.module.parameters() if p.grad is not None]
        squares = [float(p.grad.square().sum()) for p in parameters if p.grad is not None]
        self.gradient_norm = sum(squares) ** 0.5 if squares else None


def _capabilities() -> pb.SeedCapabilities:
    return pb.SeedCapabilities(
        allowed_blending_methods=METHODS,
        allowed_optimizer_families=FAMILIES,
        isolation_exemptions=("host_gradient",),  # the host's gradient flows through a blended seed
    )


def seed_state(seed: Seed, spec: HostSpec, *, step: int, now_ns: int, every: int, risk: float | None) -> pb.SeedState:
    """Kasmina's record of a seed at a packet's time. `risk` is the attached blueprint's measured risk score."""
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
        quarantine_only=False,
        policy_version=POLICY_VERSION,
        capabilities=_capabilities(),
        training_run_id=spec.run_id,
        global_step=step,
        timestamp_ns=now_ns,
    )
    if seed.attempts and seed.stage in (pb.SEED_STAGE_FOSSILIZED, pb.SEED_STAGE_CULLED):
        message.success_rate = seed.successes / seed.attempts
    if seed.gradient_norm is not None:
        message.gradient_norm, message.learning_rate = seed.gradient_norm, spec.learning_rate
    if risk is not None:
        message.risk_score = risk
    for name, value in seed.metrics.items():
        message.metrics[name] = value
    return message


def choose_sites(sites: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of a host's sites, spread evenly from the first to the last."""
    if len(sites) <= count:
        return tuple(sites)
    picked = {round(k * (len(sites) - 1) / max(count - 1, 1)) for k in range(count)}
    return tuple(sites[k] for k in sorted(picked))
