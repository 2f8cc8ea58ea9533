"""Declare a data set: tensors, task, source and licence; and draw a host's own share of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Kind(StrEnum):
    """What an example is: a feature vector [F], an image [C, H, W] (float32), or tokens [T] (int64)."""

    VECTOR = "vector"
    IMAGE = "image"
    TOKENS = "tokens"


@dataclass(frozen=True)
class Examples:
    """Inputs (float32 [N, ...], or int64 tokens [N, T]) and class targets (int64 [N])."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Tensor) -> "Examples":
        """Return the examples at these positions."""
        return Examples(self.inputs[index], self.targets[index])


@dataclass(frozen=True)
class DataSet:
    """A bundled data set. `load` reads it from an installed package, offline; `vocabulary` is the number of tokens."""

    name: str
    kind: Kind
    classes: int
    task: str
    licence: str
    source: str
    load: Callable[[], Examples]
    vocabulary: int = 0


@dataclass(frozen=True)
class Share:
    """One host's share of a data set: disjoint training, validation and test examples.

    `glance` is half of validation's, `held` validation's followed by test's.
    """

    train: Examples
    validation: Examples
    test: Examples
    data: DataSet
    glance: Examples
    held: Examples


def share_of(data: DataSet, *, samples: int, held: int, generator: torch.Generator) -> Share:
    """Draw a host's share: at most `samples` for training, `held` each for validation and test (a fifth each if scarce)."""
    examples = data.load()
    order = torch.randperm(len(examples), generator=generator)
    held = min(held, len(examples) // 5)
    validation, test, rest = order[:held], order[held : 2 * held], order[2 * held :]
    parts = (rest[:samples], validation, test, validation[::2], order[: 2 * held])
    train, seen, kept, glance, both = (examples.take(part) for part in parts)
    return Share(train, seen, kept, data, glance, both)


def standardized(inputs: Tensor) -> Tensor:
    """Scale inputs to mean 0 and standard deviation 1 over all elements, float32."""
    values = inputs.to(torch.float32)
    return (values - values.mean()) / values.std()
