"""Record any torch module while it trains, without changing a bit of the training (`watch`).

Every k-th step is looked at (`probe.py`); in the others only version counters are compared. The topology shows in the first
forward pass of the training itself: no pass is added, so nothing that a model counts or keeps is counted twice. Nothing is
attached to the model but stand-ins that its copies and pickles leave out (`wrapping.py`). What can't be measured is missing and
warned of once (`faults.py`), and a model that changes is followed (`inventory.py`).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from recorder.watch.faults import guarded
from recorder.watch.inventory import Interval, Inventory, Writes
from recorder.watch.observation import Observation, observe
from recorder.watch.probe import Probe
from recorder.watch.subject import Subject
from recorder.watch.tracing import Tracing
from recorder.watch.updates import Updates
from schemas.errors import RecordingError

PATIENCE: Final = 3  # steps without a pass of the model, after which what its parts showed counts, or a warning is due
LONGEST: Final = 1024  # steps between two tracings


class Watch(Subject):
    """Watches one model and its optimizers. Made by `watch`; `topology` is known after the first forward pass.

    Call `step(loss, samples)` once after each `optimizer.step()`. On a measured step it returns an `Observation` (and
    hands it to the sink), else None. The first forward pass only shows the topology. With `follow`, modules and parameter
    groups that join the model later are watched too, and layers that first run later join the topology.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        every: int,
        sink: Callable[[Observation], None] | None,
        follow: bool = True,
    ) -> None:
        super().__init__(model, optimizers, follow=follow)
        self.every, self._sink = every, sink
        self._writes = Writes(self._inventory)
        self._updates = Updates(self.weights, self.faults)
        self._probe: Probe | None = None
        self._armed = False
        self._tracing: Tracing | None = None
        self._traced: Mapping[str, nn.Module] = {}  # the modules that the topology describes
        self._apart = False  # whether parts of the model are called instead of the model
        self._wanted = self._stale = False  # whether another tracing, or another probe, is due
        self._blank = self._blind = 0  # tracing steps without a pass of the model, looks without a layer
        self._wait, self._not_before = 1, 0  # steps until another tracing: twice as many after each that showed nothing new
        self._begin()

    def open(self) -> None:
        """Wait for the first forward pass, which shows the topology."""
        self._trace()
        self._begin()

    def close(self) -> None:
        """Take everything off and let the model go; what was learned of it stays."""
        for listening in (self._tracing, self._probe):
            if listening is not None:
                listening.detach()
        self._model = self._tracing = self._probe = self._sink = None
        self._armed = False
        self.optimizers, self._groups, self._own, self._others, self._traced = (), [], None, [], {}
        self._inventory = Inventory(nn.Identity())
        self._writes = Writes(self._inventory)
        self._updates = Updates(self.weights, self.faults)

    def step(self, loss: Tensor | float | None, samples: int) -> Observation | None:
        """Close one training step over `samples` samples; an Observation on every k-th, else None."""
        self.global_step += 1
        if self._model is None:
            return None
        self._count(samples)
        look = self._look(loss) if self._armed else None
        was_armed, self._armed = self._armed, False
        try:
            if look is not None and self._sink is not None:
                self._sink(look)
        finally:
            if was_armed:
                self._begin()
            self._prepare()
        self.faults.tell()
        return look

    @guarded
    def _begin(self) -> None:
        self._steps = self._samples = self._last = 0
        self._writes.begin()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @guarded
    def _count(self, samples: int) -> None:
        self._steps += 1
        self._last = int(samples)
        self._samples += self._last
        self._writes.add()
        if self._armed:
            self._take_stock()

    def _take_stock(self) -> None:
        if self._model is not None and self.follow and not self._inventory.is_current():
            before = self._inventory.modules
            self._inventory = Inventory(self._model, before)
            self._own = None
            self._writes.follow(self._inventory)
            if self._inventory.modules != before:
                self._stale = self._wanted = True

    @guarded
    def _look(self, loss: Tensor | float | None) -> Observation | None:
        probe = self._probe
        if probe is None:
            return None
        try:
            value = self._loss(loss)
            seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            interval = Interval(self._steps, self._samples, self._last, seconds, cpu, self._writes.shares())
            with torch.inference_mode():  # the cheapest way to call an operation
                look = observe(self, probe, math.nan if value is None else value, interval)
        finally:
            probe.detach()
        known = {layer.layer_id for layer in self.topology.layers} if self.topology else set()
        self._blind = 0 if probe.layers else self._blind + 1
        self._wanted = self._wanted or self._blind > 1 or not known.issuperset(probe.layers)
        return look

    @guarded
    def _loss(self, loss: Tensor | float | None) -> float:
        if loss is None:
            raise RecordingError("expected the step's loss, found None")
        return float(loss.item()) if isinstance(loss, Tensor) else float(loss)

    @guarded
    def _prepare(self) -> None:
        """Prepare the next step: the topology, if this one showed it, and what listens."""
        if self._model is None:
            return
        measured = (self.global_step + 1) % self.every == 0
        if measured:
            self._take_stock()
        if self._tracing is not None:
            self._learn(self._model, self._tracing)
        if self._stale:
            self._probe, self._stale = Probe(self, self._model, self._updates, parts=self._apart), False
        if self.follow and self._wanted and self._tracing is None and self.global_step >= self._not_before:
            self._trace()
        if measured and self._probe is not None:
            self._armed = True
            self._probe.attach()

    def _trace(self) -> None:
        if self._model is not None:
            self._wanted, self._blank = False, 0
            self._tracing = Tracing(self._model, self.modules, self.faults)
            self._tracing.attach()

    def _learn(self, model: nn.Module, tracing: Tracing) -> None:
        if tracing.complete:
            self._adopt(tracing, apart=False)
            return
        self._blank += 1
        if self._blank >= PATIENCE and (self.topology is None or self._apart or self._blind > 1):
            if tracing.parts.channels:
                self._adopt(tracing, apart=True)
                self.faults.note(
                    f"{type(model).__name__} is not called as a whole, or returns before its layers run: expected "
                    "model(inputs) in each step. Its layers are measured; connections are known only where one's output "
                    "goes straight into the next"
                )
                return
            self._stale = self._stale or self._probe is None
            self.faults.note(_nothing_seen(model, compiled=tracing.compiled))
        tracing.forget()

    def _adopt(self, tracing: Tracing, *, apart: bool) -> None:
        tracing.detach()
        found, self._tracing = tracing.topology(), None
        same = {path for path, module in self.modules.items() if self._traced.get(path) is module}
        topology = found if self.topology is None else found.joined(self.topology, same)
        grown = self.topology is None or topology != self.topology
        self.topology, self._traced, self._apart, self._stale, self._blind = topology, self.modules, apart, True, 0
        self._wait = self._wait if grown else min(2 * self._wait, LONGEST)
        self._not_before = self.global_step + self._wait


