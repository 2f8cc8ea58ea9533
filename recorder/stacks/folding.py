"""Fold what copies of a network hold into one tensor, and take it apart again."""

from collections.abc import Sequence

import torch
from torch import Tensor

_IMAGE_DIMENSIONS = 4


def unfold(folded: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return each copy's part, a view: [B, C], [B, T, C] or [B, C, H, W]."""
    dimension = 1 if folded.ndim == _IMAGE_DIMENSIONS else 0
    parts: tuple[Tensor, ...] = torch.unflatten(folded, dimension, (count, -1)).unbind(dimension)
    return parts


def fold(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts of all copies as one tensor: images side by side in the channels, all else in the batch."""
    return torch.cat(tuple(parts), dim=1 if parts[0].ndim == _IMAGE_DIMENSIONS else 0)
