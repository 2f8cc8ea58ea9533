"""Define the stacked transformer encoder layer: attention of all copies in one product a head."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recorder.stacks.layers import Stacked, affine, kept


class Attention(Stacked):
    """nn.MultiheadAttention of a sequence on itself, batch first."""

    def __init__(self, layer: nn.MultiheadAttention, count: int) -> None:
        super().__init__(layer, count)
        self.heads, self.share = layer.num_heads, layer.dropout
        self.out_proj = Stacked(layer.out_proj, count)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what each position gathers, [copies, T, B, C]: time first, as torch has it when dropout draws its mask."""
        batch, length, channels = inputs.shape
        mixed = affine(inputs, self.in_proj_weight, self.in_proj_bias).view(batch, length, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        found = self._gather(query, key, value)
        rows = found.view(self.count, -1, *found.shape[1:]).permute(0, 3, 1, 2, 4).reshape(self.count, -1, channels)
        return affine(rows.flatten(0, 1), self.out_proj.weight, self.out_proj.bias).view(self.count, length, -1, channels)

    def _gather(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not self.training or not self.share:
            return F.scaled_dot_product_attention(query, key, value)
        weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
        mask = kept(weights.new_empty((len(weights) // self.count, *weights.shape[1:])), self.share)
        return (weights.unflatten(0, (self.count, -1)) * mask).flatten(0, 1) @ value


class EncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer of already stacked parts, without masks."""

    def __init__(self, parts: Mapping[str, nn.Module], norm_first: bool) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.norm_first = norm_first

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, [copies * B, T, C]."""
        if self.norm_first:
            hidden = self._attend(inputs, self.norm1(inputs))
            return hidden + self._change(self.norm2(hidden))
        hidden = self.norm1(self._attend(inputs, inputs))
        outputs: Tensor = self.norm2(hidden + self._change(hidden))
        return outputs

    def _attend(self, inputs: Tensor, seen: Tensor) -> Tensor:
        found = self.dropout1(self.self_attn(seen).flatten(0, 1))  # [copies * T, B, C]
        by_copy = inputs.view(self.self_attn.count, -1, *inputs.shape[1:])
        return (by_copy + found.view(len(by_copy), -1, *found.shape[1:]).transpose(1, 2)).flatten(0, 1)

    def _change(self, hidden: Tensor) -> Tensor:
        outputs: Tensor = self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(hidden)))))
        return outputs
