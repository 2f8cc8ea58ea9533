"""Declare the outputs of TamiyoGNN: every output by its published name, with its shape."""

from dataclasses import dataclass, fields
from typing import Final

from torch import Tensor

OUTPUT_SHAPES: Final[dict[str, tuple[str | int, ...]]] = {
    "policy_logits": ("G", 32),
    "policy_params": ("G", 32, 2),
    "risk_logits": ("G", 5),
    "value": ("G", 1),
    "value_log_var": ("G", 1),
    "blending_logits": ("G", 4),
    "schedule_params": ("G", 2),
    "telemetry_embedding": ("G", 64),
    "breaker_logits": ("G", 2),
    "compile_embedding": ("G", 16),
    "seed_policy_logits": ("S", 32),
    "seed_value": ("S", 32),
    "seed_value_log_var": ("S", 32),
    "seed_risk_logits": ("S", 32, 5),
    "seed_scores": ("S",),
    "blueprint_scores": ("B",),
}


@dataclass(frozen=True)
class Outputs:
    """The outputs for a batch of G graphs with S seeds and B blueprints; logits of masked kernels are `MASKED_LOGIT`."""

    policy_logits: Tensor
    policy_params: Tensor
    risk_logits: Tensor
    value: Tensor
    value_log_var: Tensor
    blending_logits: Tensor
    schedule_params: Tensor
    telemetry_embedding: Tensor
    breaker_logits: Tensor
    compile_embedding: Tensor
    seed_policy_logits: Tensor
    seed_value: Tensor
    seed_value_log_var: Tensor
    seed_risk_logits: Tensor
    seed_scores: Tensor
    blueprint_scores: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return the outputs by name, in declared order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
