"""Try the counterfactual grid of one state: every fitting kernel at every seed, in replicates, against shared controls."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recorder.exports import Record
from recorder.hosts import Host
from recorder.kernels import Kernel, fitting
from recorder.runs.seeds import DORMANT_KERNEL, Seed
from recorder.runs.training import Snapshot, evaluate, snapshot, step_seed
from recorder.runs.trials import Trajectory, Treatment, compare, run_trials
from recorder.speech.clock import Clock
from recorder.speech.reports import field_report, graft_command, standard_errors
from recorder.speech.uplift import Outcome
from schemas.configuration import BLENDING_METHODS

Emit = Callable[[str, Record], None]
STACK: Final = 16  # copies of a host that are trained at once, at most: more no longer fit into the processor's caches
SURE_ENOUGH: Final = 0.01  # standard error of a mean uplift that needs no further replicate, whatever the uplift


@dataclass(frozen=True)
class Grid:
    """How often and how far each pair is tried."""

    replicates: int
    horizons: tuple[int, ...]
    kernels: int | None = None  # number per state, dealt to its sites; None: every fitting kernel at each site
    cap: int = 0  # most replicates of a pair whose mean uplift is within two standard errors of 0, if above `replicates`
    methods: int = 3  # other blending methods that one pair of a state is tried with


@dataclass
class State:
    """A state under trial: the host, its snapshot, the validation loss there, and one control per replicate, made on demand."""

    host: Host
    snapshot: Snapshot
    base_loss: float
    grid: Grid
    controls: dict[int, Trajectory]

    def outcomes(self, treatments: Sequence[Treatment], replicates: range) -> list[list[Outcome]]:
        """Return outcomes of each treatment in these replicates at every horizon."""
        found: list[list[Outcome]] = [[] for _ in treatments]
        for replicate in replicates:
            for outcomes, treated in zip(found, self._trajectories(treatments, replicate), strict=True):
                control = self.controls[replicate]
                outcomes += [
                    compare(control, treated, base_loss=self.base_loss, horizon=horizon, replicate=replicate)
                    for horizon in self.grid.horizons
                ]
        return found

    def _trajectories(self, treatments: Sequence[Treatment], replicate: int) -> list[Trajectory]:
        """Run one replicate, with its control if that has not run yet; the identity's trajectory is the control's."""
        real = [each for each in treatments if each.kernel.blueprint_id != DORMANT_KERNEL]
        waiting: list[Treatment | None] = [*real] if replicate in self.controls else [None, *real]
        paths: list[Trajectory] = []
        for first in range(0, len(waiting), STACK):
            part = waiting[first : first + STACK]
            paths += run_trials(self.host, self.snapshot, part, replicate=replicate, horizons=self.grid.horizons)
        run = iter(paths)
        if replicate not in self.controls:
            self.controls[replicate] = next(run)
        return [self.controls[replicate] if each.kernel.blueprint_id == DORMANT_KERNEL else next(run) for each in treatments]


def open_state(host: Host, step: int, grid: Grid) -> State:
    """Freeze the host's state."""
    return State(host, snapshot(host, step), evaluate(host.model, host.share.validation).loss, grid, {})


@dataclass(frozen=True)
class Pair:
    """One thing to try in a state: a kernel at a seed, blended one way."""

    seed: Seed
    kernel: Kernel
    method: str

    def command_id(self, packet_id: str) -> str:
        """Return the id of the command that asks for it."""
        return f"{packet_id}-{self.seed.seed_id}-{self.kernel.blueprint_id}-{self.method}"


