"""Tensors wherever they are: in nested arguments and outputs, and such as have no shape yet."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter


def tensors_of(value: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings, model outputs and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_of(getattr(value, entry.name, None))


def is_lazy(tensor: Tensor) -> bool:
    """Whether a parameter is still without a shape."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
