"""Define what hosts share: inputs for images and tokens, activations by name, initialization with the host's gain."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from recorder.data import DataSet, Kind
from recorder.hosts.spec import HostSpec
from recorder.watch.activations import MODULES

EMBEDDING: Final = 8  # channels of a token on its way into a flat network


def activation_of(spec: HostSpec) -> nn.Module:
    """Return a fresh module of the host's activation."""
    return {name: module for module, name in MODULES.items()}[spec.activation]()


def initialize(module: nn.Module, gain: float) -> nn.Module:
    """Initialize every linear and convolutional layer of `module` with Xavier-uniform weights of this gain; return `module`."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            nn.init.xavier_uniform_(part.weight, gain=gain)
    return module


class FlatInput(nn.Module):
    """Any example as one vector [B, features]: images flattened, tokens embedded in 8 channels first."""

    def __init__(self, data: DataSet, example: Tensor) -> None:
        super().__init__()
        tokens = data.kind is Kind.TOKENS
        self.embedding = nn.Embedding(data.vocabulary, EMBEDDING) if tokens else None
        self.features = example.numel() * (EMBEDDING if tokens else 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the vectors [B, features]."""
        embedded = inputs if self.embedding is None else self.embedding(inputs)
        return torch.flatten(embedded, 1)


class SequenceInput(nn.Module):
    """Any example as a sequence [B, T, C]: tokens embedded, an image's rows projected; with learned positions."""

    def __init__(self, data: DataSet, example: Tensor, channels: int) -> None:
        super().__init__()
        self.tokens = data.kind is Kind.TOKENS
        length = example.shape[0] if self.tokens else example.shape[-2]
        row = 0 if self.tokens else example.shape[0] * example.shape[-1]
        self.lift: nn.Module = nn.Embedding(data.vocabulary, channels) if self.tokens else nn.Linear(row, channels)
        self.position = nn.Parameter(0.02 * torch.randn(length, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sequences [B, T, C]."""
        rows = inputs if self.tokens else inputs.permute(0, 2, 1, 3).flatten(2)
        lifted: Tensor = self.lift(rows)
        return lifted + self.position


class Grafted(nn.Module):
    """A host block followed by the seed that fossilized on it: S(h), now trained and copied with the host."""

    def __init__(self, block: nn.Module, seed: nn.Module) -> None:
        super().__init__()
        self.block, self.seed = block, seed

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the seed's output on the block's."""
        outputs: Tensor = self.seed(self.block(*args, **kwargs))
        return outputs


def norm_of(spec: HostSpec, channels: int, *, image: bool) -> list[tuple[str, nn.Module]]:
    """Return the host's normalization for [B, C] or [B, C, H, W] as a named part; an empty list if it has none."""
    if spec.norm == "batch":
        return [("norm", nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels))]
    if spec.norm == "layer":
        return [("norm", nn.GroupNorm(1, channels) if image else nn.LayerNorm(channels))]
    return []


def chain(parts: list[tuple[str, nn.Module]]) -> nn.Sequential:
    """Return a sequential of named parts."""
    sequence = nn.Sequential()
    for name, module in parts:
        sequence.add_module(name, module)
    return sequence


def numbered(count: int) -> tuple[str, ...]:
    """Return paths of the first `count` blocks: the sites of a host."""
    return tuple(f"blocks.{index}" for index in range(count))
