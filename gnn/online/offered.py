"""Offer only the outputs of trained heads; the others are missing, each with a reason."""

from collections.abc import Mapping

from torch import Tensor

from gnn.bundle.manifest import OutputSpec
from gnn.model.outputs import Outputs


class OfferedOutputs:
    """The outputs of one graph, on the CPU, as attributes; an untrained one raises AttributeError with the reason."""

    def __init__(self, outputs: Outputs, declared: Mapping[str, OutputSpec]) -> None:
        """Keep the outputs of trained heads; `declared` are the `outputs` of the manifest."""
        self._tensors: dict[str, Tensor] = {}
        self._missing: dict[str, str] = {}
        for name, tensor in outputs.tensors().items():
            if declared[name].trained:
                self._tensors[name] = tensor
            else:
                self._missing[name] = declared[name].reason or "no label exists for it"

    def tensors(self) -> dict[str, Tensor]:
        """Return the offered outputs by name, in declared order."""
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
