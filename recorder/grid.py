"""The counterfactual grid of one state: every fitting kernel at every seed, in replicates, against shared controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recorder.clock import Clock
from recorder.exports import Record
from recorder.hosts import Host
from recorder.kernels import Kernel, fitting
from recorder.reports import field_report, graft_command, standard_errors
from recorder.schedules import METHODS
from recorder.seeds import Seed
from recorder.training import Snapshot, evaluate, snapshot, step_seed
from recorder.trials import Outcome, Trajectory, Treatment, compare, run_trial

Emit = Callable[[str, Record], None]


@dataclass(frozen=True)
class Grid:
    """How often and how far each pair is tried."""

    replicates: int
    horizons: tuple[int, ...]
    kernels: int | None = None  # at a site; None = every fitting one


@dataclass(frozen=True)
class State:
    """A state under trial: the host, its snapshot, the validation loss there, and one control a replicate."""

    host: Host
    snapshot: Snapshot
    base_loss: float
    controls: tuple[Trajectory, ...]
    grid: Grid

    def outcomes(self, treatment: Treatment) -> list[Outcome]:
        """Outcomes of a treatment: every replicate at every horizon."""
        found = []
        for replicate, control in enumerate(self.controls):
            treated = run_trial(self.host, self.snapshot, treatment, replicate=replicate, horizons=self.grid.horizons)
            found += [
                compare(control, treated, base_loss=self.base_loss, horizon=horizon, replicate=replicate)
                for horizon in self.grid.horizons
            ]
        return found


def open_state(host: Host, step: int, grid: Grid) -> State:
    """Freeze the host's state and measure its controls."""
    frozen = snapshot(host, step)
    base = evaluate(host.model, host.share.validation).loss
    controls = [run_trial(host, frozen, None, replicate=r, horizons=grid.horizons) for r in range(grid.replicates)]
    return State(host, frozen, base, tuple(controls), grid)


@dataclass(frozen=True)
class Pair:
    """One thing to try in a state: a kernel at a seed, blended one way."""

    seed: Seed
    kernel: Kernel
    method: str

    def command_id(self, packet_id: str) -> str:
        """Id of the command that asks for it."""
        return f"{packet_id}-{self.seed.seed_id}-{self.kernel.blueprint_id}-{self.method}"


def drawn(host: Host, seed: Seed, step: int, count: int | None) -> tuple[Kernel, ...]:
    """The kernels to try at a seed: all that fit, or `count` of them drawn for this state, in the policy's order."""
    kernels = fitting(seed.site.layout)
    if count is None or count >= len(kernels):
        return kernels
    rng = np.random.default_rng([host.spec.seed, host.spec.index, step, seed.depth])
    return tuple(kernels[k] for k in sorted(rng.choice(len(kernels), count, replace=False)))


def pairs_of(host: Host, seeds: Sequence[Seed], step: int, count: int | None) -> list[Pair]:
    """The drawn kernels at every seed with the host's method, and one of them also with the three other methods."""
    own = host.spec.blending
    pairs = [Pair(seed, kernel, own) for seed in seeds for kernel in drawn(host, seed, step, count)]
    trained = [pair for pair in pairs if pair.kernel.identity_start and pair.kernel.stage > 0]
    if trained:
        chosen = trained[step_seed(host.spec.seed, host.spec.index, step, 13) % len(trained)]
        pairs += [Pair(chosen.seed, chosen.kernel, method) for method in METHODS if method != own]
    return pairs


def try_everything(host: Host, seeds: Sequence[Seed], step: int, packet_id: str, grid: Grid, clock: Clock, emit: Emit) -> None:
    """Try every pair of this state; emits one command a pair and one report an outcome."""
    state, spec = open_state(host, step, grid), host.spec
    results = []
    for pair in pairs_of(host, seeds, step, grid.kernels):
        seed, kernel_id, command_id = pair.seed, pair.kernel.blueprint_id, pair.command_id(packet_id)
        command = graft_command(
            spec,
            seed,
            kernel_id,
            command_id=command_id,
            packet_id=packet_id,
            method=pair.method,
            steps=spec.alpha_steps,
            now_ns=clock.now(),
        )
        emit("tamiyo/command", command)
        treatment = Treatment(seed.path, seed.site, pair.kernel, pair.method, spec.alpha_steps)
        results.append((seed, kernel_id, command_id, state.outcomes(treatment)))
    for horizon in grid.horizons:
        errors = standard_errors([[o.uplift for o in found if o.horizon == horizon] for *_, found in results])
        for (seed, kernel_id, command_id, found), se in zip(results, errors, strict=True):
            for outcome in (o for o in found if o.horizon == horizon):
                emit(
                    "tamiyo/field_report",
                    field_report(
                        spec, seed, kernel_id, outcome, command_id=command_id, packet_id=packet_id, se=se, now_ns=clock.now()
                    ),
                )
