"""Carry from torch function to torch function which layers a tensor is made of, by a `TorchFunctionMode`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from recorder.watch.activations import function_activation
from recorder.watch.faults import Faults, guarded
from recorder.watch.tensors import tensors_of
from recorder.watch.topology import Activation

_ADDITIONS: Final = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})


@dataclass
class _Origins:
    """Which layers a tensor is made of: layer id -> whether it came over a residual path."""

    tensor: Tensor
    layers: dict[str, bool]


@dataclass
class Trace:
    """What one forward pass shows. Holds every tracked tensor, so that an `id` is never used twice."""

    origins: dict[int, _Origins] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    channels: dict[str, tuple[int, int]] = field(default_factory=dict)
    edges: dict[tuple[str, str], bool] = field(default_factory=dict)
    activations: dict[str, Activation] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    inside: int = 0

    def call(self, path: str, sources: dict[str, bool]) -> None:
        """Note that a layer is called with what these sources made."""
        for source, residual in sources.items():
            self.edges[source, path] = self.edges.get((source, path), True) and residual
        if path not in self.calls:
            self.calls[path] = len(self.calls)
            self.depths[path] = 1 + max((self.depths[source] for source in sources), default=-1)

    def sources(self, value: object) -> dict[str, bool]:
        """Return the layers that the tensors in `value` are made of; true if all of them came over a residual path."""
        merged: dict[str, bool] = {}
        for tensor in tensors_of(value):
            known = self.origins.get(id(tensor))
            for layer, residual in known.layers.items() if known else ():
                merged[layer] = merged.get(layer, True) and residual
        return merged

    def mark(self, value: object, layers: dict[str, bool]) -> None:
        """Note that the tensors in `value` are made of these layers."""
        for tensor in tensors_of(value):
            self.origins[id(tensor)] = _Origins(tensor, dict(layers))

    def activation(self, name: str, activation_id: str | None, sources: dict[str, bool]) -> None:
        """Note an activation of type `name`, fed by the last of these layers; one without an id (a function) is given one."""
        feeding = [layer for layer, residual in sources.items() if not residual] or list(sources)
        layer = max(feeding, key=lambda key: (self.depths[key], self.calls[key])) if feeding else None
        key = activation_id or f"{layer or 'input'}.{name}"
        suffix = 2
        while activation_id is None and key in self.activations:
            key = f"{layer or 'input'}.{name}-{suffix}"
            suffix += 1
        self.activations.setdefault(key, Activation(key, name, layer, activation_id is None))


def _added(trace: Trace, args: Sequence[object]) -> dict[str, bool]:
    """Return origins of an addition: the side that went through fewer layers is the residual.

    Two sides of one depth (word and position embeddings) skip nothing, so neither is.
    """
    sides = [trace.sources(arg) for arg in args if isinstance(arg, Tensor)]
    merged = trace.sources(args)
    if len(sides) != 2 or not sides[0] or not sides[1] or set(sides[0]) == set(sides[1]):
        return merged
    depths = [max(trace.depths[layer] for layer in side) for side in sides]
    if depths[0] == depths[1]:
        return merged
    early, late = sides if depths[0] < depths[1] else sides[::-1]
    return {layer: layer not in late or (flag and late[layer]) if layer in early else flag for layer, flag in merged.items()}


class Provenance(TorchFunctionMode):
    """Carries origins through every torch function that runs between leaf modules."""

    def __init__(self, trace: Trace, faults: Faults) -> None:
        super().__init__()
        self._trace = trace
        self.faults = faults

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.compiler.is_compiling() or self._trace.inside:
            return func(*args, **(kwargs or {}))
        sources = self._before(args, kwargs)
        result = func(*args, **(kwargs or {}))
        if sources:
            self._after(func, args, sources, result)
        return result

    @guarded
    def _before(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, bool]:
        return self._trace.sources((args, kwargs or {}))

    @guarded
    def _after(self, func: Callable[..., Any], args: Sequence[Any], sources: dict[str, bool], result: Any) -> None:
        name = getattr(func, "__name__", "")
        if name in _ADDITIONS:
            sources = _added(self._trace, args)
        elif activation := function_activation(func):
            self._trace.activation(activation, None, sources)
        if sources:
            self._trace.mark(args[0] if name == "__setitem__" else result, sources)


def fresh(trace: Trace, output: Any) -> Any:
    """Return a view of the output of a layer that returned its input itself (dropout in eval mode), else the output.

    So the input keeps its own origins. There is no view if it would behave differently: without gradients (it may not be
    written to later), for a sparse tensor, or for a subclass.
    """
    plain = type(output) is Tensor and output.layout is torch.strided and torch.is_grad_enabled()
    return output.view_as(output) if plain and id(output) in trace.origins else output
