"""Stack a network: replace every layer that has parameters or randomness by its counterpart for many copies."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from recorder.hosts.parts import FlatInput, Grafted, SequenceInput
from recorder.stacks.layers import (
    BatchNorm,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    OneByOne,
    Stacked,
)
from recorder.stacks.sequences import GRU, LSTM, Attention, EncoderLayer


class Vectors(nn.Module):
    """FlatInput: an example that all copies share, as one vector a copy, [copies * B, features]."""

    def __init__(self, enter: FlatInput, count: int) -> None:
        super().__init__()
        self.count, self.embedding = count, None if enter.embedding is None else Embedding(enter.embedding, count)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each copy's vectors."""
        if self.embedding is None:
            return inputs.flatten(1).repeat(self.count, 1)
        vectors: Tensor = self.embedding(inputs)
        return vectors.flatten(1)


class Sequences(Stacked):
    """SequenceInput: an example that all copies share, as one sequence a copy, [copies * B, T, C]."""

    position: Tensor

    def __init__(self, enter: SequenceInput, count: int) -> None:
        super().__init__(enter, count)
        self.lift = _stacked(enter.lift, count)
        self.tokens = enter.tokens

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each copy's sequences."""
        rows = inputs if self.tokens else inputs.permute(0, 2, 1, 3).flatten(2).repeat(self.count, 1, 1)
        return torch.add(self.lift(rows).unflatten(0, (self.count, -1)), self.position[:, None]).flatten(0, 1)


Counterpart = Callable[[Any, int], nn.Module]
COUNTERPARTS: Final[Mapping[type[nn.Module], Counterpart]] = MappingProxyType(
    {
        FlatInput: Vectors,
        SequenceInput: Sequences,
        nn.Linear: Linear,
        nn.Embedding: Embedding,
        nn.Conv2d: Conv2d,
        nn.BatchNorm1d: BatchNorm,
        nn.BatchNorm2d: BatchNorm,
        nn.LayerNorm: LayerNorm,
        nn.GroupNorm: GroupNorm,
        nn.Dropout: Dropout,
        nn.Dropout2d: Dropout,
        nn.Flatten: Flatten,
        nn.GRU: GRU,
        nn.LSTM: LSTM,
        nn.MultiheadAttention: Attention,
        nn.TransformerEncoderLayer: lambda layer, count: EncoderLayer(layer, lambda part: _stacked(part, count)),
        Grafted: lambda grafted, count: Grafted(_stacked(grafted.block, count), OneByOne(grafted.seed, count)),
    }
)


def stacked(network: nn.Module, count: int) -> nn.Module:
    """Return `count` copies of a host's network as one module, made of the network's own; one copy is the network itself."""
    return network if count == 1 else _stacked(network, count)


def _stacked(module: nn.Module, count: int) -> nn.Module:
    counterpart = COUNTERPARTS.get(type(module))
    if counterpart is not None:
        return counterpart(module, count)
    if next(module.parameters(recurse=False), None) is not None:
        return OneByOne(module, count)
    for name, part in module.named_children():
        setattr(module, name, _stacked(part, count))
    return module
