"""Run counterfactuals: the same host, state and batches with and without grafts, and what came of it."""

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from torch import nn

from recorder.data import Share
from recorder.hosts import Host
from recorder.kernels import Kernel, Site
from recorder.runs.copies import make_copies
from recorder.runs.grafts import Graft, grow, seed_mode
from recorder.runs.schedules import alpha_at
from recorder.runs.training import Snapshot, draw, mean_losses, step_seed
from recorder.speech.uplift import Outcome, log_ratio

LOOK_EVERY: Final = 10  # steps between looks at the validation loss on the way, on every other example
CLOSING_LOOKS: Final = (10, 5, 0)  # steps before a horizon whose mean validation loss is the loss there
DENSE_EVERY: Final = 5  # steps between looks, on the whole split, at a run's own graft, which may end at any of them
LATE_STEPS: Final = 20  # training losses at the end of a horizon whose spread is the late spread


@dataclass
class Trajectory:
    """Losses along one trial: training loss of each step, validation and test loss at the looks."""

    training: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    test: dict[int, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the last training loss was not finite."""
        return bool(self.training) and not math.isfinite(self.training[-1])

    def loss_at(self, horizon: int, losses: dict[int, float]) -> float:
        """Return the mean loss over the closing looks of a horizon (one look is noisy); infinity if the trial ended before."""
        looks = [losses.get(horizon - back, math.inf) for back in CLOSING_LOOKS]
        return statistics.fmean(looks)

    def late_sd(self, horizon: int) -> float:
        """Return the standard deviation of the last training losses before the horizon; NaN if any is not finite."""
        late = self.training[:horizon][-LATE_STEPS:]
        return statistics.pstdev(late) if late and all(map(math.isfinite, late)) else math.nan


@dataclass(frozen=True)
class Treatment:
    """A graft to try: which kernel, where, and how it is blended."""

    path: str
    site: Site
    kernel: Kernel
    blending: str
    alpha_steps: int


def run_trials(
    host: Host,
    state: Snapshot,
    treatments: Sequence[Treatment | None],
    *,
    replicate: int,
    horizons: Sequence[int],
    stream: Callable[[int], int] | None = None,
    dense: bool = False,
) -> list[Trajectory]:
    """Train a copy of the host for each treatment (None: without a graft) from `state` to the last horizon, all at once.

    All copies see the same batches and the same random state at every step; replicates differ in their batches. `stream` gives
    the random seed of each step, if it is not to be the replicate's own; `dense` looks every 5 steps at whole splits.
    """
    spec, own = host.spec, step_seed(host.spec.seed, host.spec.index, state.step, replicate, 7)
    grafts = [None if each is None else grow(each.site, each.kernel, own) for each in treatments]
    copies = make_copies(host, state, grafts, [None if each is None else each.path for each in treatments])
    paths = [Trajectory() for _ in treatments]
    for step in range(1, max(horizons) + 1):
        for treatment, graft in zip(treatments, grafts, strict=True):
            if treatment is not None and graft is not None:
                graft.alpha = alpha_at(treatment.blending, step, treatment.alpha_steps)
        seed = stream(step) if stream else step_seed(spec.seed, spec.index, state.step, replicate, 11, step)
        losses = copies.train(draw(host.share.train, spec.batch, seed), spec.clip)
        for path, loss in zip(paths, losses, strict=True):
            if not path.ended:
                path.training.append(loss)
        if all(path.ended for path in paths):
            break
        look(host.share, copies.model, grafts, paths, step, horizons=() if dense else horizons)
    return paths


def look(
    share: Share,
    model: nn.Module,
    grafts: Sequence[Graft | None],
    paths: Sequence[Trajectory],
    step: int,
    *,
    horizons: Sequence[int] = (),
) -> None:
    """Look at the losses of a model's copies after a step, if a look is due.

    Before a horizon it looks at the whole validation and test splits, on the way at half the validation split; without
    horizons, every 5 steps at the whole splits.
    """
    closing = any(step == horizon - back for horizon in horizons for back in CLOSING_LOOKS)
    whole = closing if horizons else step % DENSE_EVERY == 0
    if not whole and step % LOOK_EVERY:
        return
    data, sizes = (share.held, (len(share.validation), len(share.test))) if whole else (share.glance, (len(share.glance),))
    with ExitStack() as modes:
        for graft in grafts:
            modes.enter_context(seed_mode(graft, training=False))
        losses = mean_losses(model, data, sizes, copies=len(paths))
    for path, means in zip(paths, losses, strict=True):
        if not path.ended:
            path.validation[step] = means[0]
            if whole:
                path.test[step] = means[1]


def compare(control: Trajectory, treated: Trajectory, *, base_loss: float, horizon: int, replicate: int) -> Outcome:
    """Return the outcome of a treated trajectory against its control at one horizon.

    dip: the lowest ln(control / treated) of the validation losses before the horizon, at most 0; a trajectory that ended early
    (non-finite) has a treated loss of infinity.
    """
    looks = [step for step in control.validation if step < horizon and step in treated.validation]
    ratios = [log_ratio(control.validation[step], treated.validation[step]) for step in looks]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return Outcome(
        horizon=horizon,
        replicate=replicate,
        base_loss=base_loss,
        control_loss=control.loss_at(horizon, control.validation),
        treated_loss=treated.loss_at(horizon, treated.validation),
        uplift_test=log_ratio(control.loss_at(horizon, control.test), treated.loss_at(horizon, treated.test)),
        dip=min([0.0, *finite]),
        late_sd=treated.late_sd(horizon),
        control_late_sd=control.late_sd(horizon),
    )
