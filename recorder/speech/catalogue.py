"""Make Urza's records: the measured graph of a host or kernel, with its descriptor and optimizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict

from recorder.speech.clock import rfc3339
from recorder.watch.observation import Observation, group_id, momentum_of
from recorder.watch.topology import Topology
from recorder.watch.watcher import Watch
from schemas.leyline import leyline_pb2 as pb

RESOURCE_TIER = "CPU"  # the recorder trains on the CPU


@dataclass(frozen=True)
class Measured:
    """A topology, one observation of it, and what the watch that made both knew.

    That is the layer of each parameter id, the optimizer's groups and family, and the variance of the gradient's norm. `prefix`
    keeps only the elements below it.
    """

    topology: Topology
    seen: Observation
    owner: Mapping[int, str]
    groups: Sequence[Mapping[str, Any]]
    family: str
    gradient_variance: float | None
    prefix: str = ""

    @classmethod
    def of(cls, watch: Watch, topology: Topology, seen: Observation, prefix: str = "") -> "Measured":
        """Return what a watch that is still open has measured."""
        owner = {key: path for path, keys in watch.parameter_ids.items() for key in keys}
        variance = watch.history("gradient_norm").known_variance
        return cls(topology, seen, owner, watch.groups(), next(watch.named_groups())[0], variance, prefix)

    def keeps(self, element_id: str | None) -> bool:
        """Return whether an element belongs to the blueprint."""
        return element_id is not None and element_id.startswith(self.prefix)


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in record.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def _layers(measured: Measured) -> list[dict[str, Any]]:
    live = {message.layer_id: message for message in measured.seen.layers}
    records = []
    for layer in measured.topology.layers:
        if not measured.keeps(layer.layer_id):
            continue
        message = live.get(layer.layer_id)
        norms = {
            name: getattr(message, name)
            for name in ("weight_norm", "gradient_norm")
            if message is not None and message.HasField(name)
        }
        records.append(
            {
                "layer_id": layer.layer_id,
                "type": layer.type,
                "depth": layer.depth,
                "input_channels": layer.input_channels,
                "output_channels": layer.output_channels,
                "activation_type": layer.activation_type,
                "dropout_rate": layer.dropout_rate,
                "parameter_count": layer.parameter_count,
                **_finite({**norms, "latency_ms": measured.seen.latency_ms.get(layer.layer_id)}),
            }
        )
    return records


def _activations(measured: Measured) -> list[dict[str, Any]]:
    live = {message.activation_id: message for message in measured.seen.activations}
    records = []
    for activation in measured.topology.activations:
        if not measured.keeps(activation.activation_id):
            continue
        message, record = (
            live.get(activation.activation_id),
            {"activation_id": activation.activation_id, "type": activation.type},
        )
        if measured.keeps(activation.layer_id):
            record["layer_id"] = str(activation.layer_id)
        names = ("saturation_rate", "gradient_flow", "nonlinearity_strength")
        numbers = {name: getattr(message, name) for name in names if message is not None and message.HasField(name)}
        cost = measured.seen.activation_cost.get(activation.activation_id)
        records.append({**record, **_finite({**numbers, "computational_cost": cost})})
    return records


def _groups(measured: Measured) -> list[tuple[int, str, list[Any], list[str]]]:
    """Return (index, id, parameters, layer ids) of every optimizer group that holds parameters of the blueprint."""
    owner, found = measured.owner, []
    for index, group in enumerate(measured.groups):
        mine = [p for p in group["params"] if measured.keeps(owner.get(id(p), ""))]
        if mine:
            layers = list(dict.fromkeys(owner[id(p)] for p in mine if id(p) in owner))
            found.append((index, group_id(index, group), mine, layers))
    return found


def _parameters(measured: Measured) -> list[dict[str, Any]]:
    records = []
    for _, name, parameters, layers in _groups(measured):
        low = min(float(p.detach().min()) for p in parameters)
        high = max(float(p.detach().max()) for p in parameters)
        records.append(
            {
                "parameter_id": name,
                "name": name,
                "parameter_count": sum(p.numel() for p in parameters),
                "layer_ids": layers,
                "target": name,
                **_finite({"min": low, "max": high, "span": high - low}),
            }
        )
    return records


def _adjacency(measured: Measured, layer_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return edges by index; the strength is the root mean square of what flows there (the source's output)."""
    index = {layer: position for position, layer in enumerate(layer_ids)}
    return [
        {
            "source": index[edge.source],
            "target": index[edge.target],
            "residual": edge.residual,
            **_finite({"connection_strength": measured.seen.output_rms.get(edge.source)}),
        }
        for edge in measured.topology.connections
        if edge.source in index and edge.target in index
    ]


def _links(measured: Measured) -> list[dict[str, Any]]:
    names = {index: name for index, name, _, _ in _groups(measured)}
    return [
        {
            "activation_id": activation,
            "parameter_id": names[group],
            **_finite({"influence": influence, "magnitude": magnitude, "effect": effect}),
        }
        for (activation, group), (influence, magnitude, effect) in measured.seen.influence.items()
        if group in names and measured.keeps(activation)
    ]


def graph_metadata(measured: Measured, blending: Sequence[str]) -> dict[str, Any]:
    """Return the `graph_metadata` of contracts.md section 6: everything measured, nothing else."""
    layers = _layers(measured)
    return {
        "layers": layers,
        "activations": _activations(measured),
        "parameters": _parameters(measured),
        "adjacency": {"layer": _adjacency(measured, [layer["layer_id"] for layer in layers])},
        "activation_parameters": _links(measured),
        "capabilities": {"allowed_blending_methods": list(blending)},
    }


def _optimizer(measured: Measured) -> dict[str, Any]:
    group = measured.groups[0]
    record = {
        "family": measured.family,
        "learning_rate": float(group["lr"]),
        "momentum": momentum_of(group),
        "gradient_variance": measured.gradient_variance,
    }
    return _finite(record)


def urza_record(
    descriptor: pb.BlueprintDescriptor,
    measured: Measured,
    *,
    blending: Sequence[str],
    exported_at_ns: int,
    monitors: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return one Urza record as a JSON object; `monitors` says which seed watches which layers (contracts.md section 6)."""
    graph = graph_metadata(measured, blending)
    if monitors is not None:
        graph["monitors"] = dict(monitors)
    return {
        "blueprint_id": descriptor.blueprint_id,
        "descriptor": MessageToDict(descriptor, preserving_proto_field_name=True),
        "optimizer": _optimizer(measured),
        "resource_tier": RESOURCE_TIER,
        "exported_at": rfc3339(exported_at_ns),
        "extras": {"graph_metadata": graph},
    }
