"""Collect what could not be measured: warn once, and never raise into the loop that is watched."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class WatchWarning(UserWarning):
    """Something of a watched model can't be measured; its training is not touched."""


class Faults:
    """Notes of one watch. `tell` warns of each once, and is called between steps only: under `-W error` a warning raises."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._waiting: list[str] = []

    def note(self, message: str) -> None:
        """Keep a message for `tell`, unless it was noted before."""
        if message not in self._told:
            self._told.add(message)
            self._waiting.append(message)

    def tell(self) -> None:
        """Warn of what was noted since the last call."""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            warnings.warn(message, WatchWarning, stacklevel=4)


class _Noting(Protocol):
    faults: Faults


Own = TypeVar("Own", bound=_Noting)


def guarded(method: Callable[Concatenate[Own, Arguments], Result]) -> Callable[Concatenate[Own, Arguments], Result | None]:
    """Return a method that runs inside the user's loop: what it raises is noted in `self.faults`, and it returns None."""

    @wraps(method)
    def safe(self: Own, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as fault:  # noqa: BLE001  foreign tensors, modules and optimizers raise anything; the training goes on
            where, text = method.__name__.strip("_").replace("_", " "), " ".join(str(fault).split())[:200]
            self.faults.note(f"a part of the model can't be measured ({where}: {type(fault).__name__}: {text})")
            return None

    return safe
