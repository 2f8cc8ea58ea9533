"""`watch`: a context manager that records any torch module while it trains, without changing a bit of the training.

Every k-th step hooks are attached for that one step, and taken off again; other steps only compare version counters.
The topology is found on the first forward pass, with that pass's own inputs, in eval mode.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recorder.measures import Running
from recorder.observation import Observation, observe
from recorder.probe import Probe
from recorder.topology import Topology, find_topology, leaves


class Watch:
    """Watches one model and its optimizer. Made by `watch`; `topology` is known after the first forward pass.

    Call `step(loss, samples)` once after each `optimizer.step()`. On a measured step it returns an `Observation` (and
    hands it to the sink), else None. The first forward pass only shows the topology.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, every: int, sink: Callable[[Observation], None] | None
    ) -> None:
        self.model, self.optimizer, self.every = model, optimizer, every
        self.modules = leaves(model)
        self.topology: Topology | None = None
        self.example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.global_step = 0
        self.detailed = False  # what only Urza's records need; off, a measured step is cheaper
        self.running: dict[str, Running] = {}
        self._sink = sink
        self._groups = len(optimizer.param_groups)
        self.parameter_ids = {path: [id(p) for p in module.parameters()] for path, module in self.modules.items()}
        self._named = {key: path for path, keys in self.parameter_ids.items() for key in keys}
        self._versions: dict[int, int] = {}
        self._moved: dict[str, int] = {}
        self._interval = _Interval()
        self._probe: Probe | None = None
        self._entry: Any = None

    def history(self, key: str) -> Running:
        """The running mean and variance kept under `key`."""
        return self.running.setdefault(key, Running())

    def groups(self) -> Sequence[dict[str, Any]]:
        """The host's own optimizer groups: those that were there when watching began (a seed's come after)."""
        return self.optimizer.param_groups[: self._groups]

    def open(self) -> None:
        """Attach the hook that learns the topology."""
        self._entry = self.model.register_forward_pre_hook(self._first_forward, with_kwargs=True)
        self._count_moves()
        self._interval.begin()

    def close(self) -> None:
        """Take every hook off."""
        if self._entry is not None:
            self._entry.remove()
        self._drop_probe()

    def _first_forward(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self._entry.remove()
        self._entry = None
        self.example = (args, kwargs)
        self.topology = find_topology(model, *args, **kwargs)

    def _attach(self) -> None:
        if self.topology is not None:
            self._probe = Probe(self)
            self._probe.attach()

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe.detach()
            self._probe = None

    def _count_moves(self) -> None:
        """A layer moved in this step where the optimizer wrote to one of its weights (version counters tell, for free)."""
        moved = set()
        for group in self.groups():
            for parameter in group["params"]:
                key, version = id(parameter), parameter._version
                if version != self._versions.get(key, -1) and key in self._versions:
                    moved.add(self._named.get(key, ""))
                self._versions[key] = version
        for name in moved:
            self._moved[name] = self._moved.get(name, 0) + 1

    def step(self, loss: Tensor | float, samples: int) -> Observation | None:
        """Close one training step over `samples` samples; an Observation on every k-th, else None."""
        self.global_step += 1
        self._count_moves()
        self._interval.add(samples)
        seen = None
        if self._probe is not None:
            seen = observe(self, self._probe, float(torch.as_tensor(loss).detach()), self._interval.close(self._moved))
            self._drop_probe()
            self._moved = {}
            if self._sink is not None:
                self._sink(seen)
            self._interval.begin()
        if (self.global_step + 1) % self.every == 0:
            self._attach()
        return seen


class _Interval:
    """What happened since the last measured step: steps, samples, wall seconds."""

    def __init__(self) -> None:
        self.steps, self.samples, self.started = 0, 0, math.nan

    def begin(self) -> None:
        self.steps, self.samples, self.started = 0, 0, time.perf_counter()

    def add(self, samples: int) -> None:
        self.steps += 1
        self.samples += samples

    def close(self, moved: dict[str, int]) -> tuple[int, int, float, dict[str, int]]:
        return self.steps, self.samples, time.perf_counter() - self.started, dict(moved)


@contextmanager
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    every: int = 10,
    sink: Callable[[Observation], None] | None = None,
    detailed: bool = False,
) -> Iterator[Watch]:
    """Watch `model` while `optimizer` trains it; measures every `every`-th step, with `detailed` also what Urza's records need.

    Three lines give a recording: `with watch(model, optimizer, sink=...) as seen:` around the loop, and
    `seen.step(loss, len(batch))` after `optimizer.step()`.
    """
    watching = Watch(model, optimizer, every=every, sink=sink)
    watching.detailed = detailed
    watching.open()
    try:
        yield watching
    finally:
        watching.close()
