"""One measured step: stand-ins for the leaves' forwards time, slice a few rows and keep gradients; arithmetic waits until the
step is over.

Only a forward pass of the model itself that builds a graph for backward is looked at: a validation pass in between is not,
nor is what gradient checkpointing runs again during backward, nor a copy of the model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

from recorder.activations import function_activation, module_activation
from recorder.measures import ROWS, UNITS, ActivationTrace
from recorder.tensors import tensors_of
from recorder.updates import Updates, norm_of
from recorder.wrapping import Forward, Wrapping

if TYPE_CHECKING:
    from recorder.watch import Watch

_FLOATS: Final = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


@dataclass(slots=True)
class LayerTrace:
    """One layer in one step: perf_counter readings in ns of its last call, time inside its forward over all calls, bytes of
    all its outputs, the looking's own cost; `output` is sampled while the watch is detailed."""

    started: int = 0
    ended: int = 0
    busy: int = 0
    output_bytes: int = 0
    output: Tensor | None = None
    hooks: int = 0


def _sample(tensor: Tensor, units: int, stride: int) -> Tensor:
    """The first rows, and every `stride`-th of their `units` units; a copy, which later changes in place do not reach."""
    if stride == 1:
        return tensor.data[:ROWS].clone()
    if tensor.is_contiguous():  # the same in one operation
        shape = (min(ROWS, tensor.shape[0]), -(-units // stride))
        return tensor.data.as_strided(shape, (units, stride)).clone()
    return tensor.data[:ROWS].flatten(1)[:, ::stride].clone()


def _measurable(tensor: Tensor) -> bool:
    """Whether this is a plain float tensor with elements (none inside a functorch transform: it may not leave it)."""
    return (
        tensor.dtype in _FLOATS
        and tensor.ndim > 0
        and tensor.numel() > 0
        and tensor.layout is torch.strided
        and not is_functorch_wrapped_tensor(tensor)
    )


def _gradient_norm(gradient: Tensor) -> Tensor | None:
    """Norm of the whole gradient at a measurable tensor; None where autograd hands over something that has none."""
    plain = gradient.layout is torch.strided and not is_functorch_wrapped_tensor(gradient)
    return norm_of(gradient.data) if plain else None


class _Functional(TorchFunctionMode):
    """Finds the activations that are plain functions, and lets everything else pass."""

    def __init__(self, probe: "Probe") -> None:
        super().__init__()
        self._probe = probe

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
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

    def __init__(self, watch: "Watch") -> None:
        self._watch = watch
        self._root = watch.model
        self.updates = Updates()
        self.layers: dict[str, LayerTrace] = {}
        self.activations: dict[str, ActivationTrace] = {}
        self.inside = 0
        self.cost_ns = 0
        self._active = False
        self._handles: list[Any] = []
        self._wrapping = Wrapping()
        self._mode: _Functional | None = None
        activations = () if watch.topology is None else watch.topology.activations
        self._functional = [(a.type, a.activation_id) for a in activations if a.functional]
        self._whole = {a.activation_id for a in activations if a.type == "glu"}  # its halves must stay apart
        self._cursor = 0
        self._parts = [
            (module, partial(self._layer if module_activation(module) is None else self._activation, path))
            for path, module in watch.modules.items()
        ]

    def attach(self) -> None:
        """Wait for the step: hook the model's entry and exit, its parameters and the optimizer."""
        started = time.perf_counter_ns()
        self.layers, self.activations, self.cost_ns = {}, {}, 0

        # plain functions: a copy of the model takes hooks along, and a bound method would take the whole recorder
        def enter(model: nn.Module, _args: object) -> None:
            if model is self._root and torch.is_grad_enabled() and not self._active:
                self._enter()

        def leave(model: nn.Module, _args: object, output: object) -> None:
            if model is self._root and self._active:
                self._leave(output)

        self._handles = [
            self._root.register_forward_pre_hook(enter),
            self._root.register_forward_hook(leave, always_call=True),
            *self.updates.begin(*self._watch.weights()),
        ]
        if self._watch.detailed:
            self._handles.append(self._watch.optimizer.register_step_pre_hook(lambda *_: self.updates.before_step()))
        self.cost_ns += time.perf_counter_ns() - started

    def detach(self) -> None:
        """Take everything off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._restore()

    def _enter(self) -> None:
        started = time.perf_counter_ns()
        self._active = True
        self._cursor = self.inside = 0
        if self._watch.lone is None:
            self._wrapping.put_on(self._parts)
        if self._functional:
            self._mode = _Functional(self)
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        now = time.perf_counter_ns()
        self.cost_ns += now - started
        if self._watch.lone is not None:  # its forward was chosen before this hook: time it from here
            self.inside = 1
            self._begin_layer(self._watch.lone, now)

    def _leave(self, output: object) -> None:
        started = time.perf_counter_ns()
        if self._watch.lone is not None:
            self._end_layer(self.layers[self._watch.lone], started, output)
        self._restore()
        self.updates.follow(output)
        self.cost_ns += time.perf_counter_ns() - started

    def _restore(self) -> None:
        self._active = False
        self._wrapping.take_off()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None

    def next_functional(self, name: str) -> str | None:
        """Id of the next functional activation in call order, or None where the model took another way this time."""
        if self._cursor < len(self._functional) and self._functional[self._cursor][0] == name:
            self._cursor += 1
            return self._functional[self._cursor - 1][1]
        return None

    def _layer(self, path: str, forward: Forward) -> Forward:
        clock = time.perf_counter_ns

        def timed(*args: Any, **kwargs: Any) -> Any:
            entered = clock()
            self.inside += 1
            trace = self._begin_layer(path, entered)
            output = forward(*args, **kwargs)
            ended = clock()
            self.inside -= 1
            self._end_layer(trace, ended, output)
            return output

        return timed

    def _begin_layer(self, path: str, entered: int) -> LayerTrace:
        trace = self.layers.get(path)
        if trace is None:
            trace = self.layers[path] = LayerTrace()
        trace.started = now = time.perf_counter_ns()
        trace.hooks += now - entered
        return trace

    def _end_layer(self, trace: LayerTrace, ended: int, output: object) -> None:
        trace.ended = ended
        trace.busy += ended - trace.started
        for tensor in (output,) if type(output) is Tensor else tensors_of(output):
            trace.output_bytes += tensor.numel() * tensor.element_size()
            if self._watch.detailed and trace.output is None and _measurable(tensor):
                trace.output = tensor.detach()[:ROWS]
        trace.hooks += time.perf_counter_ns() - ended

    def _activation(self, path: str, forward: Forward) -> Forward:
        def seen(*args: Any, **kwargs: Any) -> Any:
            self.inside += 1
            first = args[0] if args and type(args[0]) is Tensor else next(tensors_of((args, kwargs)), None)
            trace = self.begin_activation(path, first)
            output = forward(*args, **kwargs)
            self.inside -= 1
            self.end_activation(trace, output)
            return output

        return seen

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
            if inputs.requires_grad:

                def keep(gradient: Tensor) -> None:
                    trace.gradient_in = _gradient_norm(gradient)

                inputs.register_hook(keep)
        self.cost_ns += time.perf_counter_ns() - started
        return trace

    def end_activation(self, trace: ActivationTrace, output: object) -> None:
        """Of the step's first call, keep sampled outputs, and the gradient there when backward comes."""
        started = time.perf_counter_ns()
        if trace.calls == 1 and trace.before is not None and isinstance(output, Tensor) and _measurable(output):
            trace.after = _sample(output, output.numel() // output.shape[0], trace.stride)
            if output.requires_grad:

                def keep(gradient: Tensor) -> None:
                    trace.gradient_out = _gradient_norm(gradient)

                output.register_hook(keep)
        self.cost_ns += time.perf_counter_ns() - started
