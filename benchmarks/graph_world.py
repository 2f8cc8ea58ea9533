"""Make contract tables of any size for graph benchmarks, column by column, so that making them costs little."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gnn.norms.priors import DEFAULT_PRIORS
from gnn.registry.refresh import Registries, Registry
from schemas.artifacts import REGISTRIES, registry_digest
from schemas.contracts import TABLES

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


class DefaultNorms:
    """Norms before anything was fitted."""

    priors = DEFAULT_PRIORS


@dataclass(frozen=True)
class Size:
    """Elements of one graph; `connections` links two layers each, at most layers * 3."""

    layers: int = 22
    activations: int = 22
    parameters: int = 4
    seeds: int = 6
    connections: int = 45


def known_words() -> Registries:
    """Registries that know the words of these worlds."""
    words = {
        "layer_type": ["linear"],
        "activation_type": ["relu"],
        "seed": [f"seed-{n}" for n in range(8)],
        "parameter_target": ["weights"],
    }
    found = {}
    for name, spec in REGISTRIES.items():
        entries = {word: place for place, word in enumerate([*spec.seeded, *words.get(name, [])], 1)}
        found[name] = Registry(spec, entries, 1, registry_digest(entries))
    return Registries(found)


def _table(name: str, rows: int, columns: dict[str, Any]) -> pa.Table:
    schema = TABLES[name].arrow_schema
    arrays = []
    for field in schema:
        value = columns.get(field.name)
        if value is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(value, pa.Array):
            arrays.append(value.cast(field.type))
        elif isinstance(value, np.ndarray | list):
            arrays.append(pa.array(value, field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(value, field.type), rows))
    return pa.table(arrays, schema=schema)


def _words(prefix: str, count: int) -> pa.Array:
    return pa.array([f"{prefix}{n}" for n in range(count)])


def _links(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of each connection: the chain first, then skips of two and three."""
    pairs = [(n, n + step) for step in (1, 2, 3) for n in range(size.layers - step)]
    chosen = np.array(pairs[: size.connections]).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]


def metadata_tables(hosts: Sequence[str], size: Size) -> dict[str, pa.Table]:
    """What Urza, Urabrask, Tezzeret and Weatherlight say of these hosts and of the seeds' kernels."""
    count, names = len(hosts), pa.array(list(hosts))
    kernels = _words("kernel-", size.seeds)
    layers, activations = _words("layer-", size.layers), _words("activation-", size.activations)
    parameters = _words("group-", size.parameters)
    source, target = _links(size)

    def of_hosts(own: int) -> dict[str, Any]:
        return {"blueprint_id": names.take(pa.array(np.repeat(np.arange(count), own))), "index": np.tile(np.arange(own), count)}

    def each(values: pa.Array, places: Any = None) -> pa.Array:
        chosen = np.arange(len(values)) if places is None else places
        return values.take(pa.array(np.tile(chosen, count)))

    place = np.arange(size.activations)
    tuned = [[f"layer-{n}" for n in range(group, size.layers, size.parameters)] for group in range(size.parameters)]
    everyone = pa.concat_arrays([names, kernels])
    linear = {"type": "linear", "input_channels": 8, "output_channels": 8, "activation_type": "relu", "dropout_rate": 0.1}
    record = {"descriptor_tier": "SAFE", "descriptor_risk": 0.1, "descriptor_stage": 1, "descriptor_quarantine_only": False}
    record |= {"descriptor_approval_required": False, "optimizer_family": "sgd", "optimizer_learning_rate": 0.1}
    sheet = {"source": "bsds", "risk_score": 0.2, "hazard_band": "LOW", "handling_class": "STANDARD"}
    issued = {"blueprint_id": everyone, "issued_at_ns": START - 1}
    rows: dict[str, tuple[int, dict[str, Any]]] = {
        "urza.blueprint": (len(everyone), {"blueprint_id": everyone} | record),
        "urza.layer": (
            count * size.layers,
            of_hosts(size.layers) | linear | {"layer_id": each(layers), "is_placeholder": False},
        ),
        "urza.activation": (
            count * size.activations,
            of_hosts(size.activations)
            | {"activation_id": each(activations), "type": "relu", "layer_id": each(layers, place % size.layers)}
            | {"computational_cost": 10.0, "is_placeholder": False},
        ),
        "urza.parameter": (
            count * size.parameters,
            of_hosts(size.parameters)
            | {"parameter_id": each(parameters), "parameter_count": 100, "layer_ids": tuned * count, "target": "weights"},
        ),
        "urza.connection": (
            count * len(source),
            of_hosts(len(source))
            | {"source_layer_id": each(layers, source), "target_layer_id": each(layers, target)}
            | {"connection_strength": 1.0, "residual_flag": False},
        ),
        "urza.activation_parameter": (
            count * size.activations,
            of_hosts(size.activations)
            | {"activation_id": each(activations), "parameter_id": each(parameters, place % size.parameters)}
            | {"influence": 0.5, "magnitude": 1.0, "effect": -1.0},
        ),
        "urabrask.bsds": (len(everyone), issued | sheet),
        "tezzeret.kernel": (len(everyone), issued | {"source": "update", "status": "COMPILED"}),
        "weatherlight.health": (
            1,
            {"packet_id": "health", "timestamp_ns": START, "status": "HEALTHY", "unhealthy_indicators": 0}
            | {"sla_breaches": 0.0, "cpu_utilisation": 50.0, "conservative_mode": False},
        ),
    }
    return {name: _table(name, number, columns) for name, (number, columns) in rows.items()}


