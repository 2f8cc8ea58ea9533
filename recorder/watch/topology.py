"""Describe a model: leaf layers, the activations that follow them, and which layer feeds which."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.utils.parametrize import is_parametrized

from recorder.watch.tensors import is_lazy
from recorder.watch.wrapping import is_compiled

OPAQUE: Final = (  # one leaf, whatever is inside
    nn.MultiheadAttention,
    nn.DataParallel,  # runs copies
    torch.jit.ScriptModule,  # compiled: what is inside is no longer called from Python
    OptimizedModule,
)
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
    """An activation and the layer that feeds it (None if it acts on the model's input)."""

    activation_id: str
    type: str
    layer_id: str | None
    functional: bool


@dataclass(frozen=True)
class Connection:
    """A connection: `target` consumes what `source` made; `residual` if that tensor skipped layers and was added back."""

    source: str
    target: str
    residual: bool


@dataclass(frozen=True)
class Topology:
    """Layers in the order of their first call, activations, and the distinct connections between layers."""

    layers: tuple[Layer, ...]
    activations: tuple[Activation, ...]
    connections: tuple[Connection, ...]

    def joined(self, earlier: "Topology", same: Set[str]) -> "Topology":
        """Join this topology with an earlier one, for the modules `same` that the earlier one saw and that are still there."""
        new, edges = {layer.layer_id for layer in self.layers}, {(e.source, e.target) for e in self.connections}
        layers = self.layers + tuple(e for e in earlier.layers if e.layer_id in same and e.layer_id not in new)
        known, ids = {layer.layer_id for layer in layers}, {a.activation_id for a in self.activations}
        kept = (a for a in earlier.activations if a.activation_id not in ids and (a.functional or a.activation_id in same))
        activations = self.activations + tuple(a for a in kept if a.layer_id is None or a.layer_id in known)
        others = (e for e in earlier.connections if (e.source, e.target) not in edges and {e.source, e.target} <= known)
        return Topology(layers, activations, self.connections + tuple(others))


def is_code(module: nn.Module) -> bool:
    """Return whether a call of this module runs what `torch.compile` made."""
    return isinstance(module, OptimizedModule) or is_compiled(module)


def _is_opaque(module: nn.Module) -> bool:
    return isinstance(module, OPAQUE) or is_compiled(module) or is_parametrized(module)


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Return the leaf modules by path.

    Leaves are modules without children; attention blocks, parametrized and compiled modules count as one leaf. The path ''
    becomes the class's name.
    """
    found: dict[str, nn.Module] = {}
    skip: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if skip and path.startswith(skip):
            continue
        opaque = _is_opaque(module)
        if opaque:
            skip = (*skip, f"{path}." if path else "")
        if opaque or next(module.children(), None) is None:
            found[path or type_of(module)] = module
    return found


def type_of(module: nn.Module) -> str:
    """Return the name of a module's class; for a parametrized module, the class that it had before."""
    kind = type(module).__mro__[1] if is_parametrized(module) else type(module)
    return kind.__name__


def parameter_count(module: nn.Module) -> int:
    """Return the number of elements of all parameters; one that is still without a shape counts 0."""
    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def channels_of(module: nn.Module, tensor: Tensor) -> int:
    """Return dimension 1 of convolution-like tensors, else the last dimension; 1 for a scalar."""
    if tensor.ndim == 0:
        return 1
    first = tensor.ndim >= 4 or (tensor.ndim == 3 and any(part in type(module).__name__ for part in _CHANNELS_FIRST))
    return int(tensor.shape[1] if first else tensor.shape[-1])


def dropout_of(module: nn.Module) -> float:
    """Return the probability with which the layer drops elements: its `p` or `dropout`, 0 for a layer that drops none."""
    name = "p" if "Dropout" in type(module).__name__ else "dropout"
    rate = getattr(module, name, 0.0)
    return float(rate) if isinstance(rate, (int, float)) else 0.0
