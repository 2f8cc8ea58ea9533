"""Define the heads of TamiyoGNN: an ensemble of small ones on each (seed, kernel) pair, and one on each graph."""

from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.model.kept import Keeping
from gnn.model.kernel_vectors import DESCRIPTORS
from schemas.configuration import BLENDING_METHODS, NUM_KERNELS, RISK_CLASSES, ModelConfig

LOG_VAR_RANGE: Final = (-12.0, 4.0)
FREE_SPREAD: Final = 0.3  # standard deviation of the kernels' free embeddings at the start
_ANSWERS: Final = 3 + len(RISK_CLASSES)  # logit, value, log variance, risk classes
_TEMPER: Final = 4.0  # dot products are divided by it, so that answers start small


@dataclass(frozen=True)
class PairAnswers:
    """Outputs for pairs: `logits`, `value`, `log_var` [..., S, 32], `risk` logits [..., S, 32, 5], `scores` [..., S]."""

    logits: Tensor
    value: Tensor
    log_var: Tensor
    risk: Tensor
    scores: Tensor

    def mean(self) -> "PairAnswers":
        """Join the outputs of K members [K, ...] into one: means of logits, values and shares, and the mixture's variance."""
        value = self.value.mean(0)
        variance = (self.log_var.exp() + self.value**2).mean(0) - value**2
        shares = class_shares(self.risk).mean(0)
        return PairAnswers(
            logits=self.logits.mean(0),
            value=value,
            log_var=variance.clamp(min=1e-12).log().clamp(*LOG_VAR_RANGE),
            risk=shares.clamp(min=1e-12).log(),
            scores=self.scores.mean(0),
        )

    def member(self, number: int) -> "PairAnswers":
        """Return the outputs of one member."""
        return PairAnswers(**{field.name: getattr(self, field.name)[number] for field in fields(self)})


def class_shares(risk: Tensor) -> Tensor:
    """Take the softmax over the last, short dimension, which is moved first: that makes it several times faster."""
    return torch.softmax(risk.movedim(-1, 1).contiguous(), dim=1).movedim(1, -1)


class MemberLinear(nn.Module):
    """K linear layers side by side: [K, N, in] -> [K, N, out]; each is Xavier-uniform, biases start at zero."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = (6.0 / (inputs + outputs)) ** 0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply each member's layer to `inputs` [K, N, in]: [K, N, out]."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class PairHead(Keeping):
    """K members, each with two layers on the seed's vector, then dot products with the kernels' vectors, plus a kernel bias.

    A kernel's vector is a linear map of its descriptors plus a free embedding. `unit` is the noise of one uplift: values and
    variances are learned in units of it.
    """

    descriptors: Tensor
    unit: Tensor

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        members, hidden, self.rank = config.members, config.head_hidden, config.rank
        self.members, self.input_dropout, self.dropout = members, config.input_dropout, config.head_dropout
        self.layers = nn.ModuleList([MemberLinear(members, width, hidden), MemberLinear(members, hidden, hidden)])
        self.site = MemberLinear(members, hidden, _ANSWERS * config.rank)
        self.kernel = MemberLinear(members, len(DESCRIPTORS), _ANSWERS * config.rank)
        self.free = nn.Parameter(torch.randn(members, NUM_KERNELS, _ANSWERS * config.rank) * FREE_SPREAD)
        self.bias = nn.Parameter(torch.zeros(members, NUM_KERNELS, _ANSWERS))
        self.score = MemberLinear(members, hidden, 1)
        self.register_buffer("descriptors", torch.zeros(NUM_KERNELS, len(DESCRIPTORS)))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, seeds: Tensor) -> PairAnswers:
        """Return the outputs of all members for `seeds` [S, width], each [K, S, ...]."""
        # one mask for all members, because drawing it costs more than all the rest
        state = functional.dropout(seeds, self.input_dropout, self.training).expand(self.members, -1, -1)
        for layer in self.layers:
            state = functional.dropout(functional.gelu(layer(state)), self.dropout, self.training)
        kernels, bias, shift = self.kept(self._of_kernels) or self._of_kernels()
        sites = self.site(state).unflatten(2, (_ANSWERS, self.rank)).transpose(1, 2).flatten(0, 1)
        raw = torch.baddbmm(bias, sites, kernels).unflatten(0, (self.members, _ANSWERS))
        return PairAnswers(
            logits=raw[:, 0],
            value=raw[:, 1] * self.unit,
            log_var=(raw[:, 2] + shift).clamp(*LOG_VAR_RANGE),
            risk=raw[:, 3:].movedim(1, 3),
            scores=self.score(state).squeeze(2),
        )

    def _of_kernels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kernels' vectors [members * answers, rank, 32] and biases [..., 1, 32], and the log variance of `unit`."""
        known = self.descriptors.to(self.free.dtype).unsqueeze(0).expand(self.members, -1, -1)
        vectors = (self.kernel(known) + self.free) / _TEMPER
        kernels = vectors.unflatten(2, (_ANSWERS, self.rank)).permute(0, 2, 3, 1).flatten(0, 1)
        return kernels, self.bias.transpose(1, 2).flatten(0, 1).unsqueeze(1), 2.0 * self.unit.log()


class GraphHead(nn.Module):
    """The outputs per graph that don't come from pairs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hidden = 2 * config.out, config.head_hidden
        self.trunk = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.head_dropout))
        self.params = nn.Linear(hidden, NUM_KERNELS * 2)
        self.blending = nn.Linear(hidden, len(BLENDING_METHODS))
        self.schedule = nn.Linear(hidden, 2)
        self.telemetry = nn.Linear(width, config.telemetry_embedding)
        self.breaker = nn.Linear(hidden, 2)

    def forward(self, graphs: Tensor) -> dict[str, Tensor]:
        """Return outputs [G, ...] by their names in `gnn.model.outputs`."""
        state = self.trunk(graphs)
        return {
            "policy_params": torch.tanh(self.params(state)).view(-1, NUM_KERNELS, 2),
            "blending_logits": self.blending(state),
            "schedule_params": self.schedule(state),
            "telemetry_embedding": self.telemetry(graphs),
            "breaker_logits": self.breaker(state),
        }
