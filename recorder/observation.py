"""From the hooks of one step to the numbers of the contracts: layers, activations, parameter groups, connections, the step.

Definitions (contracts.md section 4 names the fields; `measures.py` holds the formulas):

- gradient_norm: L2 norm of the gradients as backward left them (before clipping), of a layer, a group or the whole host.
- gradient_variance: exponentially weighted variance over time of that norm; missing before the second look.
- weight_norm: L2 norm of the layer's weights before the update; update_magnitude: norm of the update over that norm.
- update_frequency: share of the interval's steps in which the optimizer wrote to the layer's weights.
- samples_per_s: of a layer, samples over the wall time inside its forward; of the step, samples of the interval over its
  wall time. hook_latency_ms: wall time that the recorder itself spent (in the layer's hooks; in the whole step).
- connection latency_ms: from the end of the source's forward to the start of the target's; data_flow_volume: bytes of the
  source's output, once per target.
- gradient_contribution: the activation's output gradient norm over the sum of all activations'.
- optimizer_momentum: `momentum`, else the first beta; missing for families that have neither.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recorder.measures import ActivationMeasure, convergence_rate, measure_activation, stability
from recorder.probe import Probe, elements
from schemas.leyline import leyline_pb2 as pb

if TYPE_CHECKING:
    from recorder.watch import Watch


@dataclass(frozen=True)
class Observation:
    """Everything that one measured step showed, as messages of the contracts plus what Urza's records need.

    `metrics` are the step metrics of contracts.md section 7; `influence` maps (activation_id, group index) to
    (influence 0..1, magnitude, effect); `latency_ms` and `output_rms` are per layer, `activation_cost` is the elements that an
    activation takes per sample. `output_rms` and `influence` are filled while the watch is `detailed`.
    """

    global_step: int
    loss: float
    metrics: dict[str, float]
    layers: tuple[pb.LayerTelemetry, ...]
    activations: tuple[pb.ActivationTelemetry, ...]
    parameters: tuple[pb.ParameterTelemetry, ...]
    connections: tuple[pb.ConnectionTelemetry, ...]
    latency_ms: Mapping[str, float]
    output_rms: Mapping[str, float]
    activation_cost: Mapping[str, float]
    influence: Mapping[tuple[str, int], tuple[float, float, float]] = field(default_factory=dict)

    def add_cost(self, milliseconds: float) -> None:
        """Count the recorder's own arithmetic after the step into the step's hook latency."""
        self.metrics["hook_latency_ms"] = self.metrics.get("hook_latency_ms", 0.0) + milliseconds


@dataclass(frozen=True)
class _Numbers:
    """Norms of one update, per parameter id: gradient, weights, update, and -<gradient, update> (first-order loss gain)."""

    gradient: dict[int, float]
    weight: dict[int, float]
    update: dict[int, float]
    gain: dict[int, float]


def _norms(probe: Probe, detailed: bool) -> _Numbers:
    """Norms of gradients and weights exactly, those of updates (and the gains) from sampled elements, scaled up."""
    seen = probe.gradients
    if not seen.parameters:
        return _Numbers({}, {}, {}, {})
    now = [elements(p, stride) for p, stride in zip(seen.parameters, seen.strides, strict=True)]
    updates = torch._foreach_sub(now, seen.weights)
    norms = [seen.norms[id(p)] for p in seen.parameters]
    pairs = zip(seen.gradients, updates, strict=True) if detailed else ()
    gains = [torch.dot(gradient, update) for gradient, update in pairs]
    values = torch.stack([*norms, *seen.weight_norms, *torch._foreach_norm(updates), *gains]).tolist()
    ids, count = [id(p) for p in seen.parameters], len(seen.parameters)
    gradient, weight = (dict(zip(ids, values[k * count : (k + 1) * count], strict=True)) for k in range(2))
    scaled = [v * math.sqrt(stride) for v, stride in zip(values[2 * count : 3 * count], seen.strides, strict=True)]
    gain = [-v * stride for v, stride in zip(values[3 * count :], seen.strides, strict=False)]
    return _Numbers(gradient, weight, dict(zip(ids, scaled, strict=True)), dict(zip(ids, gain, strict=False)))


def _norm(values: Mapping[int, float], keys: Sequence[int]) -> float | None:
    known = [values[key] for key in keys if key in values]
    return math.sqrt(sum(value * value for value in known)) if known else None


def _set(message: Any, **numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None:
            setattr(message, name, value)


def _layer(watch: "Watch", probe: Probe, numbers: _Numbers, path: str, moved: float) -> pb.LayerTelemetry:
    trace, keys = probe.layers[path], watch.parameter_ids[path]
    message = pb.LayerTelemetry(layer_id=path, hook_latency_ms=trace.hooks / 1e6)
    gradient, weight, update = (_norm(part, keys) for part in (numbers.gradient, numbers.weight, numbers.update))
    if gradient is not None:
        history = watch.history(f"layer/{path}")
        history.add(gradient)
        _set(message, gradient_norm=gradient, gradient_variance=history.known_variance, update_frequency=moved)
    relative = update / weight if update is not None and weight else None
    _set(message, weight_norm=weight, update_magnitude=relative)
    if trace.busy:
        message.samples_per_s = trace.samples * 1e9 / trace.busy
    return message


def _activations(watch: "Watch", probe: Probe) -> list[pb.ActivationTelemetry]:
    seen: list[tuple[str, int, ActivationMeasure]] = []
    types = {a.activation_id: a.type for a in watch.topology.activations} if watch.topology else {}
    for key, trace in probe.activations.items():
        if trace.before is not None and trace.after is not None and key in types:
            gradients = (trace.gradient_in, trace.gradient_out)
            measure = measure_activation(types[key], trace.before, trace.after, *gradients, trace.stride)
            seen.append((key, trace.calls, measure))
    total = sum(m.gradient_out or 0.0 for _, _, m in seen)
    messages = []
    for key, calls, measure in seen:
        message = pb.ActivationTelemetry(activation_id=key, activation_frequency=calls)
        history = watch.history(f"activation/{key}")
        contribution = measure.gradient_out / total if measure.gradient_out is not None and total else None
        _set(
            message,
            saturation_rate=measure.saturation_rate,
            saturation_events=measure.saturation_events,
            gradient_flow=measure.gradient_flow,
            gradient_contribution=contribution,
            nonlinearity_strength=measure.nonlinearity_strength,
            stability=stability(history, measure.mean_output),
        )
        history.add(measure.mean_output)
        messages.append(message)
    return messages


def optimizer_family(optimizer: torch.optim.Optimizer) -> str:
    """Family of an optimizer: its class name in lower case (`sgd`, `adam`, `adamw`, ...)."""
    return type(optimizer).__name__.lower()


def momentum_of(group: Mapping[str, Any]) -> float | None:
    """`momentum`, else the first beta; None for a family that has neither."""
    if "momentum" in group:
        return float(group["momentum"])
    return float(group["betas"][0]) if "betas" in group else None


def group_id(index: int, group: Mapping[str, Any]) -> str:
    """A parameter group's id: its `name`, else `group-<index>`."""
    return str(group.get("name") or f"group-{index}")


