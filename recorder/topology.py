"""What a model is made of: leaf layers, the activations that follow them, and who feeds whom (`tracing.py` finds it)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule

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
