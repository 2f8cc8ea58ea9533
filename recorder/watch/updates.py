"""Measure gradients, weights and updates of one step: a hook per parameter, then a few operations over all of them."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from recorder.watch.faults import Faults, guarded
from recorder.watch.tensors import tensors_of

WEIGHTS: Final = 1024  # elements of a parameter, evenly spread, whose update is compared before and after


class Numbers(NamedTuple):
    """Norms of one step, per parameter id: gradient, weights, update, and -<gradient, update> (first-order loss gain)."""

    gradient: Mapping[int, float]
    weight: Mapping[int, float]
    update: Mapping[int, float]
    gain: Mapping[int, float]


def total_norm(values: Mapping[int, float], keys: Iterable[int]) -> float | None:
    """Return the L2 norm over those of `keys` that are known; None if none is."""
    total = None
    for key in keys:
        value = values.get(key)
        if value is not None:
            total = value * value if total is None else total + value * value
    return None if total is None else math.sqrt(total)


def norm_of(tensor: Tensor) -> Tensor:
    """Return the L2 norm of a tensor, without a graph; a half type is summed in float32."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    found: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float32 if half else None)
    return found


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return the L2 norm of each tensor (any shape, device, float or complex type; a half type is summed in float32)."""
    if not tensors:
        return []
    kinds = {(t.dtype, t.device) for t in tensors}
    if len(kinds) > 1:
        return [norms([t])[0] for t in tensors]
    wide = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else None
    found = torch._foreach_norm(list(tensors), 2, wide)
    values: list[float] = [n.item() for n in found] if tensors[0].device.type == "cpu" else torch.stack(found).tolist()
    return values


def _dense(gradient: Tensor) -> Tensor:
    """Return the values of a sparse gradient (summed where an index repeats), or the gradient itself."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


class Sampler:
    """Evenly spread elements of parameters, at most `WEIGHTS` of each; a parameter without elements has none."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = [p for p in parameters if p.numel()]
        self.strides = [-(-p.numel() // WEIGHTS) for p in self.parameters]
        self.ids = [id(p) for p in self.parameters]
        self._pointers = [p.data_ptr() for p in self.parameters]
        self._views = self._look()
        self._aliased = all(p.is_contiguous() for p in self.parameters)  # the views see every update
        self._before, self._now = self._buffers(), self._buffers()

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether this sampler still reads these very parameters, in the memory where they lie now."""
        there = [p for p in parameters if p.numel()]
        return list(map(id, there)) == self.ids and [p.data_ptr() for p in there] == self._pointers

    def _look(self) -> list[Tensor]:
        return [p.detach().reshape(-1)[::stride] for p, stride in zip(self.parameters, self.strides, strict=True)]

    def _buffers(self) -> list[Tensor]:
        """Return the memory for one look: a piece per parameter.

        If the types agree, all pieces are in one tensor, which comes last.
        """
        if len({(p.dtype, p.device) for p in self.parameters}) != 1:
            return [torch.empty_like(view, memory_format=torch.contiguous_format) for view in self._views]
        sizes = [view.numel() for view in self._views]
        whole = torch.empty(sum(sizes), dtype=self._views[0].dtype, device=self._views[0].device)
        return [*whole.split(sizes), whole]

    def _fill(self, buffers: list[Tensor]) -> None:
        if self.parameters:
            seen = self._aliased and self.fits(self.parameters)  # else `p.data` has become another tensor
            torch._foreach_copy_(buffers[: len(self.parameters)], self._views if seen else self._look())

    def take(self) -> None:
        """Keep the sampled elements as they are now."""
        self._fill(self._before)

    def change(self) -> list[Tensor]:
        """Return, per parameter, sampled elements now less those taken last; the next call overwrites them."""
        self._fill(self._now)
        count = len(self.parameters)
        first = count if len(self._now) > count else 0  # the whole, or every piece
        for now, then in zip(self._now[first:], self._before[first:], strict=True):
            now.sub_(then)
        return self._now[:count]

    def gradients(self) -> list[Tensor | None]:
        """Return, per parameter, the same elements of its gradient; None if it has none, or a sparse one."""
        pairs = zip(self.parameters, self.strides, strict=True)
        return [None if p.grad is None or p.grad.is_sparse else p.grad.reshape(-1)[::stride].clone() for p, stride in pairs]


Parameters = tuple[list[Tensor], list[Tensor]]


