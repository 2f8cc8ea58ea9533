"""Fold what copies of a network hold into one tensor, and take it apart again."""

from collections.abc import Sequence

import torch
from torch import Tensor

_IMAGE_DIMENSIONS = 4


def unfold(folded: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return each copy's part, a view: [B, C], [B, T, C] or [B, C, H, W]."""
    if folded.ndim == _IMAGE_DIMENSIONS:
        return folded.unflatten(1, (count, -1)).unbind(1)
    return folded.unflatten(0, (count, -1)).unbind(0)


def fold(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts of all copies as one tensor: images side by side in the channels, all else in the batch."""
    return torch.cat(tuple(parts), dim=1 if parts[0].ndim == _IMAGE_DIMENSIONS else 0)
