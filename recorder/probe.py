"""The hooks of one measured step: they time, slice a few rows and keep norms; all arithmetic waits until the step is over."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recorder.activations import function_activation, module_activation
from recorder.measures import ROWS, UNITS, WEIGHTS
from recorder.topology import tensors_of

if TYPE_CHECKING:
    from recorder.watch import Watch


@dataclass
class LayerTrace:
    """One layer in one step: clock readings in ns (perf_counter), bytes and mean square of its output, hooks' own cost."""

    started: int = 0
    ended: int = 0
    busy: int = 0
    samples: int = 0
    output_bytes: int = 0
    output: Tensor | None = None
    hooks: int = 0


@dataclass
class ActivationTrace:
    """One activation in one step: sampled units before and after, and the gradients there once backward has run.

    `stride` is how many units of a row each sampled one stands for; `units` how many a row has.
    """

    calls: int = 0
    stride: int = 1
    units: int = 0
    before: Tensor | None = None
    after: Tensor | None = None
    gradient_in: Tensor | None = None
    gradient_out: Tensor | None = None


@dataclass
class Gradients:
    """Per parameter: the gradient's norm as backward left it (before clipping), the weights' norm before the update, and
    sampled elements of both as the optimizer saw them. `strides` say how many elements each sampled one stands for."""

    parameters: list[Tensor] = field(default_factory=list)
    strides: list[int] = field(default_factory=list)
    norms: dict[int, Tensor] = field(default_factory=dict)
    weight_norms: Sequence[Tensor] = ()
    gradients: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


def elements(parameter: Tensor, stride: int) -> Tensor:
    """Every `stride`-th element of a parameter or gradient, flat."""
    return parameter.detach().reshape(-1)[::stride]


def _sample(tensor: Tensor, stride: int) -> Tensor:
    """The first rows, and every `stride`-th unit of each; a view."""
    rows = tensor.detach()[:ROWS]
    return rows if stride == 1 else rows.flatten(1)[:, ::stride]


class _Functional(TorchFunctionMode):
    """Finds the activations that are plain functions, and lets everything else pass."""

    def __init__(self, probe: "Probe") -> None:
        super().__init__()
        self._probe = probe

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function_activation(func)
        if name is None or self._probe.inside or not args or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        key = self._probe.next_functional(name)
        trace = None if key is None else self._probe.begin_activation(key, args[0])
        result = func(*args, **(kwargs or {}))
        if trace is not None:
            self._probe.end_activation(trace, result)
        return result


