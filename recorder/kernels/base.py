"""Declare a kernel: its blueprint id, the tensor layouts it fits, and how to build it for a site."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from torch import Tensor, nn


class Layout(StrEnum):
    """Layout of a site's output: [B, C], [B, T, C] or [B, C, H, W]."""

    VECTOR = "vector"
    SEQUENCE = "sequence"
    IMAGE = "image"


EVERYWHERE: Final = frozenset(Layout)
SPATIAL: Final = frozenset({Layout.SEQUENCE, Layout.IMAGE})


@dataclass(frozen=True)
class Site:
    """The shape that a kernel is built for: layout, channels, and positions (tokens, or pixels; 1 for a vector)."""

    layout: Layout
    channels: int
    positions: int = 1


@dataclass(frozen=True)
class Kernel:
    """A kernel blueprint. `identity_start`: grafted at full strength, it changes no output before its first update.

    `tier` is the Leyline short name (SAFE, EXPERIMENTAL, HIGH_RISK); `bounds` are its allowed parameters.
    """

    blueprint_id: str
    description: str
    build: Callable[[Site], nn.Module]
    layouts: frozenset[Layout] = EVERYWHERE
    tier: str = "SAFE"
    stage: int = 1
    identity_start: bool = True
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)


def zeroed(module: nn.Module) -> nn.Module:
    """Set every parameter of a module to zero (the usual output layer of an identity start) and return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class OverChannels(nn.Module):
    """Applies an inner module over the channel dimension, which is moved last for images; the shape stays."""

    def __init__(self, site: Site, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.move = site.layout is Layout.IMAGE

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inner module's output, in the layout of the input."""
        outputs: Tensor = self.inner(inputs.movedim(1, -1) if self.move else inputs)
        return outputs.movedim(-1, 1) if self.move else outputs


class Residual(nn.Module):
    """S(h) = h + f(h): the identity as long as f's output layer is zero."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Return h + f(h), in the shape of h."""
        change: Tensor = self.inner(inputs)
        return inputs + change
