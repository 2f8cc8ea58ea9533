"""Recognize activation functions: their names, modules and functions, and where each one saturates.

An activation is a node of its own in the graph, fed by the layer whose output it transforms; it is not a layer.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

FLAT_EDGE: Final = 3.0  # |x| beyond which tanh, sigmoid, gelu and silu move by under 10 % of their slope at 0

MODULES: Final[Mapping[type[nn.Module], str]] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Softplus: "softplus",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardtanh: "hardtanh",
    nn.GLU: "glu",
}
FUNCTIONS: Final[frozenset[str]] = frozenset(MODULES.values())
_BY_SUFFIX: Final[Mapping[str, str]] = {  # Hugging Face wraps these functions in modules of its own
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu",
    "FastGELUActivation": "gelu",
    "PytorchGELUTanh": "gelu",
    "GELUTanh": "gelu",
    "SiLUActivation": "silu",
}


def module_activation(module: nn.Module) -> str | None:
    """Return the name of the activation that this module is, or None if it is not one."""
    return MODULES.get(type(module)) or _BY_SUFFIX.get(type(module).__name__)


def function_activation(function: Callable[..., object]) -> str | None:
    """Return the name of the activation that this torch function or tensor method is (`relu_` counts as `relu`), or None."""
    name = getattr(function, "__name__", "").removesuffix("_")
    return name if name in FUNCTIONS else None


def saturated(name: str, before: Tensor, after: Tensor) -> Tensor:
    """Return the mask (bool, shape of `after`) of elements in a flat region of activation `name`.

    relu family: output exactly 0 (or at relu6's ceiling); bounded ones: input beyond +-3 (hard ones: at the bound);
    smooth rectifiers (gelu, silu, mish, elu, selu, celu, softplus): input under -3; leaky ones: input under 0.
    """
    if name in ("relu", "relu6", "hardswish"):
        flat = after.eq(0)  # `==` would go through Python
        return flat | (after >= 6.0) if name == "relu6" else flat
    if name in ("tanh", "sigmoid"):
        return before.abs() > FLAT_EDGE
    if name in ("hardtanh", "hardsigmoid"):
        return (after == after.min()) | (after == after.max())
    if name in ("leaky_relu", "prelu"):
        return before < 0
    if before.shape != after.shape:  # glu halves a dimension: its gate is what saturates
        return torch.tensor_split(before, 2, dim=-1)[-1].abs() > FLAT_EDGE
    return before < -FLAT_EDGE
