"""Carry out a policy's commands at a host, or refuse them for the recorder's own safety, with a reason.

A graft that is obeyed is measured twice. At once, in copies: the host of the packet that the policy answered goes on with the
graft and without it (`grid.py`), which is what the policy is trained to foresee. And in the run itself, by the life of the seed
(`lifecycle.py`), whose gates may end it early.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from recorder.kernels import KERNELS, fitting
from recorder.runs.grid import Grid, open_state
from recorder.runs.lifecycle import cull, germinate, quarantined, shortest
from recorder.runs.runstate import HostRun
from recorder.runs.seeds import Seed
from recorder.runs.trials import Treatment
from recorder.speech.reports import field_report, standard_errors
from recorder.speech.uplift import Outcome
from schemas.configuration import BLENDING_METHODS
from schemas.leyline import leyline_pb2 as pb

RATE_BOUNDS: Final = (0.25, 1.0)  # bounds of adjusted learning rates, as a share of the host's own
_NEWEST: Final = 2  # packets of a run that a command may still answer
_OPTIMIZER_VALUES: Final = frozenset({"learning_rate", "learning_rate_scale"})


def _germinates(order: pb.AdaptationCommand) -> bool:
    return order.command_type == pb.COMMAND_SEED and order.seed_operation.operation == pb.SEED_OP_GERMINATE


def _culls(order: pb.AdaptationCommand) -> bool:
    return order.command_type == pb.COMMAND_SEED and order.seed_operation.operation == pb.SEED_OP_CULL


def _adjusts(order: pb.AdaptationCommand) -> bool:
    return order.command_type == pb.COMMAND_OPTIMIZER


def _is_known(order: pb.AdaptationCommand) -> bool:
    return _germinates(order) or _culls(order) or _adjusts(order) or order.command_type == pb.COMMAND_PAUSE


def _seed(run: HostRun, order: pb.AdaptationCommand) -> Seed | None:
    return next((seed for seed in run.seeds if seed.seed_id == order.target_seed_id), None)


def _fits(run: HostRun, order: pb.AdaptationCommand) -> bool:
    seed, kernel = _seed(run, order), KERNELS[order.seed_operation.blueprint_id]
    return seed is not None and kernel in fitting(seed.site.layout)


def _is_quarantined(run: HostRun, order: pb.AdaptationCommand) -> bool:
    kernel = KERNELS[order.seed_operation.blueprint_id]
    return quarantined(kernel, run.risks.get(kernel.blueprint_id, 0.0))


def _blending(order: pb.AdaptationCommand) -> str | None:
    """Return the method that a command asks for; None if it names none, an unknown one, two, or only a part of a schedule."""
    numbers, named = order.seed_operation.parameters, order.annotations.get("blending_method")
    index = numbers.get("blending_method_index")
    at = BLENDING_METHODS[int(index)] if index is not None and index in range(len(BLENDING_METHODS)) else None
    whole = numbers.get("blending_schedule_start", 0.0) == 0.0 and numbers.get("blending_schedule_end", 1.0) == 1.0
    method = named if named is not None else at
    agree = index is None or method == at
    return method if whole and agree and method in BLENDING_METHODS else None


def _rate(run: HostRun, order: pb.AdaptationCommand) -> float:
    """Return the learning rate that an adjustment asks for; 0 if it asks for anything else."""
    asked = order.optimizer_adjustment.hyperparameters
    if not asked or not set(asked) <= _OPTIMIZER_VALUES:
        return 0.0
    scale = asked.get("learning_rate_scale")
    now = float(run.host.optimizer.param_groups[0]["lr"])
    return now * scale if scale is not None else float(asked["learning_rate"])


def _is_rate_sound(run: HostRun, order: pb.AdaptationCommand) -> bool:
    low, high = (bound * run.spec.learning_rate for bound in RATE_BOUNDS)
    return low * (1 - 1e-6) <= _rate(run, order) <= high * (1 + 1e-6)


@dataclass(frozen=True)
class Refusal:
    """One row: if it applies, the command is not carried out, for that reason."""

    reason: str
    meaning: str
    applies: Callable[[HostRun, pb.AdaptationCommand], bool]


REFUSALS: Final[tuple[Refusal, ...]] = (
    Refusal(
        "run_over",
        "the run has reached its last step, or its loss is not finite",
        lambda run, order: run.step >= run.plan.total_steps or not run.losses_finite,
    ),
    Refusal(
        "overtaken",
        "it answers none of the run's last two packets: the host is another by now",
        lambda run, order: order.annotations.get("packet_id", "") not in run.packet_ids[-_NEWEST:],
    ),
    Refusal(
        "unknown_operation",
        "it is no GERMINATE, CULL, optimizer adjustment or PAUSE",
        lambda run, order: not _is_known(order),
    ),
    Refusal(
        "unknown_seed",
        "the host has no seed of that id",
        lambda run, order: (_germinates(order) or _culls(order)) and _seed(run, order) is None,
    ),
    Refusal(
        "nothing_to_cull",
        "the seed holds no graft that is on trial",
        lambda run, order: _culls(order) and (run.attempt is None or run.attempt.seed is not _seed(run, order)),
    ),
    Refusal(
        "unknown_kernel",
        "the recorder has no such kernel",
        lambda run, order: _germinates(order) and order.seed_operation.blueprint_id not in KERNELS,
    ),
    Refusal(
        "kernel_does_not_fit",
        "the kernel can't be built for the seed's site",
        lambda run, order: _germinates(order) and not _fits(run, order),
    ),
    Refusal(
        "kernel_quarantined",
        "the kernel may only live in quarantine: HIGH_RISK by its tier, or CRITICAL by its measured risk",
        lambda run, order: _germinates(order) and _is_quarantined(run, order),
    ),
    Refusal(
        "unknown_blending",
        "it names no blending method, one that the recorder has not, two, or a part of a schedule",
        lambda run, order: _germinates(order) and _blending(order) is None,
    ),
    Refusal(
        "run_ends_first",
        "the run ends before the graft could be judged",
        lambda run, order: _germinates(order) and run.step + shortest(run.plan) > run.plan.total_steps,
    ),
    Refusal(
        "host_busy",
        "another graft of the run is on trial: one at a time can be told apart",
        lambda run, order: _germinates(order) and run.attempt is not None,
    ),
    Refusal(
        "seed_not_dormant",
        "the seed holds a fossil, or is under embargo",
        lambda run, order: _germinates(order) and getattr(_seed(run, order), "stage", None) != pb.SEED_STAGE_DORMANT,
    ),
    Refusal(
        "other_optimizer",
        "the host is trained by an optimizer of another family",
        lambda run, order: _adjusts(order) and order.optimizer_adjustment.optimizer_id.lower() != run.spec.optimizer,
    ),
    Refusal(
        "rate_out_of_bounds",
        "it asks for more than a learning rate, or for one outside 1/4 to 1 times the host's own",
        lambda run, order: _adjusts(order) and not _is_rate_sound(run, order),
    ),
)


def refusal(run: HostRun, order: pb.AdaptationCommand, rows: Sequence[Refusal] = REFUSALS) -> str | None:
    """Return the reason of the first row that applies; None if the command is to be carried out."""
    return next((row.reason for row in rows if row.applies(run, order)), None)


def carry_out(run: HostRun, order: pb.AdaptationCommand) -> tuple[Outcome, ...]:
    """Carry out a command that no row refuses; return the outcomes of the graft that it asks for, none for other commands."""
    if _germinates(order):
        return _graft(run, order)
    if _culls(order) and run.attempt is not None:
        cull(run, run.attempt, run.packet_ids[-1], "Tamiyo ordered it")
    elif _adjusts(order):
        rate = _rate(run, order)
        for group in run.host.optimizer.param_groups:
            group["lr"] = rate
    else:
        run.paused = True
    return ()


def _graft(run: HostRun, order: pb.AdaptationCommand) -> tuple[Outcome, ...]:
    """Measure the pair in copies of the host as it is now, against copies without it, then begin the graft in the run."""
    seed, method = _seed(run, order), _blending(order)
    if seed is None or method is None:
        return ()
    kernel, spec, index = KERNELS[order.seed_operation.blueprint_id], run.spec, run.spec.index
    grid = Grid(run.plan.replicates_of(index), run.plan.horizons_of(index))
    started = run.clock.now()
    state = open_state(run.host, run.step, grid)
    treatment = Treatment(seed.path, seed.site, kernel, method, spec.alpha_steps)
    (outcomes,) = state.outcomes([treatment], range(grid.replicates))
    for horizon in grid.horizons:
        mine = [outcome for outcome in outcomes if outcome.horizon == horizon]
        (error,) = standard_errors([[outcome.uplift for outcome in mine]])
        for outcome in mine:
            report = field_report(
                spec,
                seed.seed_id,
                kernel.blueprint_id,
                outcome,
                layer_id=seed.layers[0],
                command_id=order.command_id,
                packet_id=run.packet_ids[-1],
                se=error,
                now_ns=run.clock.now(),
                policy=order.annotations.get("policy_version") or order.issued_by,
            )
            run.emit("tamiyo/field_report", report)
    run.health.span("recorder.runs.trials", run.packet_ids[-1], started, run.clock.now())
    germinate(run, seed, kernel, method)
    return tuple(outcomes)