def _group(watch: "Watch", numbers: _Numbers, index: int, steps: int) -> pb.ParameterTelemetry:
    group = watch.groups()[index]
    keys = [id(p) for p in group["params"]]
    message = pb.ParameterTelemetry(parameter_id=group_id(index, group))
    message.optimizer_family = optimizer_family(watch.optimizer)
    gradient, weight, update = (_norm(part, keys) for part in (numbers.gradient, numbers.weight, numbers.update))
    history = watch.history(f"group/{index}")
    before = history.mean if history.count else 0.0
    if gradient is not None:
        history.add(gradient)
        _set(message, gradient_variance=history.known_variance)
        _set(message, convergence_rate=convergence_rate(before, history.mean, steps))
    relative = update / weight if update is not None and weight else None
    _set(message, learning_rate=float(group["lr"]), momentum=momentum_of(group), update_magnitude=relative)
    return message


def _connections(watch: "Watch", probe: Probe) -> Iterator[pb.ConnectionTelemetry]:
    for edge in watch.topology.connections if watch.topology else ():
        source, target = probe.layers.get(edge.source), probe.layers.get(edge.target)
        if source is None or target is None:
            continue
        message = pb.ConnectionTelemetry(source_layer_id=edge.source, target_layer_id=edge.target)
        message.data_flow_volume = source.output_bytes
        if target.started >= source.ended:
            message.latency_ms = (target.started - source.ended) / 1e6
        yield message


