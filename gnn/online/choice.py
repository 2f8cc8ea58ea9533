"""Choose from the network's answers: which kernel at which seed by which method, or what to do instead, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gnn.bundle.manifest import CalibrationPart
from gnn.join.rows import Bools, Floats
from gnn.model.decision import HARMFUL, DecisionRule, utility
from gnn.model.outputs import Outputs
from gnn.online.constraints import CONSTRAINTS, NORMAL, Constraint, Route, Ruling, ruling
from gnn.online.facts import Facts
from schemas.configuration import BLENDING_METHODS
from schemas.kernels import KERNELS


@dataclass(frozen=True)
class Choice:
    """What was decided: `route` is what is done, `reason` why, `priority` how urgent it is.

    `seed` is the row of the seed, `kernel` the blueprint and `blending` the method that the policy preferred, even if a
    constraint then refused them; None if there was nothing to choose from. `value` is the expected uplift in nats with its
    calibrated interval; `risk` holds the calibrated class probabilities.
    """

    reason: str
    route: Route = Route.NO_OP
    priority: str = NORMAL
    seed: int | None = None
    kernel: str | None = None
    value: float | None = None
    value_low: float | None = None
    value_high: float | None = None
    risk: tuple[float, ...] = ()
    blending: str | None = None

    @property
    def harm(self) -> float:
        """The probability of high or critical harm."""
        return sum(self.risk[HARMFUL:])

    @classmethod
    def ruled(cls, found: Ruling) -> "Choice":
        """Return the choice for a constraint that leaves nothing to choose from."""
        return cls(found.reason, found.route, found.priority)


@dataclass(frozen=True)
class Answers:
    """The network's answers for S seeds, in float64: `value` and its interval's half `width` [S, K], `risk` [S, K, 5].

    `worth` [S, K] is the utility in nats by the bundle's decision rule, minus the least utility that a pair needs to be taken.
    `blending` [M] holds the logits of the methods, None if that head was not trained.
    """

    value: Floats
    width: Floats
    risk: Floats
    worth: Floats
    blending: Floats | None

    @classmethod
    def of(cls, outputs: Outputs, calibration: CalibrationPart, *, blending: bool) -> "Answers":
        """Calibrate the outputs of a batch of one graph; `blending` is whether the blending head was trained."""
        risk = torch.softmax(outputs.seed_risk_logits.double() / calibration.risk_temperature, 2).numpy()
        value = outputs.seed_value.double().numpy()
        logits = (outputs.seed_scores.unsqueeze(1) + outputs.seed_policy_logits).double().numpy()
        rule = DecisionRule(**calibration.decision.model_dump())
        return cls(
            value=value,
            width=(calibration.interval_scale * torch.exp(0.5 * outputs.seed_value_log_var.double())).numpy(),
            risk=risk,
            worth=utility(value, logits, risk[:, :, HARMFUL:].sum(axis=2), rule) - rule.least,
            blending=outputs.blending_logits[0].double().numpy() if blending else None,
        )

    @property
    def harm(self) -> Floats:
        """The probability of high or critical harm: float64 [S, K]."""
        return np.asarray(self.risk[:, :, HARMFUL:].sum(axis=2))


def choose(answers: Answers, left: Bools, facts: Facts, constraints: Sequence[Constraint] = CONSTRAINTS) -> Choice:
    """Return the candidate with the highest utility in `left` (bool [S, K, M], not all false), and the constraints' ruling.

    Of the methods left for it, it has the one with the highest logit, or the first if the blending head was not trained.
    """
    worth = np.where(left.any(axis=2), answers.worth, -np.inf)
    seed, kernel = (int(place) for place in np.unravel_index(int(worth.argmax()), worth.shape))
    methods = left[seed, kernel]
    method = int(methods.argmax() if answers.blending is None else np.where(methods, answers.blending, -np.inf).argmax())
    found = ruling(facts.answered(answers.worth, answers.harm), seed, kernel, method, constraints)
    value, width = float(answers.value[seed, kernel]), float(answers.width[seed, kernel])
    return Choice(
        reason=found.reason,
        route=found.route,
        priority=found.priority,
        seed=seed,
        kernel=KERNELS[kernel],
        value=value,
        value_low=value - width,
        value_high=value + width,
        risk=tuple(answers.risk[seed, kernel].tolist()),
        blending=BLENDING_METHODS[method],
    )
