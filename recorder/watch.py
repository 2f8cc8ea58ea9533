"""`watch`: a context manager that records any torch module while it trains, without changing a bit of the training.

Every k-th step is looked at (`probe.py`); in the others only version counters are compared. The topology shows in the first
forward pass of the training itself: no pass is added, so nothing that a model counts or keeps is counted twice.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from operator import attrgetter, ne
from typing import Any, Final

import torch
from torch import Tensor, nn

from recorder.measures import Running
from recorder.observation import Interval, Observation, observe
from recorder.probe import Probe
from recorder.tensors import is_lazy
from recorder.topology import Topology, leaves
from recorder.tracing import Tracing

_VERSION: Final = attrgetter("_version")
_ROWS: Final = 64  # steps whose version counters are kept before they are counted


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
        self.global_step = 0
        self.detailed = False  # what only Urza's records need; off, a measured step is cheaper
        self.running: dict[str, Running] = {}
        self._sink = sink
        self._groups = len(optimizer.param_groups)
        self.parameter_ids = {path: [id(p) for p in module.parameters()] for path, module in self.modules.items()}
        self._parameters = [p for p in model.parameters() if _counted(p)]
        self._own: list[int] | None = None  # ids of trained parameters, and all that are not
        self._others: list[Tensor] = []
        self.lone = next((path for path, module in self.modules.items() if module is model), None)
        self._interval = _Interval(self)
        self._probe: Probe | None = None
        self._armed = False
        self._tracing: Tracing | None = None

    def history(self, key: str) -> Running:
        """The running mean and variance kept under `key`."""
        found = self.running.get(key)
        if found is None:
            found = self.running[key] = Running()
        return found

    @property
    def device(self) -> torch.device | None:
        """Where the model's first parameter is now; None for a model without any."""
        return self._parameters[0].device if self._parameters else None

    def groups(self) -> Sequence[dict[str, Any]]:
        """The host's own optimizer groups: those that were there when watching began (a seed's come after)."""
        return self.optimizer.param_groups[: self._groups]

    def weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters that the optimizer trains now, and all others of the model whose weights have a norm."""
        trained = [p for group in self.groups() for p in group["params"] if p.requires_grad]
        own = list(map(id, trained))
        if own != self._own:
            taken = set(own)
            others = [p for p in self._parameters if id(p) not in taken and not is_lazy(p)]
            self._own, self._others = own, [p for p in others if p.is_floating_point() or p.is_complex()]
        return trained, self._others

    def open(self) -> None:
        """Wait for the first forward pass, which shows the topology."""
        self._tracing = Tracing(self.model, self.modules)
        self._tracing.attach()
        self._interval.begin()

    def close(self) -> None:
        """Take every hook off."""
        if self._tracing is not None:
            self._tracing.detach()
        if self._probe is not None:
            self._probe.detach()
        self._armed = False

    def _learn(self) -> None:
        if self._tracing is not None and self._tracing.complete:
            self._tracing.detach()
            self.topology, self._tracing = self._tracing.topology(), None
            self._probe = Probe(self)

    def _observe(self, probe: Probe, loss: Tensor | float) -> Observation:
        value, interval = loss.item() if isinstance(loss, Tensor) else float(loss), self._interval.close()
        with torch.inference_mode():  # the cheapest way to call an operation
            return observe(self, probe, value, interval)

    def step(self, loss: Tensor | float, samples: int) -> Observation | None:
        """Close one training step over `samples` samples; an Observation on every k-th, else None."""
        self.global_step += 1
        self._interval.add(samples)
        if self._tracing is not None:
            self._learn()
        seen = None
        if self._armed and self._probe is not None:
            seen = self._observe(self._probe, loss)
            self._probe.detach()
            self._armed = False
            if self._sink is not None:
                self._sink(seen)
            self._interval.begin()
        if self._probe is not None and (self.global_step + 1) % self.every == 0:
            self._probe.attach()
            self._armed = True
        return seen


def _counted(parameter: Tensor) -> bool:
    """Whether writes to a parameter are counted: those made in inference mode have no version."""
    return is_lazy(parameter) or not parameter.is_inference()


class _Interval:
    """What happened since the last measured step: steps, samples, seconds, and which weights were written to.

    Every in-place write counts a tensor's version up; reading it is free.
    """

    def __init__(self, watch: Watch) -> None:
        everything = {id(p): p for module in watch.modules.values() for p in module.parameters()}
        self._weights = [p for p in everything.values() if _counted(p)]
        index = {id(p): position for position, p in enumerate(self._weights)}
        self._layers = {path: [index[key] for key in keys if key in index] for path, keys in watch.parameter_ids.items()}
        self.begin()

    def begin(self) -> None:
        self.steps = self.samples = self._last = 0
        self._rows = [tuple(map(_VERSION, self._weights))]
        self._patterns: dict[tuple[bool, ...], int] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def add(self, samples: int) -> None:
        self.steps += 1
        self.samples += samples
        self._last = samples
        self._rows.append(tuple(map(_VERSION, self._weights)))
        if len(self._rows) > _ROWS:
            self._fold()

    def _fold(self) -> None:
        for before, now in pairwise(self._rows):
            pattern = tuple(map(ne, now, before))
            self._patterns[pattern] = self._patterns.get(pattern, 0) + 1
        del self._rows[:-1]

    def _moved(self, places: Sequence[int]) -> float:
        return (
            sum([count for pattern, count in self._patterns.items() if True in map(pattern.__getitem__, places)]) / self.steps
        )

    def close(self) -> Interval:
        self._fold()
        moved = {path: self._moved(places) for path, places in self._layers.items() if places}
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Interval(self.steps, self.samples, self._last, seconds, cpu, moved)


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
