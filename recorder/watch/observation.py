"""Turn the hooks of one step into the contracts' numbers: layers, activations, parameter groups, connections, the step.

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
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from recorder.watch.inventory import Interval
from recorder.watch.measures import convergence_rate, measure_activations, stability
from recorder.watch.probe import Probe
from recorder.watch.subject import Subject
from recorder.watch.updates import Numbers, total_norm
from schemas.leyline import leyline_pb2 as pb

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _driver_faults() -> tuple[type[Exception], ...]:
    """Return what asking the driver raises: without its bindings, without a driver, or where the device does not tell (MIG)."""
    refused = getattr(sys.modules.get("pynvml"), "NVMLError", RuntimeError)
    return (ImportError, RuntimeError, OSError, refused)


def gpu_percent(device: torch.device | None) -> float | None:
    """Return the share (percent) of the last sample period in which kernels ran on `device`, as `nvidia-smi` shows it.

    None for any other device, and if the driver does not tell (`nvidia-ml-py` is not installed, MIG).
    """
    if device is None or device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except _driver_faults():
        return None


def _layer(subject: Subject, probe: Probe, numbers: Numbers, path: str, interval: Interval) -> pb.LayerTelemetry:
    trace, keys = probe.layers.get(path), subject.parameter_ids[path]
    gradient = weight = update = variance = None
    moved = interval.moved.get(path)
    if keys:
        gradient, weight = total_norm(numbers.gradient, keys), total_norm(numbers.weight, keys)
        update = total_norm(numbers.update, keys)
    if gradient is not None:
        variance = subject.history(f"layer/{path}").add(gradient)
    if moved == 0.0 and update:
        moved = None  # written past autograd, as by a fused optimizer, which increments no version
    return pb.LayerTelemetry(
        layer_id=path,
        gradient_norm=gradient,
        gradient_variance=variance,
        weight_norm=weight,
        update_magnitude=update / weight if update is not None and weight else None,
        update_frequency=moved,
        samples_per_s=interval.last_samples * 1e9 / trace.busy if trace is not None and trace.busy else None,
        hook_latency_ms=trace.hooks / 1e6 if trace is not None else None,
    )


def _activations(subject: Subject, probe: Probe) -> Iterator[pb.ActivationTelemetry]:
    types = {a.activation_id: a.type for a in subject.topology.activations} if subject.topology else {}
    known = {key: (types[key], trace) for key, trace in probe.activations.items() if key in types}
    measures = measure_activations(known)
    total = sum([measure.gradient_out or 0.0 for measure in measures.values()])
    for key, (_, trace) in known.items():
        calls, measure = trace.calls, measures.get(key)
        if measure is None:
            yield pb.ActivationTelemetry(activation_id=key, activation_frequency=calls)
            continue
        history = subject.history(f"activation/{key}")
        yield pb.ActivationTelemetry(
            activation_id=key,
            activation_frequency=calls,
            saturation_rate=measure.saturation_rate,
            saturation_events=measure.saturation_events,
            gradient_flow=measure.gradient_flow,
            gradient_contribution=measure.gradient_out / total if measure.gradient_out is not None and total else None,
            nonlinearity_strength=measure.nonlinearity_strength,
            stability=stability(history, measure.mean_output),
        )
        history.add(measure.mean_output)


def number(value: object) -> float | None:
    """Return a setting of an optimizer as a number; None if it is not a number (Adafactor's `lr`)."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def momentum_of(group: Mapping[str, Any]) -> float | None:
    """Return `momentum`, else the first beta; None for a family that has neither."""
    if "momentum" in group:
        return number(group["momentum"])
    betas = group.get("betas")
    return number(betas[0]) if isinstance(betas, (tuple, list)) and betas else None


def group_id(index: int, group: Mapping[str, Any]) -> str:
    """Return a parameter group's id: its `name`, else `group-<index>`."""
    return str(group.get("name") or f"group-{index}")


def _group(
    subject: Subject, numbers: Numbers, index: int, steps: int, family: str, group: Mapping[str, Any]
) -> pb.ParameterTelemetry:
    keys = [id(p) for p in group.get("params", ())]
    gradient, weight, update = (
        total_norm(numbers.gradient, keys),
        total_norm(numbers.weight, keys),
        total_norm(numbers.update, keys),
    )
    history = subject.history(f"group/{index}")
    before = history.mean if history.count else 0.0
    variance = rate = None
    if gradient is not None:
        variance, rate = history.add(gradient), convergence_rate(before, history.mean, steps)
    return pb.ParameterTelemetry(
        parameter_id=group_id(index, group),
        optimizer_family=family,
        learning_rate=number(group.get("lr")),
        momentum=momentum_of(group),
        gradient_variance=variance,
        convergence_rate=rate,
        update_magnitude=update / weight if update is not None and weight else None,
    )


def _connections(subject: Subject, probe: Probe) -> Iterator[pb.ConnectionTelemetry]:
    layers = probe.layers
    for edge in subject.topology.connections if subject.topology else ():
        source, target = layers.get(edge.source), layers.get(edge.target)
        if source is None or target is None:
            continue
        waited = target.started - source.ended
        yield pb.ConnectionTelemetry(
            source_layer_id=edge.source,
            target_layer_id=edge.target,
            data_flow_volume=source.output_bytes,
            latency_ms=waited / 1e6 if waited >= 0 else None,
        )


def _influence(subject: Subject, numbers: Numbers) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Return (influence, magnitude, effect) per activation and group.

    They are the share of the group's gradient (0..1) in the activation's layer, the norm of the group's weights there, and the
    first-order loss gain of their update.
    """
    links = {}
    for index, group in enumerate(subject.groups()):
        keys = [id(p) for p in group.get("params", ())]  # in order: a sum of floats depends on it
        own, whole = set(keys), total_norm(numbers.gradient, keys)
        for activation in subject.topology.activations if subject.topology else ():
            if activation.layer_id is None:
                continue
            here = [key for key in subject.parameter_ids.get(activation.layer_id, ()) if key in own]
            part, weight = total_norm(numbers.gradient, here), total_norm(numbers.weight, here)
            if part is not None and weight is not None and whole:
                gain = sum(numbers.gain.get(key, 0.0) for key in here)
                links[activation.activation_id, index] = (part / whole, weight, gain)
    return links


def _metrics(subject: Subject, numbers: Numbers, loss: float, interval: Interval, group: Mapping[str, Any]) -> dict[str, float]:
    gradient = total_norm(numbers.gradient, numbers.gradient)
    losses, gradients = subject.history("loss"), subject.history("gradient_norm")
    losses.add(loss)
    variance = gradients.known_variance if gradient is None else gradients.add(gradient)
    seconds = interval.seconds
    metrics = {
        "loss": None if math.isnan(loss) else loss,
        "loss_ewma": losses.mean if losses.count else None,
        "gradient_norm": gradient,
        "grad_var": variance,
        "optimizer_lr": number(group.get("lr")),
        "optimizer_momentum": momentum_of(group),
        "samples_per_s": interval.samples / seconds if seconds > 0 else None,
        "gpu_util_percent": gpu_percent(subject.device),
        "cpu_util_percent": 100.0 * interval.cpu_seconds / seconds / CORES if seconds > 0 else None,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _rms(output: Tensor | None) -> float:
    return math.nan if output is None else float(output.float().square().mean().sqrt())


def observe(subject: Subject, probe: Probe, loss: float, interval: Interval) -> Observation:
    """Turn a finished step's probe into an Observation."""
    started = time.perf_counter_ns()
    numbers, layers, groups = probe.updates.numbers(), probe.layers, list(subject.named_groups())
    known = subject.parameter_ids  # a layer that is not there any more is left out
    paths = [layer.layer_id for layer in subject.topology.layers if layer.layer_id in known] if subject.topology else []
    observation = Observation(
        global_step=subject.global_step,
        loss=loss,
        metrics=_metrics(subject, numbers, loss, interval, groups[0][1] if groups else {}),
        layers=tuple([_layer(subject, probe, numbers, path, interval) for path in paths]),
        activations=tuple(_activations(subject, probe)),
        parameters=tuple([_group(subject, numbers, index, interval.steps, *group) for index, group in enumerate(groups)]),
        connections=tuple(_connections(subject, probe)),
        latency_ms={path: trace.busy / 1e6 for path, trace in layers.items()},
        output_rms={path: _rms(trace.output) for path, trace in layers.items()} if subject.detailed else {},
        activation_cost={key: float(trace.units) for key, trace in probe.activations.items()},
        influence=_influence(subject, numbers) if subject.detailed else {},
    )
    hooks = probe.cost_ns + probe.updates.cost_ns + sum([trace.hooks for trace in layers.values()])
    observation.add_cost((hooks + time.perf_counter_ns() - started) / 1e6)
    return observation
