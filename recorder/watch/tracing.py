"""Find the topology of any torch module in one forward pass, without changing the module.

Leaf modules have a stand-in for their call during that pass (`wrapping.py`); between them, tensors carry the layers that they
are made of (`provenance.py`). If only parts of the model are called, they show their layers, and the connections over which
one's output goes straight into the next.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import nn

from recorder.watch import modes
from recorder.watch.activations import module_activation
from recorder.watch.faults import Faults, guarded
from recorder.watch.provenance import Provenance, Trace, fresh
from recorder.watch.tensors import is_lazy, tensors_of
from recorder.watch.topology import (
    Connection,
    Layer,
    Topology,
    channels_of,
    dropout_of,
    is_code,
    leaves,
    parameter_count,
    type_of,
)
from recorder.watch.wrapping import Forward, Wrapping, has_own_call, in_backward, is_traced, listen_inside

Arguments = tuple[Any, ...]
Named = dict[str, Any]


class Tracing:
    """Watches for the model's next forward pass that builds a graph for backward, and follows its tensors through it.

    `complete` is true once such a pass has ended well; then `topology()` says what it showed. What is computed stays the same.
    `parts` is what leaves showed that were called outside any pass since the last `forget`.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module], faults: Faults) -> None:
        self.faults = faults
        self._model, self._modules = model, modules
        self._whole, self.parts = Trace(), Trace()
        self._mode: Provenance | None = None
        self._thread = get_ident()
        self._lone = next((path for path, module in modules.items() if module is model), None)
        self._apart = True  # whether calls of leaves are now outside any pass
        self.complete = self.compiled = False
        parts = [(module, partial(self._leaf_called, path, module)) for path, module in modules.items() if module is not model]
        self._entry = Wrapping([(model, self._model_called)], inside=False)
        self._inner = Wrapping([part for part in parts if not has_own_call(part[0])], inside=True)
        self._shy = Wrapping([part for part in parts if has_own_call(part[0])], inside=True)  # during a pass only
        self._bold = False  # or at any time, once a step went by without one

    def attach(self) -> None:
        """Listen to the calls of the model and of its leaves."""
        self._entry.put_on()
        self._inner.put_on()

    def detach(self) -> None:
        """Take everything off."""
        self.compiled = self.compiled or self._entry.compiled or self._inner.compiled
        for wrapping in (self._entry, self._inner, self._shy):
            wrapping.take_off()
        self._end_mode()

    def forget(self) -> None:
        """Forget the parts and release their tensors."""
        self.compiled = self.compiled or self._entry.compiled or self._inner.compiled
        self.parts, self._bold = Trace(), True
        self._shy.put_on()

    def _model_called(self, forward: Forward, args: Arguments, kwargs: Named) -> Any:
        outside, self._apart = self._apart, False
        following, output = bool(self._begins()), None
        try:
            if following and self._lone is not None:
                output = listen_inside(self._model, forward, partial(self._layer, self._lone, self._model), args, kwargs)
            else:
                output = forward(*args, **kwargs)
            return output
        finally:
            self._apart = outside
            if following:
                self._ended(output)

    @guarded
    def _begins(self) -> bool:
        ready = self._mode is None and not self.complete and torch.is_grad_enabled() and not is_traced()
        if not ready or any(map(is_lazy, self._model.parameters())):
            return False
        self._whole = Trace()
        self._mode, self._thread = Provenance(self._whole, self.faults), get_ident()
        if self._lone is None:
            self._shy.put_on()
            modes.push(self._mode)
        return True

    @guarded
    def _ended(self, output: Any) -> None:
        self._end_mode()
        self._whole.origins.clear()
        self.complete = output is not None and bool(self._whole.calls)  # None: the forward pass raised

    def _end_mode(self) -> None:
        if not self._bold:
            self._shy.take_off()
        if self._mode is not None:
            modes.remove(self._mode)
            self._mode = None

    def _leaf_called(self, path: str, module: nn.Module, forward: Forward, args: Arguments, kwargs: Named) -> Any:
        if self._mode is not None and self._thread != get_ident():
            return forward(*args, **kwargs)
        if self._mode is None and (not self._apart or self.complete or not torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        if self._mode is None and (in_backward() or is_traced() or any(map(is_lazy, module.parameters()))):
            return forward(*args, **kwargs)
        make = self._layer if module_activation(module) is None else self._activation
        return make(path, module, forward, args, kwargs)

    def _layer(self, path: str, module: nn.Module, forward: Forward, args: Arguments, kwargs: Named) -> Any:
        trace = self.parts if self._mode is None else self._whole
        self._call(trace, path, args, kwargs)
        trace.inside += 1
        try:
            with modes.away(self._mode, needed=is_code(module)):
                output = forward(*args, **kwargs)
        finally:
            trace.inside -= 1
        output = fresh(trace, output)
        self._see(trace, path, module, (args, kwargs), output)
        return output

    @guarded
    def _call(self, trace: Trace, path: str, args: Arguments, kwargs: Named) -> None:
        trace.call(path, trace.sources((args, kwargs)))

    @guarded
    def _see(self, trace: Trace, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        first, result = next(tensors_of(inputs), None), next(tensors_of(output), None)
        if result is not None:
            into = channels_of(module, result if first is None else first)
            trace.channels.setdefault(path, (into, channels_of(module, result)))
        trace.mark(output, {path: False})

    def _activation(self, path: str, module: nn.Module, forward: Forward, args: Arguments, kwargs: Named) -> Any:
        trace = self.parts if self._mode is None else self._whole
        sources = self._sources(trace, args, kwargs)
        trace.inside += 1
        try:
            output = forward(*args, **kwargs)
        finally:
            trace.inside -= 1
        self._activated(trace, module_activation(module) or "", path, sources or {}, output)
        return output

    @guarded
    def _sources(self, trace: Trace, args: Arguments, kwargs: Named) -> dict[str, bool]:
        return trace.sources((args, kwargs))

    @guarded
    def _activated(self, trace: Trace, name: str, path: str, sources: dict[str, bool], output: Any) -> None:
        trace.activation(name, path, sources)
        trace.mark(output, sources)

    def topology(self) -> Topology:
        """Return layers, activations and connections of the pass; without one, of the parts that were called."""
        trace = self._whole if self.complete else self.parts
        first = {a.layer_id: a.type for a in reversed(trace.activations.values())}
        layers = tuple(
            Layer(
                layer_id=path,
                type=type_of(self._modules[path]),
                depth=trace.depths[path],
                input_channels=trace.channels[path][0],
                output_channels=trace.channels[path][1],
                activation_type=first.get(path, "none"),
                dropout_rate=dropout_of(self._modules[path]),
                parameter_count=parameter_count(self._modules[path]),
            )
            for path in trace.calls
            if path in trace.channels
        )
        known = {layer.layer_id for layer in layers}
        edges = tuple(Connection(a, b, residual) for (a, b), residual in trace.edges.items() if {a, b} <= known)
        return Topology(layers, tuple(trace.activations.values()), edges)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode for one look; flags, random state (every device's) and buffers come back as they were."""
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
    """Return the topology of `model` as it runs on these inputs.

    It takes one forward pass in eval mode; RNG, buffers and flags come back as they were.
    """
    tracing = Tracing(model, leaves(model), Faults())
    tracing.attach()
    try:
        with undisturbed(model), torch.enable_grad():
            model(*args, **kwargs)
    finally:
        tracing.detach()
    return tracing.topology()