def run_tables(runs: Sequence[str], hosts: Sequence[str], steps: range, size: Size, seed: int = 0) -> dict[str, pa.Table]:
    """Packets `steps` of these runs, run n on host n, with telemetry of everything."""
    random = np.random.default_rng(seed)
    count = len(runs) * len(steps)
    run = np.repeat(np.arange(len(runs)), len(steps))
    step = np.tile(np.array(steps, dtype=np.int64), len(runs))
    packet_ids = pa.array([f"packet-{n}" for n in steps])
    runs_array, hosts_array = pa.array(list(runs)), pa.array(list(hosts))
    place = np.tile(np.arange(len(steps)), len(runs))

    def of_packets(own: int) -> dict[str, Any]:
        return {
            "training_run_id": runs_array.take(pa.array(np.repeat(run, own))),
            "packet_id": packet_ids.take(pa.array(np.repeat(place, own))),
            "timestamp_ns": np.repeat(START + step * SECOND, own),
            "global_step": np.repeat(step, own),
        }

    def each(prefix: str, own: int, places: Any = None) -> pa.Array:
        chosen = np.arange(own) if places is None else places
        return _words(prefix, int(chosen.max(initial=-1)) + 1).take(pa.array(np.tile(chosen, count)))

    def measured(names: str, own: int) -> dict[str, Any]:
        return {name: random.random(count * own, dtype=np.float32) for name in names.split()}

    metrics = ("loss", "gradient_norm", "samples_per_s", "hook_latency_ms", "latency_budget_ms", "cpu_util_percent")
    entries = np.arange(count + 1, dtype=np.int32) * len(metrics)
    maps = pa.MapArray.from_arrays(
        pa.array(entries),
        pa.array(metrics).take(pa.array(np.tile(np.arange(len(metrics)), count))),
        pa.array(1.0 + random.random(count * len(metrics), dtype=np.float32)),
    )
    source, target = _links(size)
    watched = [[f"layer-{n}", f"layer-{n + 1}"] for n in range(size.seeds)]
    rows: dict[str, tuple[int, dict[str, Any]]] = {
        "tolaria.system_state": (
            count,
            of_packets(1) | {"blueprint_id": hosts_array.take(pa.array(run)), "training_metrics": maps, "is_completion": False},
        ),
        "tolaria.layer_telemetry": (
            count * size.layers,
            of_packets(size.layers)
            | {"layer_id": each("layer-", size.layers)}
            | measured("loss gradient_norm gradient_variance weight_norm update_frequency", size.layers),
        ),
        "tolaria.activation_telemetry": (
            count * size.activations,
            of_packets(size.activations)
            | {"activation_id": each("activation-", size.activations)}
            | measured("saturation_rate saturation_events gradient_flow stability activation_frequency", size.activations),
        ),
        "tolaria.parameter_telemetry": (
            count * size.parameters,
            of_packets(size.parameters)
            | {"parameter_id": each("group-", size.parameters), "optimizer_family": "sgd"}
            | measured("learning_rate momentum convergence_rate update_magnitude", size.parameters),
        ),
        "tolaria.connection_telemetry": (
            count * len(source),
            of_packets(len(source))
            | {"source_layer_id": each("layer-", 0, source), "target_layer_id": each("layer-", 0, target)}
            | measured("data_flow_volume latency_ms", len(source)),
        ),
        "kasmina.seed_state": (
            count * size.seeds,
            of_packets(size.seeds)
            | {"seed_id": each("seed-", size.seeds), "blueprint_id": each("kernel-", size.seeds), "source": "packet"}
            | {"stage": "TRAINING", "monitored_layers": watched * count, "quarantine_only": False}
            | {"capabilities_allowed_blending_methods": [["linear", "cosine"]] * (count * size.seeds)}
            | {"capabilities_allowed_optimizer_families": [["sgd"]] * (count * size.seeds)}
            | {"capabilities_isolation_exemptions": [[]] * (count * size.seeds)}
            | measured("alpha monitoring_frequency activity_level", size.seeds),
        ),
    }
    return {name: _table(name, number, columns) for name, (number, columns) in rows.items()}
