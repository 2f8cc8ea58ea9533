"""Measure one step: stand-ins for the calls of the leaves time, slice a few rows and keep gradients.

Arithmetic waits until the step is over. Only a forward pass of the model itself that builds a graph for backward is looked at.
A validation pass in between is not, nor is what gradient checkpointing runs again during backward, nor a copy of the model, nor
what a compiler or tracer runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from recorder.watch import modes
from recorder.watch.activations import function_activation, module_activation
from recorder.watch.faults import Faults, guarded
from recorder.watch.measures import ROWS, UNITS, ActivationTrace
from recorder.watch.subject import Subject
from recorder.watch.tensors import tensors_of
from recorder.watch.topology import is_code
from recorder.watch.updates import Updates, norm_of
from recorder.watch.wrapping import Forward, Wrapping, in_backward, is_traced, listen_inside

_FLOATS: Final = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
_RAISED: Final = object()  # in place of the output of a forward pass that raised


@dataclass(slots=True)
class LayerTrace:
    """One layer in one step.

    It holds perf_counter readings in ns of the layer's last call, the time inside its forward over all calls, the bytes of all
    its outputs, and the cost of looking. `output` is sampled while the watch is detailed.
    """

    started: int = 0
    ended: int = 0
    busy: int = 0
    output_bytes: int = 0
    output: Tensor | None = None
    hooks: int = 0


def _sample(tensor: Tensor, units: int, stride: int) -> Tensor:
    """Return a copy of the first rows and every `stride`-th of their `units` units, which in-place changes do not reach."""
    if stride == 1:
        return tensor.data[:ROWS].clone()
    if tensor.is_contiguous():  # the same in one operation
        shape = (min(ROWS, tensor.shape[0]), -(-units // stride))
        return tensor.data.as_strided(shape, (units, stride)).clone()
    return tensor.data[:ROWS].flatten(1)[:, ::stride].clone()


def _measurable(tensor: Tensor) -> bool:
    """Return whether this is a plain float tensor with elements (none inside a functorch transform: it may not leave it)."""
    return (
        tensor.dtype in _FLOATS
        and tensor.ndim > 0
        and tensor.numel() > 0
        and tensor.layout is torch.strided
        and not is_functorch_wrapped_tensor(tensor)
    )


class _GradientKeeper:
    """Keeps the norm of the whole gradient at a tensor, if it has one; hooked on the graph, not on the tensor."""

    def __init__(self, faults: Faults, trace: ActivationTrace, field: str, place: int) -> None:
        self.faults = faults
        self._trace, self._field, self._place = trace, field, place

    @guarded
    def keep(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of all outputs of the tensor's node; autograd calls it."""
        gradient = gradients[self._place]
        if gradient is not None and gradient.layout is torch.strided and not is_functorch_wrapped_tensor(gradient):
            setattr(self._trace, self._field, norm_of(gradient.data))


class _Functional(TorchFunctionMode):
    """Finds the activations that are plain functions, and lets everything else pass."""

    def __init__(self, probe: "Probe") -> None:
        super().__init__()
        self._probe = probe

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))
        name = function_activation(func)
        if name is None or self._probe.inside or not args:
            return func(*args, **(kwargs or {}))
        key = self._probe.next_functional(name)
        trace = None if key is None else self._probe.begin_activation(key, args[0])
        result = func(*args, **(kwargs or {}))
        if trace is not None:
            self._probe.end_activation(trace, result)
        return result


