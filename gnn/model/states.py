"""Hold the node states of a batch, by type and as one table."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional


class States(Mapping[str, Tensor]):
    """States {node type: [N, width]}; `table` [all N, widest] holds them one after the other."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        """Hold the states `parts`, by node type."""
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> Tensor:
        """Return the states of one node type."""
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the node types, in order."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Return the number of node types."""
        return len(self._parts)

    @cached_property
    def table(self) -> Tensor:
        """All states; those of narrower types are padded with zeros."""
        width = max(part.shape[1] for part in self._parts.values())
        return torch.cat(
            [part if part.shape[1] == width else functional.pad(part, (0, width - part.shape[1])) for part in self.values()]
        )
