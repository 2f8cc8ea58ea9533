"""Push a mode that sees every torch function until it is removed, whatever other modes do meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode


def push(mode: TorchFunctionMode) -> None:
    """Put a mode on top of this thread's stack."""
    _push_mode(mode)


def remove(mode: TorchFunctionMode) -> bool:
    """Take a mode off this thread's stack, from under those that came later too; return whether it was there."""
    stack = _get_current_function_mode_stack()
    depth = next((place for place, other in enumerate(reversed(stack)) if other is mode), None)
    if depth is None:
        return False
    later = [_pop_mode() for _ in range(depth)]
    _pop_mode()
    for other in reversed(later):
        _push_mode(other)
    return True


@contextmanager
def away(mode: TorchFunctionMode | None, *, needed: bool) -> Iterator[None]:
    """Take a mode off for a while if `needed`: under it, code of `torch.compile` would be compiled once more."""
    there = needed and mode is not None and remove(mode)
    try:
        yield
    finally:
        if there and mode is not None:
            push(mode)
