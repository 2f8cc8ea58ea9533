"""The topology of any torch module: which leaf layers run, which activation follows each, and who feeds whom.

Leaf modules are hooked during one forward pass; between them, tensors carry their provenance (the layers whose output
they are made of) through a `TorchFunctionMode`. Nothing is traced or rewritten, so a module needs no change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recorder.activations import function_activation, module_activation

OPAQUE: Final = (nn.MultiheadAttention,)  # one leaf, whatever is inside
_ADDITIONS: Final = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
_CHANNELS_FIRST: Final = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "Pool", "Upsample", "Dropout2d", "Dropout1d")


@dataclass(frozen=True)
class Layer:
    """A leaf layer: `depth` counts the layers on the longest way from an input (0 for the first)."""

    layer_id: str
    type: str
    depth: int
    input_channels: int
    output_channels: int
    activation_type: str
    dropout_rate: float
    parameter_count: int


@dataclass(frozen=True)
class Activation:
    """An activation and the layer that feeds it (None where it acts on the model's input)."""

    activation_id: str
    type: str
    layer_id: str | None
    functional: bool


@dataclass(frozen=True)
class Connection:
    """`target` consumes what `source` made; `residual` where that tensor skipped layers and was added back."""

    source: str
    target: str
    residual: bool


@dataclass(frozen=True)
class Topology:
    """Layers in the order of their first call, activations, and the distinct connections between layers."""

    layers: tuple[Layer, ...]
    activations: tuple[Activation, ...]
    connections: tuple[Connection, ...]


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Leaf modules by path: those without children, and attention blocks as one; '' becomes the class's name."""
    found: dict[str, nn.Module] = {}
    skip: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if skip and path.startswith(skip):
            continue
        if isinstance(module, OPAQUE):
            skip = (*skip, f"{path}.")
        if isinstance(module, OPAQUE) or next(module.children(), None) is None:
            found[path or type(module).__name__] = module
    return found


def tensors_of(value: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and model outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


@dataclass
class _Origins:
    """Which layers a tensor is made of: layer id -> whether it came over a residual path."""

    tensor: Tensor
    layers: dict[str, bool]


@dataclass
class _Trace:
    """What one forward pass shows. Holds every tracked tensor, so that an `id` is never used twice."""

    origins: dict[int, _Origins] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    channels: dict[str, tuple[int, int]] = field(default_factory=dict)
    edges: dict[tuple[str, str], bool] = field(default_factory=dict)
    activations: dict[str, Activation] = field(default_factory=dict)
    inside: int = 0

    def sources(self, value: object) -> dict[str, bool]:
        merged: dict[str, bool] = {}
        for tensor in tensors_of(value):
            known = self.origins.get(id(tensor))
            for layer, residual in known.layers.items() if known else ():
                merged[layer] = merged.get(layer, True) and residual
        return merged

    def mark(self, value: object, layers: dict[str, bool]) -> None:
        for tensor in tensors_of(value):
            self.origins[id(tensor)] = _Origins(tensor, dict(layers))

    def activation(self, name: str, activation_id: str | None, sources: dict[str, bool]) -> None:
        feeding = [layer for layer, residual in sources.items() if not residual] or list(sources)
        layer = max(feeding, key=lambda key: self.calls[key]) if feeding else None
        key = activation_id or f"{layer or 'input'}.{name}"
        suffix = 2
        while activation_id is None and key in self.activations:
            key = f"{layer or 'input'}.{name}-{suffix}"
            suffix += 1
        self.activations.setdefault(key, Activation(key, name, layer, activation_id is None))


def _added(trace: _Trace, args: Sequence[object]) -> dict[str, bool]:
    """Origins of an addition: where both sides are tracked and differ, the side that was made earlier is the residual."""
    sides = [trace.sources(arg) for arg in args if isinstance(arg, Tensor)]
    merged = trace.sources(args)
    if len(sides) != 2 or not sides[0] or not sides[1] or set(sides[0]) == set(sides[1]):
        return merged
    early = min(sides, key=lambda side: max(trace.calls[layer] for layer in side))
    late = sides[0] if early is sides[1] else sides[1]
    return {layer: layer not in late or (flag and late[layer]) if layer in early else flag for layer, flag in merged.items()}


class _Provenance(TorchFunctionMode):
    """Carries origins through every torch function that runs between leaf modules."""

    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._trace.inside or not any(True for _ in tensors_of(result)):
            return result
        inputs = (args, kwargs or {})
        sources = self._trace.sources(inputs)
        if getattr(func, "__name__", "") in _ADDITIONS:
            sources = _added(self._trace, args)
        elif (name := function_activation(func)) and sources:
            self._trace.activation(name, None, sources)
        if sources:
            self._trace.mark(result, sources)
        return result


def channels_of(module: nn.Module, tensor: Tensor) -> int:
    """Dimension 1 of convolution-like tensors, else the last dimension; 1 for a scalar."""
    if tensor.ndim == 0:
        return 1
    first = tensor.ndim >= 4 or (tensor.ndim == 3 and any(part in type(module).__name__ for part in _CHANNELS_FIRST))
    return int(tensor.shape[1] if first else tensor.shape[-1])


def dropout_of(module: nn.Module) -> float:
    """Probability with which the layer drops elements: its `p` or `dropout`, 0 for a layer that drops none."""
    name = "p" if "Dropout" in type(module).__name__ else "dropout"
    rate = getattr(module, name, 0.0)
    return float(rate) if isinstance(rate, (int, float)) else 0.0


def _fresh(trace: _Trace, output: Any) -> Any:
    """A layer that returns its input itself (dropout in eval mode) gets a view, so that the input keeps its own origins."""
    if isinstance(output, Tensor) and id(output) in trace.origins:
        return output.view_as(output)
    return output


def _hook_leaf(path: str, module: nn.Module, trace: _Trace) -> list[Any]:
    activation = module_activation(module)

    def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        trace.inside += 1
        if activation is None:
            for source, residual in trace.sources((args, kwargs)).items():
                key = (source, path)
                trace.edges[key] = trace.edges.get(key, True) and residual
            trace.calls.setdefault(path, len(trace.calls))

    def after(module_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        trace.inside -= 1
        if activation is not None:
            sources = trace.sources((args, kwargs))
            trace.activation(activation, path, sources)
            trace.mark(output, sources)
            return output
        inputs, outputs = next(tensors_of((args, kwargs)), None), next(tensors_of(output), None)
        if outputs is not None and path not in trace.channels:
            into = channels_of(module_, outputs if inputs is None else inputs)
            trace.channels[path] = (into, channels_of(module_, outputs))
        fresh = _fresh(trace, output)
        trace.mark(fresh, {path: False})
        return fresh

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode and the caller's random state for one look at the model: training flags and RNG come back as they were."""
    flags = {module: module.training for module in model.modules()}
    state = torch.get_rng_state()
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
        torch.set_rng_state(state)


def _depths(trace: _Trace) -> dict[str, int]:
    depths: dict[str, int] = {}
    for layer in trace.calls:  # first-call order: a source was called before its targets, but for loops
        sources = [source for source, target in trace.edges if target == layer and source in depths]
        depths[layer] = 1 + max((depths[source] for source in sources), default=-1)
    return depths


def find_topology(model: nn.Module, *args: Any, **kwargs: Any) -> Topology:
    """Topology of `model` as it runs on these inputs (one forward pass in eval mode; RNG and statistics untouched)."""
    trace = _Trace()
    modules = leaves(model)
    handles = [handle for path, module in modules.items() for handle in _hook_leaf(path, module, trace)]
    try:
        with undisturbed(model), torch.enable_grad(), _Provenance(trace):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    first = {a.layer_id: a.type for a in reversed(trace.activations.values())}
    depths = _depths(trace)
    layers = tuple(
        Layer(
            layer_id=path,
            type=type(modules[path]).__name__,
            depth=depths[path],
            input_channels=trace.channels[path][0],
            output_channels=trace.channels[path][1],
            activation_type=first.get(path, "none"),
            dropout_rate=dropout_of(modules[path]),
            parameter_count=sum(p.numel() for p in modules[path].parameters()),
        )
        for path in trace.calls
        if path in trace.channels
    )
    edges = tuple(Connection(source, target, residual) for (source, target), residual in trace.edges.items())
    return Topology(layers, tuple(trace.activations.values()), edges)