class _UntrainedNorms:
    """Norms of weights that no optimizer moves, computed again only if they were written to.

    A version counter shows that, except for writes past autograd (`p.data.mul_`): those show in sampled elements.
    """

    def __init__(self) -> None:
        self._sampler = Sampler([])
        self._seen: list[tuple[Tensor, int]] = []
        self._norms: dict[int, float] = {}

    def norms(self, parameters: list[Tensor]) -> dict[int, float]:
        """Return the norm of each parameter, by id."""
        if not parameters:
            return {}
        same = len(parameters) == len(self._seen) and all(p is q for p, (q, _) in zip(parameters, self._seen, strict=True))
        if same and self._sampler.fits(parameters):
            changes = norms(self._sampler.change())
            moved = {key for key, change in zip(self._sampler.ids, changes, strict=True) if change != 0.0}
            stale = [p for p, version in self._seen if p._version != version or id(p) in moved]
        else:
            self._norms, stale = {}, parameters
        if stale:
            self._sampler = Sampler(parameters)
            self._sampler.take()
            self._seen = [(p, p._version) for p in parameters]
            self._norms |= zip(map(id, stale), norms(stale), strict=True)
        return self._norms


class Updates:
    """What backward and the optimizer do to the parameters in one step. `cost_ns` is the time that looking took.

    `weights`, when called, returns the parameters that the optimizer trains, of which everything is measured, and all others,
    of which only the weights are.
    """

    def __init__(self, weights: Callable[[], Parameters], faults: Faults) -> None:
        self.faults = faults
        self.cost_ns = 0
        self.by_output = True  # backward is noticed by the model's output; else by every parameter
        self._weights_now = weights
        self._sampler = Sampler([])
        self._untrained_norms = _UntrainedNorms()
        self._nodes: list[tuple[Any, Any]] = []
        self._reset()

    def _reset(self) -> None:
        self._trained: list[Tensor] = []
        self._others: list[Tensor] = []
        self._gradient: dict[int, float] = {}
        self._weights: list[float] = []
        self._taken = self._queued = False
        self._slopes: list[Tensor | None] = []
        self.cost_ns = 0

    def begin(self) -> None:
        """Begin a step."""
        self._reset()
        if not self.by_output:
            self.follow_parameters()

    def end(self) -> None:
        """Take off what `begin` put on, and let the parameters go."""
        for _, handle in self._nodes:
            handle.remove()
        self._nodes.clear()
        self._trained, self._others = [], []

    @guarded
    def follow_parameters(self) -> None:
        """Notice backward at the nodes that accumulate gradients: a hook on a parameter itself would stay in its copies."""
        for parameter in self._weights_now()[0]:
            node = get_gradient_edge(parameter).node
            self._nodes.append((node, node.register_hook(self._notice)))  # kept: a parameter does not hold its node

    @guarded
    def follow(self, output: object) -> None:
        """Notice the backward that starts from the output of the model's forward."""
        if not self.by_output:
            return
        for tensor in (output,) if type(output) is Tensor else tensors_of(output):
            if tensor.grad_fn is not None:  # a hook of the graph: one on the tensor would stay on a parameter that is returned
                tensor.grad_fn.register_prehook(self._notice)

    @guarded
    def _notice(self, *_: object) -> None:
        if not self._queued:
            self._queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._backward_ended)

    @guarded
    def _backward_ended(self) -> None:
        """Look at the gradients, which are complete now: nobody has clipped them, and no weight has moved."""
        started = time.perf_counter_ns()
        self._queued = False
        with torch.inference_mode():  # the cheapest way to call an operation
            if not self._taken:
                self._trained, self._others = self._weights_now()
            trained = self._trained
            gradients = {id(p): _dense(p.grad) for p in trained if p.grad is not None}
            values = norms([*gradients.values(), *(() if self._taken else trained)])
            self._gradient = dict(zip(gradients, values, strict=False))
            if not self._taken:
                if not self._sampler.fits(trained):
                    self._sampler = Sampler(trained)
                self._sampler.take()
                self._taken, self._weights = True, values[len(gradients) :]
        self.cost_ns += time.perf_counter_ns() - started

    @guarded
    def before_step(self) -> None:
        """Look at the gradients as the optimizer is about to see them."""
        started = time.perf_counter_ns()
        if self._taken:
            with torch.inference_mode():
                self._slopes = self._sampler.gradients()
        self.cost_ns += time.perf_counter_ns() - started

    def numbers(self) -> Numbers:
        """Return the step's norms, once the optimizer is done. Without a backward, only the weights of others are known."""
        trained, others = (self._trained, self._others) if self._taken else self._weights_now()
        unmoved = self._untrained_norms.norms(others)
        if not self._taken:
            self.by_output = self.by_output and not any(p.grad is not None for p in trained)
            return Numbers({}, unmoved, {}, {})
        weights = dict(zip(map(id, self._trained), self._weights, strict=True)) | unmoved
        changes, strides, ids = self._sampler.change(), self._sampler.strides, self._sampler.ids
        update = {key: value * math.sqrt(k) for key, value, k in zip(ids, norms(changes), strides, strict=True)}
        slopes = zip(ids, self._slopes, changes, strides, strict=False)
        gain = {key: -k * float(torch.vdot(slope, c).real) for key, slope, c, k in slopes if slope is not None}
        return Numbers(self._gradient, weights, update, gain)
