"""Find tensors in nested arguments and outputs, also those that have no shape yet."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Final

from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

DEPTH: Final = 8  # levels of nesting: a list may hold itself


def tensors_of(value: object, depth: int = DEPTH) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists, mappings, model outputs and dataclasses, at most `depth` levels deep."""
    if isinstance(value, Tensor):
        yield value
    elif depth == 0:
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item, depth - 1)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item, depth - 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_of(getattr(value, entry.name, None), depth - 1)


def is_lazy(tensor: Tensor) -> bool:
    """Return whether a parameter is still without a shape."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
