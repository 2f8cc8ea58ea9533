"""The topology of any torch module: which leaf layers run, which activation follows each, and who feeds whom.

Leaf modules have a stand-in for their forward during one forward pass (`wrapping.py`); between them, tensors carry their
provenance (the layers whose output they are made of) through a `TorchFunctionMode`. A module needs no change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode

from recorder.activations import function_activation, module_activation
from recorder.wrapping import Forward, Wrapping

OPAQUE: Final = (  # one leaf, whatever is inside
    nn.MultiheadAttention,
    nn.DataParallel,  # runs copies
    torch.jit.ScriptModule,  # compiled: what is inside is no longer called from Python
    OptimizedModule,
)
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
    """Every tensor in nested tuples, lists, mappings, model outputs and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_of(getattr(value, entry.name, None))


def is_lazy(tensor: Tensor) -> bool:
    """Whether a parameter is still without a shape."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))


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
    depths: dict[str, int] = field(default_factory=dict)
    inside: int = 0

    def call(self, path: str, sources: dict[str, bool]) -> None:
        """A layer is called with what these sources made."""
        for source, residual in sources.items():
            self.edges[source, path] = self.edges.get((source, path), True) and residual
        if path not in self.calls:
            self.calls[path] = len(self.calls)
            self.depths[path] = 1 + max((self.depths[source] for source in sources), default=-1)

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
        layer = max(feeding, key=lambda key: (self.depths[key], self.calls[key])) if feeding else None
        key = activation_id or f"{layer or 'input'}.{name}"
        suffix = 2
        while activation_id is None and key in self.activations:
            key = f"{layer or 'input'}.{name}-{suffix}"
            suffix += 1
        self.activations.setdefault(key, Activation(key, name, layer, activation_id is None))


def _added(trace: _Trace, args: Sequence[object]) -> dict[str, bool]:
    """Origins of an addition: the side that went through fewer layers is the residual.

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


class _Provenance(TorchFunctionMode):
    """Carries origins through every torch function that runs between leaf modules."""

    def __init__(self, trace: _Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        inputs, name = (args, kwargs or {}), getattr(func, "__name__", "")
        before = None if self._trace.inside else self._trace.sources(inputs)
        result = func(*args, **(kwargs or {}))
        if before is None:
            return result
        sources = before
        if name in _ADDITIONS:
            sources = _added(self._trace, args)
        elif (activation := function_activation(func)) and sources:
            self._trace.activation(activation, None, sources)
        if sources:
            self._trace.mark(args[0] if name == "__setitem__" else result, sources)
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


class Tracing:
    """Watches for the model's next forward pass that builds a graph for backward, and follows its tensors through it.

    `complete` once such a pass has ended well; then `topology()` says what it showed. What is computed stays the same.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        self._model, self._modules = model, modules
        self._trace = _Trace()
        self._wrapping = Wrapping()
        self._mode: _Provenance | None = None
        self._handles: list[Any] = []
        self._lone = next((path for path, module in modules.items() if module is model), None)
        self._entered: dict[str, bool] = {}
        self.complete = False

    def attach(self) -> None:
        """Hook the model's entry and exit."""

        # plain functions: a copy of the model takes hooks along, and a bound method would take the whole recorder
        def enter(model: nn.Module, args: Any, kwargs: Any) -> None:
            idle = self._mode is None and not self.complete
            if idle and model is self._model and torch.is_grad_enabled() and not any(map(is_lazy, model.parameters())):
                self._enter((args, kwargs))

        def leave(model: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return self._leave((args, kwargs), output) if model is self._model and self._mode is not None else None

        self._handles = [
            self._model.register_forward_pre_hook(enter, with_kwargs=True),
            self._model.register_forward_hook(leave, with_kwargs=True, always_call=True),
        ]

    def detach(self) -> None:
        """Take everything off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._restore()

    def _enter(self, inputs: Any) -> None:
        self._trace = _Trace()
        self._mode = _Provenance(self._trace)
        if self._lone is not None:
            self._trace.call(self._lone, {})
            self._trace.inside = 1
        else:
            self._wrapping.put_on((module, partial(self._stand_in, path, module)) for path, module in self._modules.items())
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, inputs: Any, output: Any) -> Any:
        self._restore()
        self.complete = output is not None  # None: the forward pass raised
        if self._lone is not None:
            self._see(self._lone, self._model, inputs, output)
        self._trace.origins.clear()

    def _restore(self) -> None:
        self._wrapping.take_off()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None

    def _stand_in(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        make = self._layer if module_activation(module) is None else self._activation
        return make(path, module, forward)

    def _layer(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        trace = self._trace

        def followed(*args: Any, **kwargs: Any) -> Any:
            trace.call(path, trace.sources((args, kwargs)))
            trace.inside += 1
            output = _fresh(trace, forward(*args, **kwargs))
            trace.inside -= 1
            self._see(path, module, (args, kwargs), output)
            trace.mark(output, {path: False})
            return output

        return followed

    def _see(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        first, result = next(tensors_of(inputs), None), next(tensors_of(output), None)
        if result is not None:
            into = channels_of(module, result if first is None else first)
            self._trace.channels.setdefault(path, (into, channels_of(module, result)))

    def _activation(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        trace, name = self._trace, module_activation(module) or ""

        def followed(*args: Any, **kwargs: Any) -> Any:
            sources = trace.sources((args, kwargs))
            trace.inside += 1
            output = forward(*args, **kwargs)
            trace.inside -= 1
            trace.activation(name, path, sources)
            trace.mark(output, sources)
            return output

        return followed

    def topology(self) -> Topology:
        """Layers, activations and connections of the pass."""
        trace = self._trace
        first = {a.layer_id: a.type for a in reversed(trace.activations.values())}
        layers = tuple(
            Layer(
                layer_id=path,
                type=type(self._modules[path]).__name__,
                depth=trace.depths[path],
                input_channels=trace.channels[path][0],
                output_channels=trace.channels[path][1],
                activation_type=first.get(path, "none"),
                dropout_rate=dropout_of(self._modules[path]),
                parameter_count=sum(p.numel() for p in self._modules[path].parameters()),
            )
            for path in trace.calls
            if path in trace.channels
        )
        known = {layer.layer_id for layer in layers}
        edges = tuple(Connection(a, b, residual) for (a, b), residual in trace.edges.items() if {a, b} <= known)
        return Topology(layers, tuple(trace.activations.values()), edges)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode for one look at the model: training flags, random state (every device's) and buffers come back as they were."""
    flags = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
            yield
    finally:
        for module, training in flags.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def find_topology(model: nn.Module, *args: Any, **kwargs: Any) -> Topology:
    """Topology of `model` as it runs on these inputs: one forward pass in eval mode; RNG, buffers and flags come back."""
    tracing = Tracing(model, leaves(model))
    tracing.attach()
    try:
        with undisturbed(model), torch.enable_grad():
            model(*args, **kwargs)
    finally:
        tracing.detach()
    return tracing.topology()
