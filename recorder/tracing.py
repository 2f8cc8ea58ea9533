"""Finds the topology of any torch module in one forward pass, without a change to it.

Leaf modules have a stand-in for their forward during that pass (`wrapping.py`); between them, tensors carry the layers that
they are made of (`provenance.py`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from recorder.activations import module_activation
from recorder.provenance import Provenance, Trace, fresh
from recorder.tensors import is_lazy, tensors_of
from recorder.topology import Connection, Layer, Topology, channels_of, dropout_of, leaves
from recorder.wrapping import Forward, Wrapping


class Tracing:
    """Watches for the model's next forward pass that builds a graph for backward, and follows its tensors through it.

    `complete` once such a pass has ended well; then `topology()` says what it showed. What is computed stays the same.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        self._model, self._modules = model, modules
        self._trace = Trace()
        self._wrapping = Wrapping()
        self._mode: Provenance | None = None
        self._handles: list[Any] = []
        self._lone = next((path for path, module in modules.items() if module is model), None)
        self._entered: dict[str, bool] = {}
        self.complete = False

    def attach(self) -> None:
        """Hook the model's entry and exit."""

        # plain functions: a copy of the model takes hooks along, and a bound method would take the whole recorder
        def enter(model: nn.Module, args: Any, kwargs: Any) -> None:
            idle = self._mode is None and not self.complete
            if idle and model is self._model and torch.is_grad_enabled() and not any(map(is_lazy, model.parameters())):
                self._enter((args, kwargs))

        def leave(model: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return self._leave((args, kwargs), output) if model is self._model and self._mode is not None else None

        self._handles = [
            self._model.register_forward_pre_hook(enter, with_kwargs=True),
            self._model.register_forward_hook(leave, with_kwargs=True, always_call=True),
        ]

    def detach(self) -> None:
        """Take everything off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._restore()

    def _enter(self, inputs: Any) -> None:
        self._trace = Trace()
        self._mode = Provenance(self._trace)
        if self._lone is not None:
            self._trace.call(self._lone, {})
            self._trace.inside = 1
        else:
            self._wrapping.put_on((module, partial(self._stand_in, path, module)) for path, module in self._modules.items())
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, inputs: Any, output: Any) -> Any:
        self._restore()
        self.complete = output is not None  # None: the forward pass raised
        if self._lone is not None:
            self._see(self._lone, self._model, inputs, output)
        self._trace.origins.clear()

    def _restore(self) -> None:
        self._wrapping.take_off()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None

    def _stand_in(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        make = self._layer if module_activation(module) is None else self._activation
        return make(path, module, forward)

    def _layer(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        trace = self._trace

        def followed(*args: Any, **kwargs: Any) -> Any:
            trace.call(path, trace.sources((args, kwargs)))
            trace.inside += 1
            output = fresh(trace, forward(*args, **kwargs))
            trace.inside -= 1
            self._see(path, module, (args, kwargs), output)
            trace.mark(output, {path: False})
            return output

        return followed

    def _see(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        first, result = next(tensors_of(inputs), None), next(tensors_of(output), None)
        if result is not None:
            into = channels_of(module, result if first is None else first)
            self._trace.channels.setdefault(path, (into, channels_of(module, result)))

    def _activation(self, path: str, module: nn.Module, forward: Forward) -> Forward:
        trace, name = self._trace, module_activation(module) or ""

        def followed(*args: Any, **kwargs: Any) -> Any:
            sources = trace.sources((args, kwargs))
            trace.inside += 1
            output = forward(*args, **kwargs)
            trace.inside -= 1
            trace.activation(name, path, sources)
            trace.mark(output, sources)
            return output

        return followed

    def topology(self) -> Topology:
        """Layers, activations and connections of the pass."""
        trace = self._trace
        first = {a.layer_id: a.type for a in reversed(trace.activations.values())}
        layers = tuple(
            Layer(
                layer_id=path,
                type=type(self._modules[path]).__name__,
                depth=trace.depths[path],
                input_channels=trace.channels[path][0],
                output_channels=trace.channels[path][1],
                activation_type=first.get(path, "none"),
                dropout_rate=dropout_of(self._modules[path]),
                parameter_count=sum(p.numel() for p in self._modules[path].parameters()),
            )
            for path in trace.calls
            if path in trace.channels
        )
        known = {layer.layer_id for layer in layers}
        edges = tuple(Connection(a, b, residual) for (a, b), residual in trace.edges.items() if {a, b} <= known)
        return Topology(layers, tuple(trace.activations.values()), edges)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode for one look at the model: training flags, random state (every device's) and buffers come back as they were."""
    flags = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
            yield
    finally:
        for module, training in flags.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def find_topology(model: nn.Module, *args: Any, **kwargs: Any) -> Topology:
    """Topology of `model` as it runs on these inputs: one forward pass in eval mode; RNG, buffers and flags come back."""
    tracing = Tracing(model, leaves(model))
    tracing.attach()
    try:
        with undisturbed(model), torch.enable_grad():
            model(*args, **kwargs)
    finally:
        tracing.detach()
    return tracing.topology()