def _influence(watch: "Watch", numbers: _Numbers) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Per activation and group: the share of the group's gradient (0..1) in the activation's layer, the norm of the
    group's weights there, and the first-order loss gain of their update."""
    links = {}
    for index, group in enumerate(watch.groups()):
        keys = {id(p) for p in group["params"]}
        whole = _norm(numbers.gradient, list(keys))
        for activation in watch.topology.activations if watch.topology else ():
            if activation.layer_id is None:
                continue
            here = [key for key in watch.parameter_ids[activation.layer_id] if key in keys]
            part, weight = _norm(numbers.gradient, here), _norm(numbers.weight, here)
            if part is not None and weight is not None and whole:
                gain = sum(numbers.gain.get(key, 0.0) for key in here)
                links[activation.activation_id, index] = (part / whole, weight, gain)
    return links


def _metrics(watch: "Watch", numbers: _Numbers, loss: float, samples: int, seconds: float) -> dict[str, float]:
    group = watch.groups()[0]
    gradient = _norm(numbers.gradient, list(numbers.gradient))
    losses, gradients = watch.history("loss"), watch.history("gradient_norm")
    losses.add(loss)
    metrics = {"loss": loss, "loss_ewma": losses.mean, "optimizer_lr": float(group["lr"])}
    if gradient is not None:
        gradients.add(gradient)
        metrics["gradient_norm"] = gradient
    optional = {"grad_var": gradients.known_variance, "optimizer_momentum": momentum_of(group)}
    metrics.update({name: value for name, value in optional.items() if value is not None})
    if seconds > 0:
        metrics["samples_per_s"] = samples / seconds
    return metrics


def _rms(output: Tensor | None) -> float:
    return math.nan if output is None else float(output.float().square().mean().sqrt())


def observe(watch: "Watch", probe: Probe, loss: float, interval: tuple[int, int, float, dict[str, int]]) -> Observation:
    """Turn a finished step's probe into an Observation. `interval` is (steps, samples, seconds, moves per layer)."""
    started = time.perf_counter_ns()
    steps, samples, seconds, moved = interval
    numbers = _norms(probe, watch.detailed)
    observation = Observation(
        global_step=watch.global_step,
        loss=loss,
        metrics=_metrics(watch, numbers, loss, samples, seconds),
        layers=tuple(_layer(watch, probe, numbers, path, moved.get(path, 0) / max(steps, 1)) for path in probe.layers),
        activations=tuple(_activations(watch, probe)),
        parameters=tuple(_group(watch, numbers, index, steps) for index in range(len(watch.groups()))),
        connections=tuple(_connections(watch, probe)),
        latency_ms={path: trace.busy / 1e6 for path, trace in probe.layers.items()},
        output_rms={path: _rms(trace.output) for path, trace in probe.layers.items()} if watch.detailed else {},
        activation_cost={key: float(trace.units) for key, trace in probe.activations.items()},
        influence=_influence(watch, numbers) if watch.detailed else {},
    )
    observation.add_cost((probe.cost_ns + time.perf_counter_ns() - started) / 1e6)
    return observation