class Probe:
    """Hooks on every leaf for one step. `layers`, `activations` and `gradients` hold what they saw."""

    def __init__(self, watch: "Watch") -> None:
        self._watch = watch
        self.layers: dict[str, LayerTrace] = {}
        self.activations: dict[str, ActivationTrace] = {}
        self.gradients = Gradients()
        self.inside = 0
        self.cost_ns = 0
        self._handles: list[Any] = []
        self._mode: _Functional | None = None
        topology = watch.topology
        functional = [] if topology is None else [a for a in topology.activations if a.functional]
        self._functional = [(a.type, a.activation_id) for a in functional]
        activations = () if topology is None else topology.activations
        self._whole = {a.activation_id for a in activations if a.type == "glu"}  # its halves must stay apart
        self._cursor = 0

    def attach(self) -> None:
        """Put the hooks on: leaves, the model's entry and exit where it has functional activations, the optimizer."""
        for path, module in self._watch.modules.items():
            if module_activation(module) is None:
                self._attach_layer(path, module)
            else:
                self._attach_activation(path, module)
        if self._functional:
            self._handles.append(self._watch.model.register_forward_pre_hook(self._enter))
            self._handles.append(self._watch.model.register_forward_hook(self._leave, always_call=True))
        for parameter in (p for group in self._watch.groups() for p in group["params"] if p.requires_grad):
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._after_backward))
        self._handles.append(self._watch.optimizer.register_step_pre_hook(self._before_update))

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._leave()

    def _enter(self, *_: object) -> None:
        self._cursor = 0
        if self._mode is None:
            self._mode = _Functional(self)
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, *_: object) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None

    def next_functional(self, name: str) -> str | None:
        """Id of the next functional activation in call order, or None where the model took another way this time."""
        if self._cursor < len(self._functional) and self._functional[self._cursor][0] == name:
            self._cursor += 1
            return self._functional[self._cursor - 1][1]
        return None

    def _attach_layer(self, path: str, module: nn.Module) -> None:
        def before(_module: nn.Module, _args: Any) -> None:
            self.inside += 1
            self.layers.setdefault(path, LayerTrace()).started = time.perf_counter_ns()

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            now = time.perf_counter_ns()
            self.inside -= 1
            trace = self.layers[path]
            trace.ended = now
            trace.busy += now - trace.started
            for tensor in tensors_of(output):
                trace.output_bytes += tensor.numel() * tensor.element_size()
                trace.samples = tensor.shape[0] if tensor.ndim else 1
                if self._watch.detailed and trace.output is None and tensor.is_floating_point():
                    trace.output = tensor.detach()[:ROWS]
            spent = time.perf_counter_ns() - now
            trace.hooks += spent
            self.cost_ns += spent

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _attach_activation(self, path: str, module: nn.Module) -> None:
        def before(_module: nn.Module, args: Any) -> None:
            self.inside += 1
            self.begin_activation(path, args[0])

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            self.inside -= 1
            self.end_activation(self.activations[path], output)

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def begin_activation(self, key: str, inputs: Tensor) -> ActivationTrace:
        """Keep sampled inputs of an activation, and the gradient there when backward comes."""
        started = time.perf_counter_ns()
        trace = self.activations.setdefault(key, ActivationTrace())
        trace.calls += 1
        if trace.calls == 1:
            trace.units = inputs[0].numel() if inputs.ndim else 1
            trace.stride = 1 if key in self._whole else -(-trace.units // UNITS)
            trace.before = _sample(inputs, trace.stride).clone()
            if inputs.requires_grad:
                inputs.register_hook(lambda grad: _keep(trace, "gradient_in", grad))
        self.cost_ns += time.perf_counter_ns() - started
        return trace

    def end_activation(self, trace: ActivationTrace, output: Tensor) -> None:
        """Keep sampled outputs of an activation, and the gradient there when backward comes."""
        started = time.perf_counter_ns()
        if trace.calls == 1:
            trace.after = _sample(output, trace.stride).clone()
            if output.requires_grad:
                output.register_hook(lambda grad: _keep(trace, "gradient_out", grad))
        self.cost_ns += time.perf_counter_ns() - started

    def _after_backward(self, parameter: Tensor) -> None:
        started = time.perf_counter_ns()
        if parameter.grad is not None:
            self.gradients.norms[id(parameter)] = torch.linalg.vector_norm(parameter.grad.detach())
        self.cost_ns += time.perf_counter_ns() - started

    def _before_update(self, *_: object) -> None:
        started = time.perf_counter_ns()
        seen = self.gradients
        owned = [p for group in self._watch.groups() for p in group["params"]]
        seen.parameters = [p for p in owned if p.grad is not None and id(p) in seen.norms]
        seen.strides = [-(-p.numel() // WEIGHTS) for p in seen.parameters]
        pairs = list(zip(seen.parameters, seen.strides, strict=True))
        if self._watch.detailed:
            seen.gradients = [elements(p.grad, stride) for p, stride in pairs if p.grad is not None]
        seen.weights = [elements(p, stride).clone() for p, stride in pairs]
        seen.weight_norms = torch._foreach_norm([p.detach() for p in seen.parameters]) if pairs else ()
        self.cost_ns += time.perf_counter_ns() - started


def _keep(trace: ActivationTrace, name: str, gradient: Tensor) -> None:
    setattr(trace, name, _sample(gradient, trace.stride))
