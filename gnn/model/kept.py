"""Keep what follows from a module's weights alone, for as long as they do not change."""

from collections.abc import Callable
from operator import attrgetter, is_
from typing import Any, Final, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

_T = TypeVar("_T")
_VERSION: Final = attrgetter("_version")


class Kept(Generic[_T]):
    """A value made from the weights of `module`, and the means to see whether they are still the same.

    torch counts the changes of a tensor in place, except those by a fused optimizer or through `.data`; `Keeping` drops the
    value when these are about to happen.
    """

    def __init__(self, module: nn.Module, value: _T) -> None:
        """Keep `value` for `module`."""
        self.value, self._owner = value, module
        each = [held for part in module.modules() for held in (part._parameters, part._buffers, part._modules)]
        self._holders: list[dict[str, Any]] = [held for held in each for _ in held]
        self._names = [name for held in each for name in held]
        self._found = [held[name] for held in each for name in held]
        self._tensors = [found for found in self._found if isinstance(found, Tensor)]
        self._changes = self._counted()

    def holds(self, module: nn.Module) -> bool:
        """Return whether `module` is the same one, and has the same tensors and submodules, unchanged."""
        same = module is self._owner and all(map(is_, map(dict.get, self._holders, self._names), self._found))
        return same and self._counted() == self._changes

    def _counted(self) -> int:
        return sum(map(_VERSION, self._tensors))


class Keeping(nn.Module):
    """A module that keeps a value made from its weights while it only answers on the CPU, in float32, without gradients."""

    _kept: Kept[Any] | None = None

    def kept(self, make: Callable[[], _T], *, wanted: bool = True) -> _T | None:
        """Return what `make` returns, which must depend on nothing but the weights; None if not wanted, or if they may change.

        Call it in every forward pass, because one with gradients announces a change.
        """
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            self._drop()
            return None
        if not wanted:
            return None
        kept = self._kept
        if kept is None or not kept.holds(self):
            tensors = [*self.parameters(), *self.buffers()]
            if not all(_is_counted(tensor) for tensor in tensors):
                return None
            kept = Kept(self, make())
            # gradients announce a step of an optimizer: the same answers then, but the weights are put in order each time
            if all(tensor.grad is None for tensor in tensors):
                self._kept = kept
        value: _T = kept.value
        return value

    def train(self, mode: bool = True) -> Self:
        """Set the mode as any module does."""
        self._drop()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._drop()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]  # torch does not type it

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept = None


def _is_counted(tensor: Tensor) -> bool:
    """Return whether torch counts the changes of this tensor, and it is on the CPU and, if it is a float, a float32."""
    return (
        not tensor.is_inference()
        and tensor.device.type == "cpu"
        and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
    )