def _nothing_seen(model: nn.Module, *, compiled: bool) -> str:
    name = type(model).__name__
    if compiled:
        return (
            f"{name} runs as code of torch.compile, which shows none of its layers: watch the compiled model itself, to "
            "measure it as one layer, or call the model without torch.compile"
        )
    return f"expected a layer of {name} to run with gradients in each step, found none in {PATIENCE} steps: none is measured"


def _optimizers(given: object) -> list[torch.optim.Optimizer]:
    """Return the optimizers given to `watch`, one or several. Raises RecordingError if one has no parameter groups."""
    optimizers: list[Any] = [given]
    several = False
    if isinstance(given, (Sequence, Iterator, set, frozenset)) and not hasattr(given, "param_groups"):
        optimizers, several = list(given), True
    for optimizer in optimizers:
        if not hasattr(optimizer, "param_groups"):
            kind = f"{type(given).__name__} of {type(optimizer).__name__}" if several else type(optimizer).__name__
            raise RecordingError(
                f"expected an optimizer with param_groups, or several, found {kind}: give the torch.optim.Optimizer that steps"
            )
    if not optimizers:
        raise RecordingError(f"expected an optimizer with param_groups, found an empty {type(given).__name__}")
    return optimizers


@contextmanager
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    every: int = 10,
    sink: Callable[[Observation], None] | None = None,
    detailed: bool = False,
    follow: bool = True,
) -> Iterator[Watch]:
    """Watch `model` while `optimizer`, or several of them, trains it; measure every `every`-th step.

    With `detailed`, also measure what Urza's records need. With `follow`, modules, parameters and groups that join later are
    measured too.

    Three lines give a recording: `with watch(model, optimizer, sink=...) as seen:` around the loop, and `seen.step(loss,
    len(batch))` after `optimizer.step()`.

    Raises RecordingError if `model` is not a module, an optimizer has no `param_groups`, or `every` is under 1. Once inside, it
    raises nothing into the loop: what can't be measured is missing, and reported once as a WatchWarning.
    """
    if not isinstance(model, nn.Module):
        raise RecordingError(f"expected a torch.nn.Module, found {type(model).__name__}")
    if every < 1:
        raise RecordingError(f"expected every >= 1, found {every}")
    watching = Watch(model, _optimizers(optimizer), every=every, sink=sink, follow=follow)
    watching.detailed = detailed
    watching.open()
    try:
        yield watching
    finally:
        watching.close()
