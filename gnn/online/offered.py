"""Outputs that a decision may show: those of heads that were trained. What nothing trained is not offered."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from gnn.bundle.manifest import HeadPart
from gnn.model.outputs import Outputs

_HEADS: Final[Mapping[str, str]] = {
    "policy_logits": "policy",
    "policy_params": "params",
    "risk_logits": "risk",
    "value": "value",
    "value_log_var": "value",
    "blending_logits": "blending",
    "schedule_params": "schedule",
    "telemetry_embedding": "telemetry",
    "breaker_logits": "breaker",
    "seed_policy_logits": "policy",
    "seed_value": "value",
    "seed_value_log_var": "value",
    "seed_risk_logits": "risk",
    "seed_scores": "policy",
}
_LABELLESS: Final = frozenset({"blueprint_scores", "telemetry_embedding"})


class OfferedOutputs:
    """The outputs of one graph, on the CPU, as attributes; one that nothing trained raises AttributeError with the reason."""

    def __init__(self, outputs: Outputs, heads: Mapping[str, HeadPart]) -> None:
        """`heads` are those of the manifest; `compile_embedding` is trained through the trunk."""
        self._tensors: dict[str, Tensor] = {}
        self._missing: dict[str, str] = {}
        for name, tensor in outputs.tensors().items():
            head = heads.get(_HEADS.get(name, ""))
            if name in _LABELLESS or (head is not None and not head.trained):
                self._missing[name] = (head.reason if head is not None else None) or "no label exists for it"
            else:
                self._tensors[name] = tensor

    def tensors(self) -> dict[str, Tensor]:
        """The offered outputs by name, in declared order."""
        return dict(self._tensors)

    @property
    def missing(self) -> dict[str, str]:
        """The outputs that are not offered, and why."""
        return dict(self._missing)

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_") or name not in self._tensors:
            reason = self.__dict__.get("_missing", {}).get(name)
            raise AttributeError(f"output {name}: expected one of a trained head, found: {reason or 'no such output'}")
        return self._tensors[name]
