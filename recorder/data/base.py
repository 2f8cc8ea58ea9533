"""What a data set is to the recorder: tensors, a task, a source and a licence; and a host's own share of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Inputs (float32 [N, ...] or int64 tokens [N, T]) and class targets (int64 [N])."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Tensor) -> "Examples":
        """The examples at these positions."""
        return Examples(self.inputs[index], self.targets[index])


@dataclass(frozen=True)
class DataSet:
    """A bundled data set. `load` reads it from an installed package, offline; `kind` is vector, image, tokens or series."""

    name: str
    kind: str
    classes: int
    licence: str
    source: str
    load: Callable[[], Examples]


@dataclass(frozen=True)
class Share:
    """One host's share of a data set: disjoint training, validation and test examples."""

    train: Examples
    validation: Examples
    test: Examples
    classes: int


def share_of(data: DataSet, *, samples: int, held: int, generator: torch.Generator) -> Share:
    """Draw a host's share: at most `samples` for training, `held` each for validation and test (a fifth each if scarce)."""
    examples = data.load()
    order = torch.randperm(len(examples), generator=generator)
    held = min(held, len(examples) // 5)
    validation, test, rest = order[:held], order[held : 2 * held], order[2 * held :]
    return Share(examples.take(rest[:samples]), examples.take(validation), examples.take(test), data.classes)
