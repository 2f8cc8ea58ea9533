"""List a model's modules and parameters, and notice when they are added, removed or replaced."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter, is_, ne
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from recorder.watch.tensors import is_lazy
from recorder.watch.topology import leaves
from recorder.watch.wrapping import is_compiled

_VERSION: Final = attrgetter("_version")
_ROWS: Final = 64  # steps whose version counters are kept before they are counted
_SLOTS: Final = ("_modules", "_parameters")


def is_counted(parameter: Tensor) -> bool:
    """Return whether writes to a parameter are counted: those made in inference mode have no version."""
    return is_lazy(parameter) or not parameter.is_inference()


class Inventory:
    """Leaf modules by path, their parameters' ids, and all parameters of a model at one moment.

    A leaf keeps the path under which an earlier inventory knew it, wherever it is now: wrapping a layer does not rename it.
    """

    def __init__(self, model: nn.Module, known: Mapping[str, nn.Module] | None = None) -> None:
        found = leaves(model)
        names = {id(module): path for path, module in (known or {}).items() if path not in found}
        self.modules = {names.get(id(module), path): module for path, module in found.items()}
        self.parameter_ids = {path: [id(p) for p in module.parameters()] for path, module in self.modules.items()}
        self.parameters = [p for p in model.parameters() if is_counted(p)]
        self._all = list(model.modules())
        slots = (vars(module).get(slot) for module in self._all for slot in _SLOTS)
        self._slots = [slot for slot in slots if isinstance(slot, dict)]
        self._held, self._compiled = self._holds(), list(map(is_compiled, self._all))

    def _holds(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._slots)))

    def is_current(self) -> bool:
        """Return whether the model still holds these very modules and parameters, none of them compiled since."""
        held = self._holds()
        same = len(held) == len(self._held) and all(map(is_, held, self._held))
        return same and list(map(is_compiled, self._all)) == self._compiled


class Interval(NamedTuple):
    """The steps since the last measured one.

    How many there are, their samples and those of the measured step alone, wall and process CPU seconds, and per layer the
    share of steps in which its weights were written to.
    """

    steps: int
    samples: int
    last_samples: int
    seconds: float
    cpu_seconds: float
    moved: Mapping[str, float]


class Writes:
    """Counts in which share of an interval's steps which weights were written to.

    Every in-place write increments a tensor's version; reading the version is free. A step in which parameters were replaced
    says nothing, and is not counted.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._patterns: dict[tuple[bool, ...], int] = {}
        self._rows: list[tuple[int, ...]] = []
        self._complete: dict[str, float] = {}
        self.follow(inventory)

    def follow(self, inventory: Inventory) -> None:
        """Count the writes to these parameters from now on."""
        everything = {id(p): p for module in inventory.modules.values() for p in module.parameters()}
        self._weights = [p for p in everything.values() if is_counted(p)]
        index = {id(p): position for position, p in enumerate(self._weights)}
        self._layers = {path: [index[key] for key in keys if key in index] for path, keys in inventory.parameter_ids.items()}
        self.begin()

    def begin(self) -> None:
        """Begin an interval."""
        self._rows = [tuple(map(_VERSION, self._weights))]
        self._patterns = {}

    def add(self) -> None:
        """Close a step."""
        self._rows.append(tuple(map(_VERSION, self._weights)))
        if len(self._rows) > _ROWS:
            self._fold()

    def _fold(self) -> None:
        for before, now in zip(self._rows, self._rows[1:], strict=False):
            pattern = tuple(map(ne, now, before))
            self._patterns[pattern] = self._patterns.get(pattern, 0) + 1
        del self._rows[:-1]

    def _share(self, places: Sequence[int], steps: int) -> float:
        counts = [count for pattern, count in self._patterns.items() if True in map(pattern.__getitem__, places)]
        return sum(counts) / steps

    def shares(self) -> dict[str, float]:
        """Return, per layer with parameters, the share of the interval's steps with a write; empty if no step counts."""
        self._fold()
        steps = sum(self._patterns.values())
        return {path: self._share(places, steps) for path, places in self._layers.items() if places} if steps else {}
