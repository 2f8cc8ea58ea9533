"""The counterfactual grid of one state: every fitting kernel at every seed, in replicates, against shared controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recorder.clock import Clock
from recorder.exports import Record
from recorder.hosts import Host
from recorder.kernels import fitting
from recorder.reports import field_report, graft_command, standard_errors
from recorder.seeds import Seed
from recorder.training import Snapshot, evaluate, snapshot
from recorder.trials import Outcome, Trajectory, Treatment, compare, run_trial

Emit = Callable[[str, Record], None]


@dataclass(frozen=True)
class Grid:
    """How often and how far each pair is tried."""

    replicates: int
    horizons: tuple[int, ...]


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


def try_everything(
    host: Host, seeds: Sequence[Seed], step: int, packet_id: str, grid: Grid, clock: Clock, emit: Emit
) -> None:
    """Try every fitting kernel at every seed of this state; emits one command a pair and one report an outcome."""
    state, spec = open_state(host, step, grid), host.spec
    pairs = [(seed, kernel.blueprint_id, kernel) for seed in seeds for kernel in fitting(seed.site.layout)]
    results = []
    for seed, kernel_id, kernel in pairs:
        command_id = f"{packet_id}-{seed.seed_id}-{kernel_id}"
        command = graft_command(
            spec,
            seed,
            kernel_id,
            command_id=command_id,
            packet_id=packet_id,
            method=spec.blending,
            steps=spec.alpha_steps,
            now_ns=clock.now(),
        )
        emit("tamiyo/command", command)
        treatment = Treatment(seed.path, seed.site, kernel, spec.blending, spec.alpha_steps)
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