class Probe:
    """Looks at one step after another. `layers`, `activations` and `updates` hold what the last one showed."""

    def __init__(self, subject: Subject, root: nn.Module, updates: Updates, *, parts: bool) -> None:
        self.faults = subject.faults
        self.updates = updates
        self.layers: dict[str, LayerTrace] = {}
        self.activations: dict[str, ActivationTrace] = {}
        self.inside = 0
        self.cost_ns = 0
        self.compiled = False
        self._subject, self._root = subject, root
        self._apart = parts  # whether leaves are called outside any pass of the model
        self._thread: int | None = None  # the thread that is inside a pass
        self._handle: Any = None
        self._mode: _Functional | None = None
        activations = () if subject.topology is None else subject.topology.activations
        self._functional = [(a.type, a.activation_id) for a in activations if a.functional]
        self._whole = {a.activation_id for a in activations if a.type == "glu"}  # its halves must stay apart
        self._cursor = 0
        self._code = {path for path, module in subject.modules.items() if is_code(module)}
        self._lone = next((path for path, module in subject.modules.items() if module is root), None)
        leaves = [
            (module, partial(self._layer if module_activation(module) is None else self._activation, path))
            for path, module in subject.modules.items()
            if module is not root
        ]
        self._entry, self._inner = Wrapping([(root, self._model_called)], inside=False), Wrapping(leaves, inside=True)

    def attach(self) -> None:
        """Wait for the step: listen to the model, its parameters and the optimizer."""
        started = time.perf_counter_ns()
        self.layers, self.activations, self.cost_ns = {}, {}, 0
        if self._apart:
            self.updates.by_output = False
            self._inner.put_on()
        else:
            self._entry.put_on()
        self.updates.begin()
        if self._subject.detailed:
            self._handle = register_optimizer_step_pre_hook(self._stepping)
        self.cost_ns += time.perf_counter_ns() - started

    def detach(self) -> None:
        """Take everything off."""
        self.compiled = self._entry.compiled or self._inner.compiled
        self._restore()
        self._entry.take_off()
        self._inner.take_off()
        self.updates.end()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @guarded
    def _stepping(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        own = set(map(id, self._subject.groups()))  # a wrapped optimizer shows the groups of the one that it steps
        if any(id(group) in own for group in optimizer.param_groups):
            self.updates.before_step()

    def _model_called(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._begins():
            return forward(*args, **kwargs)
        output = _RAISED
        try:
            if self._lone is None:
                output = forward(*args, **kwargs)
            else:
                output = listen_inside(self._root, forward, partial(self._layer, self._lone), args, kwargs)
            return output
        finally:
            self._ended(output)

    @guarded
    def _begins(self) -> bool:
        if not torch.is_grad_enabled() or self._thread is not None or is_traced() or (self.layers and in_backward()):
            return False
        started = time.perf_counter_ns()
        self._thread = get_ident()
        self._cursor = self.inside = 0
        self._inner.put_on()
        if self._functional and self._lone is None:
            self._mode = _Functional(self)
            modes.push(self._mode)
        self.cost_ns += time.perf_counter_ns() - started
        return True

    @guarded
    def _ended(self, output: object) -> None:
        started = time.perf_counter_ns()
        self._restore()
        if output is _RAISED:
            self.layers, self.activations = {}, {}
        else:
            self.updates.follow(output)
        self.cost_ns += time.perf_counter_ns() - started

    def _restore(self) -> None:
        if self._mode is not None:
            modes.remove(self._mode)
            self._mode = None
        if not self._apart:
            self._inner.take_off()
        self._thread = None

    def next_functional(self, name: str) -> str | None:
        """Return the id of the next functional activation in call order, or None if the model took another way this time."""
        if self._cursor < len(self._functional) and self._functional[self._cursor][0] == name:
            self._cursor += 1
            return self._functional[self._cursor - 1][1]
        return None

    def _listens(self) -> bool:
        if self._apart:
            return torch.is_grad_enabled() and not in_backward() and not is_traced()
        return self._thread == get_ident()

    def _layer(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._listens():
            return forward(*args, **kwargs)
        trace = self._begin_layer(path, time.perf_counter_ns())
        self.inside += 1
        try:
            if path in self._code:
                with modes.away(self._mode, needed=True):
                    output = forward(*args, **kwargs)
            else:
                output = forward(*args, **kwargs)
        finally:
            ended = time.perf_counter_ns()
            self.inside -= 1
        self._end_layer(trace, ended, output)
        return output

    def _begin_layer(self, path: str, entered: int) -> LayerTrace:
        trace = self.layers.get(path)
        if trace is None:
            trace = self.layers[path] = LayerTrace()
        trace.started = now = time.perf_counter_ns()
        trace.hooks += now - entered
        return trace

    @guarded
    def _end_layer(self, trace: LayerTrace, ended: int, output: object) -> None:
        trace.ended = ended
        trace.busy += ended - trace.started
        for tensor in (output,) if type(output) is Tensor else tensors_of(output):
            trace.output_bytes += tensor.numel() * tensor.element_size()
            if self._subject.detailed and trace.output is None and _measurable(tensor):
                trace.output = tensor.detach()[:ROWS]
        trace.hooks += time.perf_counter_ns() - ended

    def _activation(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._listens():
            return forward(*args, **kwargs)
        self.inside += 1
        try:
            first = args[0] if args and type(args[0]) is Tensor else next(tensors_of((args, kwargs)), None)
            trace = self.begin_activation(path, first)
            output = forward(*args, **kwargs)
        finally:
            self.inside -= 1
        if trace is not None:
            self.end_activation(trace, output)
        return output

    @guarded
    def begin_activation(self, key: str, inputs: object) -> ActivationTrace:
        """Count a call; of the step's first, keep sampled inputs, and the gradient there when backward comes."""
        started = time.perf_counter_ns()
        trace = self.activations.get(key)
        if trace is None:
            trace = self.activations[key] = ActivationTrace()
        trace.calls += 1
        if trace.calls == 1 and isinstance(inputs, Tensor) and _measurable(inputs):
            trace.units = inputs.numel() // inputs.shape[0]
            trace.stride = 1 if key in self._whole else -(-trace.units // UNITS)
            trace.before = _sample(inputs, trace.units, trace.stride)
            self._keep_gradient(inputs, trace, "gradient_in")
        self.cost_ns += time.perf_counter_ns() - started
        return trace

    @guarded
    def end_activation(self, trace: ActivationTrace, output: object) -> None:
        """Of the step's first call, keep sampled outputs, and the gradient there when backward comes."""
        started = time.perf_counter_ns()
        if trace.calls == 1 and trace.before is not None and isinstance(output, Tensor) and _measurable(output):
            trace.after = _sample(output, output.numel() // output.shape[0], trace.stride)
            self._keep_gradient(output, trace, "gradient_out")
        self.cost_ns += time.perf_counter_ns() - started

    def _keep_gradient(self, tensor: Tensor, trace: ActivationTrace, field: str) -> None:
        node = tensor.grad_fn  # none at a parameter or an input, where a hook would stay
        if node is not None:
            node.register_prehook(_GradientKeeper(self.faults, trace, field, tensor.output_nr).keep)
