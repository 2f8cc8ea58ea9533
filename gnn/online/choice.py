"""From the network's answers to one decision: which kernel at which seed, or nothing, and why."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gnn.bundle.manifest import CalibrationPart
from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch
from gnn.model.decision import HARMFUL, DecisionRule, utility
from gnn.model.outputs import Outputs
from gnn.online.config import ServingConfig
from gnn.online.snapshot import Snapshot
from schemas.configuration import BLENDING_METHODS
from schemas.features import LAYER, SEED
from schemas.kernels import KERNELS

DORMANT: Final = "DORMANT"
_LAYER_TYPE: Final = [f.name for f in LAYER.categorical].index("layer_type")
_STAGE: Final = [f.name for f in SEED.categorical].index("lifecycle_stage")


class KernelMasks:
    """Masks of one bundle: `measured` bool [32], and by layer type id what was measured at such sites."""

    def __init__(self, bundle: Bundle) -> None:
        policy, types = bundle.manifest.policy, bundle.registries["layer_type"]
        self.measured = torch.tensor([kernel in policy.measured for kernel in KERNELS])
        self._dormant = bundle.registries["lifecycle_stage"].index(DORMANT)
        rows = self.measured.expand(types.capacity, -1).clone()
        for name, kernels in policy.site_kernels.items():
            rows[types.index(name)] = torch.tensor([kernel in kernels for kernel in KERNELS])
        self._by_type = rows & self.measured

    def of(self, batch: GraphBatch, snapshot: Snapshot, at_ns: int) -> Tensor:
        """bool [S, 32] on the CPU: what each seed of the batch may take at that time.

        A site of a layer type that was never measured may take any measured kernel; a seed that monitors nothing, none.
        """
        seeds, layers = batch.edge_index[("seed", "monitors", "layer")].cpu()
        allowed = torch.zeros(batch.num_nodes("seed"), len(KERNELS), dtype=torch.bool)
        types = batch.ids["layer"][:, _LAYER_TYPE].cpu()
        # the first monitored layer is the site; written last, so it wins
        allowed[seeds.flip(0)] = self._by_type[types[layers]].flip(0)
        dormant = batch.ids["seed"][:, _STAGE].cpu() == self._dormant
        free = torch.tensor([not held for held in snapshot.quarantined(KERNELS, at_ns)])
        return allowed & dormant.unsqueeze(1) & free


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
        return sum(self.risk[HARMFUL:])


def choose(outputs: Outputs, mask: Tensor, calibration: CalibrationPart, config: ServingConfig) -> Choice:
    """The pair with the highest utility of a batch of one graph, unless nothing is left or it is not worth it."""
    if mask.shape[0] == 0:
        return Choice("no_seed_candidates")
    if not bool(mask.any()):
        return Choice("no_kernel_left")
    risks = torch.softmax(outputs.seed_risk_logits.double() / calibration.risk_temperature, 2)
    rule = DecisionRule(**calibration.decision.model_dump())
    logits = outputs.seed_scores.unsqueeze(1) + outputs.seed_policy_logits
    utilities = utility(outputs.seed_value.double(), logits.double(), risks[:, :, HARMFUL:].sum(2), rule)
    utilities = utilities.masked_fill(~mask, -torch.inf)
    seed, column = divmod(int(utilities.flatten().argmax()), len(KERNELS))
    value = float(outputs.seed_value[seed, column])
    width = calibration.interval_scale * float(torch.exp(0.5 * outputs.seed_value_log_var[seed, column]))
    found = Choice(
        reason="policy",
        seed=seed,
        kernel=KERNELS[column],
        value=value,
        value_low=value - width,
        value_high=value + width,
        risk=tuple(risks[seed, column].tolist()),
        blending=BLENDING_METHODS[int(outputs.blending_logits[0].argmax())],
    )
    if found.harm > config.max_harm:
        return _no_op(found, "risk_too_high")
    worth = float(utilities[seed, column]) > rule.least + config.min_value
    return found if worth else _no_op(found, "no_op_is_better")


def _no_op(found: Choice, reason: str) -> Choice:
    return Choice(reason, value=found.value, value_low=found.value_low, value_high=found.value_high, risk=found.risk)