def kernels_per_site(sites: int, kernels: int | None) -> list[int | None]:
    """Return how many kernels each site gets when `kernels` are dealt one at a time, the first sites first."""
    return [None if kernels is None else (kernels + sites - 1 - place) // sites for place in range(sites)]


def draw_kernels(host: Host, seed: Seed, step: int, count: int | None) -> tuple[Kernel, ...]:
    """Return the kernels to try at a seed: all that fit, or `count` of them drawn for this state, in the policy's order."""
    kernels = fitting(seed.site.layout)
    if count is None or count >= len(kernels):
        return kernels
    rng = np.random.default_rng([host.spec.seed, host.spec.index, step, seed.depth])
    return tuple(kernels[k] for k in sorted(rng.choice(len(kernels), count, replace=False)))


def pairs_of(host: Host, seeds: Sequence[Seed], step: int, grid: Grid) -> list[Pair]:
    """Return the drawn kernels at every seed with the host's method, and one of them also with other methods."""
    own = host.spec.blending
    counts = kernels_per_site(len(seeds), grid.kernels)
    pairs = [
        Pair(seed, kernel, own)
        for seed, count in zip(seeds, counts, strict=True)
        for kernel in draw_kernels(host, seed, step, count)
    ]
    trained = [pair for pair in pairs if pair.kernel.identity_start and pair.kernel.stage > 0]
    if trained:
        chance = step_seed(host.spec.seed, host.spec.index, step, 13)
        chosen, others = trained[chance % len(trained)], [method for method in BLENDING_METHODS if method != own]
        turned = [others[(chance + turn) % len(others)] for turn in range(grid.methods)]
        pairs += [Pair(chosen.seed, chosen.kernel, method) for method in turned]
    return pairs


@dataclass
class Tried:
    """A pair with its command and the outcomes so far."""

    pair: Pair
    treatment: Treatment
    command_id: str
    outcomes: list[Outcome]

    def uplifts(self, horizon: int) -> list[float]:
        """Return the uplifts of the replicates at one horizon."""
        return [outcome.uplift for outcome in self.outcomes if outcome.horizon == horizon]


def _unsure(tried: Tried, horizon: int, error: float) -> bool:
    values = tried.uplifts(horizon)
    return math.isfinite(error) and error > SURE_ENOUGH and abs(sum(values) / len(values)) < 2.0 * error


def try_everything(host: Host, seeds: Sequence[Seed], step: int, packet_id: str, grid: Grid, clock: Clock, emit: Emit) -> None:
    """Try every pair of this state, the unsure ones again; emit one command per pair and one report per outcome."""
    state, spec, results = open_state(host, step, grid), host.spec, []
    for pair in pairs_of(host, seeds, step, grid):
        command_id = pair.command_id(packet_id)
        command = graft_command(
            spec,
            pair.seed.seed_id,
            pair.kernel.blueprint_id,
            command_id=command_id,
            packet_id=packet_id,
            method=pair.method,
            steps=spec.alpha_steps,
            now_ns=clock.now(),
        )
        emit("tamiyo/command", command)
        treatment = Treatment(pair.seed.path, pair.seed.site, pair.kernel, pair.method, spec.alpha_steps)
        results.append(Tried(pair, treatment, command_id, []))
    _try(state, results, range(grid.replicates))
    _try_again(state, results)
    for tried, error, outcome in _with_errors(results, grid):
        report = field_report(
            spec,
            tried.pair.seed.seed_id,
            tried.pair.kernel.blueprint_id,
            outcome,
            layer_id=tried.pair.seed.layers[0],
            command_id=tried.command_id,
            packet_id=packet_id,
            se=error,
            now_ns=clock.now(),
        )
        emit("tamiyo/field_report", report)


def _try(state: State, results: Sequence[Tried], replicates: range) -> None:
    outcomes = state.outcomes([tried.treatment for tried in results], replicates)
    for tried, measured in zip(results, outcomes, strict=True):
        tried.outcomes += measured


def _try_again(state: State, results: Sequence[Tried]) -> None:
    """Add one replicate at a time to pairs whose mean uplift is within two standard errors of 0, up to the cap."""
    horizon = state.grid.horizons[0]
    for replicate in range(state.grid.replicates, state.grid.cap):
        errors = standard_errors([tried.uplifts(horizon) for tried in results])
        unsure = [tried for tried, error in zip(results, errors, strict=True) if _unsure(tried, horizon, error)]
        _try(state, unsure, range(replicate, replicate + 1))


def _with_errors(results: Sequence[Tried], grid: Grid) -> Iterator[tuple[Tried, float, Outcome]]:
    for horizon in grid.horizons:
        errors = standard_errors([tried.uplifts(horizon) for tried in results])
        for tried, error in zip(results, errors, strict=True):
            yield from ((tried, error, outcome) for outcome in tried.outcomes if outcome.horizon == horizon)
