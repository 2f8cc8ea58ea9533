"""Define stacked recurrent layers, one layer deep: all copies take a time step together."""

import torch
from torch import Tensor

from recorder.stacks.layers import Stacked, affine


class _Recurrent(Stacked):
    """What both kinds share: the inputs' share of the gates, for all times at once, and the loop over time."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        """Return the hidden states of every position, [copies * B, T, C] (and None for the last state)."""
        gates = affine(inputs, self.weight_ih_l0, self.bias_ih_l0)
        steps = gates.view(self.count, -1, *gates.shape[1:]).unbind(2)
        states = self.run(steps, self.weight_hh_l0.mT, self.bias_hh_l0[:, None])
        return torch.stack(states).permute(1, 2, 0, 3).flatten(0, 1), None

    def run(self, steps: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> list[Tensor]:
        """Return the hidden state [copies, B, C] after each step; `steps` are the inputs' shares of the gates."""
        raise NotImplementedError


class GRU(_Recurrent):
    """nn.GRU."""

    def run(self, steps: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> list[Tensor]:
        width = weight.shape[1]
        hidden, states = steps[0].new_zeros(*steps[0].shape[:2], width), []
        for step in steps:
            inner, outer = torch.baddbmm(bias, hidden, weight), step
            inner_gates, inner_new = inner.split((2 * width, width), dim=-1)
            outer_gates, outer_new = outer.split((2 * width, width), dim=-1)
            reset, update = torch.sigmoid(inner_gates + outer_gates).chunk(2, dim=-1)
            new = torch.tanh(torch.addcmul(outer_new, reset, inner_new))
            hidden = torch.lerp(new, hidden, update)
            states.append(hidden)
        return states


class LSTM(_Recurrent):
    """nn.LSTM."""

    def run(self, steps: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> list[Tensor]:
        width = weight.shape[1]
        hidden = steps[0].new_zeros(*steps[0].shape[:2], width)
        cell, states = hidden, []
        for step in steps:
            gates = torch.baddbmm(bias, hidden, weight) + step
            take, keep, new, give = gates.split(width, dim=-1)
            cell = torch.addcmul(torch.sigmoid(keep) * cell, torch.sigmoid(take), torch.tanh(new))
            hidden = torch.sigmoid(give) * torch.tanh(cell)
            states.append(hidden)
        return states
