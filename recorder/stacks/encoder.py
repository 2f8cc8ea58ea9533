"""Define the stacked transformer encoder layer: attention of all copies in one product a head."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
