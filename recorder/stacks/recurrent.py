"""Define stacked recurrent layers, one layer deep."""

import torch
from torch import Tensor

from recorder.stacks.folding import unfold
from recorder.stacks.layers import Stacked, affine


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
