"""From the network's answers to one decision: which kernel at which seed, or nothing, and why."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn.bundle.manifest import CalibrationPart
from gnn.model.outputs import Outputs
from gnn.model.readout import pair_log_weights
from gnn.online.config import ServingConfig
from schemas.configuration import BLENDING_METHODS, RISK_CLASSES
from schemas.kernels import KERNELS

HARM = RISK_CLASSES.index("high")


@dataclass(frozen=True)
class Choice:
    """What was decided; `seed` is the row of the seed and `kernel` the blueprint, both None for a no-op.

    `value` is the expected uplift in nats with its calibrated interval; `risk` the calibrated class probabilities.
    """

    reason: str
    seed: int | None = None
    kernel: str | None = None
    value: float | None = None
    value_low: float | None = None
    value_high: float | None = None
    risk: tuple[float, ...] = ()
    blending: str | None = None

    @property
    def harm(self) -> float:
        """Probability of high or critical harm."""
        return sum(self.risk[HARM:])


def choose(outputs: Outputs, mask: Tensor, calibration: CalibrationPart, config: ServingConfig) -> Choice:
    """The pair with the highest joint logit of a batch of one graph, unless nothing is left or it is not worth it."""
    if mask.shape[0] == 0:
        return Choice("no_seed_candidates")
    if not bool(mask.any()):
        return Choice("no_kernel_left")
    weights = pair_log_weights(outputs.seed_scores, outputs.seed_policy_logits).masked_fill(~mask, -torch.inf)
    seed, column = divmod(int(weights.flatten().argmax()), len(KERNELS))
    value = float(outputs.seed_value[seed, column])
    width = calibration.interval_scale * float(torch.exp(0.5 * outputs.seed_value_log_var[seed, column]))
    risk = torch.softmax(outputs.seed_risk_logits[seed, column].double() / calibration.risk_temperature, 0)
    found = Choice(
        reason="policy",
        seed=seed,
        kernel=KERNELS[column],
        value=value,
        value_low=value - width,
        value_high=value + width,
        risk=tuple(risk.tolist()),
        blending=BLENDING_METHODS[int(outputs.blending_logits[0].argmax())],
    )
    if found.harm > config.max_harm:
        return _no_op(found, "risk_too_high")
    return found if value > config.min_value else _no_op(found, "no_op_is_better")


def _no_op(found: Choice, reason: str) -> Choice:
    return Choice(reason, value=found.value, value_low=found.value_low, value_high=found.value_high, risk=found.risk)
