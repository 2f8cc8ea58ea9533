"""Hold a watched model and its optimizers: present modules, parameters and groups, and what is known of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recorder.watch.faults import Faults
from recorder.watch.inventory import Inventory
from recorder.watch.measures import Running
from recorder.watch.tensors import is_lazy
from recorder.watch.topology import Topology
from recorder.watch.updates import Parameters


class Subject:
    """A watched model with its optimizers. `topology` is None until a forward pass has shown it; `running` holds running means.

    With `follow`, parameter groups that join an optimizer later count too.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], *, follow: bool) -> None:
        self.optimizers, self.follow = tuple(optimizers), follow
        self.topology: Topology | None = None
        self.global_step = 0
        self.detailed = False  # what only Urza's records need; off, a measured step is cheaper
        self.running: dict[str, Running] = {}
        self.faults = Faults()
        self._model: nn.Module | None = model
        self._inventory = Inventory(model)
        self._groups = [len(optimizer.param_groups) for optimizer in self.optimizers]
        self._own: list[int] | None = None  # ids of trained parameters, and all that are not
        self._others: list[Tensor] = []

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Leaf modules by path."""
        return self._inventory.modules

    @property
    def parameter_ids(self) -> Mapping[str, list[int]]:
        """The ids of the parameters of each leaf module."""
        return self._inventory.parameter_ids

    def history(self, key: str) -> Running:
        """Return the running mean and variance kept under `key`."""
        found = self.running.get(key)
        if found is None:
            found = self.running[key] = Running()
        return found

    @property
    def device(self) -> torch.device | None:
        """The device of the model's first parameter now; None for a model without any."""
        parameters = self._inventory.parameters
        return parameters[0].device if parameters else None

    def groups(self) -> list[dict[str, Any]]:
        """Return the model's own optimizer groups.

        These are the groups that were there when watching began, and with `follow` those of the model's parameters that joined
        later (a seed's are not the model's).
        """
        return [group for _, group in self.named_groups()]

    def named_groups(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each of `groups()` with its optimizer's family: the class name in lower case (`sgd`, `adam`, `adamw`, ...)."""
        mine: set[int] | None = None
        for optimizer, count in zip(self.optimizers, self._groups, strict=True):
            name = type(optimizer).__name__.lower()
            for index, group in enumerate(optimizer.param_groups):
                if index < count:
                    yield name, group
                elif self.follow:
                    mine = set(map(id, self._inventory.parameters)) if mine is None else mine
                    if all(id(p) in mine for p in group.get("params", ())):
                        yield name, group

    def weights(self) -> Parameters:
        """Return the parameters that the optimizers train now, and all others of the model whose weights have a norm."""
        trained = [p for group in self.groups() for p in group.get("params", ()) if p.requires_grad]
        own = list(map(id, trained))
        if own != self._own:
            taken = set(own)
            others = [p for p in self._inventory.parameters if id(p) not in taken and not is_lazy(p)]
            self._own, self._others = own, [p for p in others if p.is_floating_point() or p.is_complex()]
        return trained, self._others
