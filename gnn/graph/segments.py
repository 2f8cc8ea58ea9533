"""Sum and average rows by segment, such as the nodes of each graph, or the layers that each seed monitors."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """N rows in `count` segments; `index` int64 [N] is the segment of each row. One segment alone is summed without it."""

    index: Tensor
    count: int

    @cached_property
    def shares(self) -> Tensor:
        """1 / (number of rows) of each segment, 1 if it has none: float32 [count, 1]."""
        with torch.inference_mode(False):  # what is kept must also serve training
            if self.count == 1:
                return torch.full((1, 1), 1.0 / max(len(self.index), 1), device=self.index.device)
            return torch.bincount(self.index, minlength=self.count).clamp(min=1).float().reciprocal().unsqueeze(1)

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` [N, ...] by segment: [count, ...]."""
        if self.count == 1:
            return values.sum(0, keepdim=True)
        return values.new_zeros((self.count, *values.shape[1:])).index_add_(0, self.index, values)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` [N, W] by segment: [count, W], zero if a segment is empty."""
        return self.sum(values) * self.shares.to(values.dtype)

    def highest(self, values: Tensor, least: float) -> Tensor:
        """Return the highest of `values` [N, W] by segment, but no less than `least`: [count, W]; it has no gradient."""
        found = values.new_full((self.count, values.shape[1]), least)
        return found.scatter_reduce(0, self.index.unsqueeze(1).expand_as(values), values.detach(), "amax", include_self=True)

    def spread(self, values: Tensor) -> Tensor:
        """Return for each row the value of its segment, from `values` [count, ...]: [N, ...], or [1, ...] if there is one."""
        return values if self.count == 1 else values[self.index]
