"""Define stacked layers over sequences [copies * B, T, C]: the transformer encoder layer, GRU and LSTM of one layer."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recorder.stacks.folding import unfold
from recorder.stacks.layers import Linear, Stacked, affine, kept


class Attention(Stacked):
    """nn.MultiheadAttention of a sequence on itself, batch first."""

    in_proj_weight: Tensor
    in_proj_bias: Tensor

    def __init__(self, layer: nn.MultiheadAttention, count: int) -> None:
        super().__init__(layer, count)
        self.heads, self.share = layer.num_heads, layer.dropout
        self.out_proj = Linear(layer.out_proj, count)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what each position gathers, [copies, T, B, C]: time first, as torch has it when dropout draws its mask."""
        batch, length, channels = inputs.shape
        mixed = affine(inputs, self.in_proj_weight, self.in_proj_bias).view(batch, length, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        found = self._gather(query, key, value)
        rows = found.view(self.count, -1, *found.shape[1:]).permute(0, 3, 1, 2, 4).reshape(self.count, -1, channels)
        gathered: Tensor = self.out_proj(rows.flatten(0, 1))
        return gathered.view(self.count, length, -1, channels)

    def _gather(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not self.training or not self.share:
            return F.scaled_dot_product_attention(query, key, value)
        weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
        mask = kept(weights.new_empty((len(weights) // self.count, *weights.shape[1:])), self.share)
        return torch.mul(weights.unflatten(0, (self.count, -1)), mask).flatten(0, 1) @ value


class EncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer without masks, of parts that are stacked already."""

    def __init__(self, layer: nn.TransformerEncoderLayer, stack: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        for name, part in layer.named_children():
            self.add_module(name, stack(part))
        self.norm_first = layer.norm_first

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, [copies * B, T, C]."""
        norm1, norm2 = self.get_submodule("norm1"), self.get_submodule("norm2")
        if self.norm_first:
            hidden = self._attend(inputs, norm1(inputs))
            return hidden + self._change(norm2(hidden))
        hidden = norm1(self._attend(inputs, inputs))
        outputs: Tensor = norm2(hidden + self._change(hidden))
        return outputs

    def _attend(self, inputs: Tensor, seen: Tensor) -> Tensor:
        gathered = self.get_submodule("self_attn")(seen)
        kept_of_it = self.get_submodule("dropout1")(gathered.flatten(0, 1)).view(gathered.shape)
        return torch.add(inputs.unflatten(0, (len(gathered), -1)), kept_of_it.transpose(1, 2)).flatten(0, 1)

    def _change(self, hidden: Tensor) -> Tensor:
        for name in ("linear1", "activation", "dropout", "linear2", "dropout2"):
            hidden = self.get_submodule(name)(hidden)
        return hidden


class GRU(Stacked):
    """nn.GRU; all copies take a time step together."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        """Return the hidden states of every position, [copies * B, T, C] (and None for the last state)."""
        gates = affine(inputs, self.weight_ih_l0, self.bias_ih_l0)
        weight, bias = self.weight_hh_l0.mT, self.bias_hh_l0[:, None]
        width, states = weight.shape[1], []
        hidden = inputs.new_zeros(self.count, len(inputs) // self.count, width)
        for outer in gates.unflatten(0, (self.count, -1)).unbind(2):
            inner_gates, inner_new = torch.baddbmm(bias, hidden, weight).split((2 * width, width), dim=-1)
            outer_gates, outer_new = outer.split((2 * width, width), dim=-1)
            reset, update = torch.sigmoid(inner_gates + outer_gates).chunk(2, dim=-1)
            new = torch.tanh(torch.addcmul(outer_new, reset, inner_new))
            hidden = torch.lerp(new, hidden, update)
            states.append(hidden)
        return _by_time(states, 0), None


class LSTM(Stacked):
    """nn.LSTM; one copy after the other: torch has all time steps in one operation, and parts put together are no quicker."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        """Return the hidden states of every position, [copies * B, T, C] (and None for the last state)."""
        outputs = []
        for part, *weights in zip(unfold(inputs, self.count), *map(torch.unbind, self.parameters()), strict=True):
            start = part.new_zeros(1, len(part), part.shape[-1])
            outputs.append(torch.lstm(part, (start, start), weights, True, 1, 0.0, self.training, False, True)[0])
        return _by_time([output.transpose(0, 1) for output in outputs], 1), None


def _by_time(parts: list[Tensor], dimension: int) -> Tensor:
    """Stack states to [T, copies, B, C], and return them as [copies * B, T, C]: time first in memory, as torch has its own."""
    return torch.stack(parts, dimension).permute(1, 2, 0, 3).flatten(0, 1)
