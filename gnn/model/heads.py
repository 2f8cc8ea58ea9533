"""Heads of TamiyoGNN over the readouts of graphs, seeds and blueprints."""

import torch
from torch import Tensor, nn

from schemas.configuration import BLENDING_METHODS, NUM_KERNELS, RISK_CLASSES, ModelConfig

LOG_VAR_RANGE = (-12.0, 4.0)


def _trunk(width: int, config: ModelConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, config.head_hidden), nn.GELU(), nn.Dropout(config.dropout))


class SeedHead(nn.Module):
    """Answers per (seed, kernel) and the seed's own score, from the seed joined with the layers that it monitors."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = _trunk(2 * config.out, config)
        self.policy = nn.Linear(config.head_hidden, NUM_KERNELS)
        self.value = nn.Linear(config.head_hidden, NUM_KERNELS)
        self.log_var = nn.Linear(config.head_hidden, NUM_KERNELS)
        self.risk = nn.Linear(config.head_hidden, NUM_KERNELS * len(RISK_CLASSES))
        self.score = nn.Linear(config.head_hidden, 1)

    def forward(self, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits [S, 32], values [S, 32], log variances [S, 32], risk logits [S, 32, 5], scores [S]."""
        state = self.trunk(seeds)
        risk = self.risk(state).view(-1, NUM_KERNELS, len(RISK_CLASSES))
        log_var = self.log_var(state).clamp(*LOG_VAR_RANGE)
        return self.policy(state), self.value(state), log_var, risk, self.score(state).squeeze(1)


class GraphHead(nn.Module):
    """Answers per graph; policy, value and risk are used only where a graph has no seed with a choice."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = _trunk(2 * config.out, config)
        self.policy = nn.Linear(config.head_hidden, NUM_KERNELS)
        self.params = nn.Linear(config.head_hidden, NUM_KERNELS * 2)
        self.value = nn.Linear(config.head_hidden, 1)
        self.log_var = nn.Linear(config.head_hidden, 1)
        self.risk = nn.Linear(config.head_hidden, len(RISK_CLASSES))
        self.blending = nn.Linear(config.head_hidden, len(BLENDING_METHODS))
        self.schedule = nn.Linear(config.head_hidden, 2)
        self.telemetry = nn.Linear(2 * config.out, config.telemetry_embedding)
        self.breaker = nn.Linear(config.head_hidden, 2)

    def forward(self, graphs: Tensor) -> dict[str, Tensor]:
        """Named answers [G, ...] as in `gnn.model.outputs`."""
        state = self.trunk(graphs)
        return {
            "policy_logits": self.policy(state),
            "policy_params": torch.tanh(self.params(state)).view(-1, NUM_KERNELS, 2),
            "value": self.value(state),
            "value_log_var": self.log_var(state).clamp(*LOG_VAR_RANGE),
            "risk_logits": self.risk(state),
            "blending_logits": self.blending(state),
            "schedule_params": self.schedule(state),
            "telemetry_embedding": self.telemetry(graphs),
            "breaker_logits": self.breaker(state),
        }
