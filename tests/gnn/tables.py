"""Small hand-made contract tables: one host with two layers, one seed, its kernel, and what every system says of them."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from gnn.norms.priors import DEFAULT_PRIORS
from gnn.registry.refresh import Registries, Registry
from schemas.artifacts import REGISTRIES, registry_digest
from schemas.contracts import TABLES

Row = dict[str, Any]
START = 1_000_000_000


def table(name: str, rows: Iterable[Row]) -> pa.Table:
    """Rows of a contract table; columns that a row lacks are NULL."""
    schema = TABLES[name].arrow_schema
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in schema} for row in rows], schema=schema)


def tables(**rows: list[Row]) -> dict[str, pa.Table]:
    """Contract tables by name, with `__` for the dot: `tables(tolaria__system_state=[...])`."""
    return {name.replace("__", "."): table(name.replace("__", "."), own) for name, own in rows.items()}


def registries(**words: list[str]) -> Registries:
    """Registries with their seeded keys and these `words`, in this order."""
    found = {}
    for name, spec in REGISTRIES.items():
        entries = {word: place for place, word in enumerate([*spec.seeded, *words.get(name, [])], 1)}
        found[name] = Registry(spec, entries, 1, registry_digest(entries))
    return Registries(found)


class FixedNorms:
    """The default priors, as norms."""

    priors = DEFAULT_PRIORS


def packet(step: int, run: str = "run-a", **more: Any) -> Row:
    """A system_state row `step` seconds after START."""
    metrics = {"loss": 0.5 + step / 10, "gradient_norm": 2.0, "samples_per_s": 4000.0, "hook_latency_ms": 6.0}
    row: Row = {
        "training_run_id": run,
        "packet_id": f"{run}-{step}",
        "timestamp_ns": START + step * 10**9,
        "global_step": step,
        "is_completion": False,
        "blueprint_id": "host",
        "training_metrics": list({**metrics, "latency_budget_ms": 12.0}.items()),
    }
    return {**row, **more}


def of_packet(step: int, run: str = "run-a", **more: Any) -> Row:
    """Columns of a telemetry row of that packet."""
    own = packet(step, run)
    return {name: own[name] for name in ("training_run_id", "packet_id", "timestamp_ns", "global_step")} | more


def small_world(steps: int = 3) -> dict[str, pa.Table]:
    """A run of `steps` packets on one host: 2 layers, 2 activations, 1 parameter group, 1 seed with a kernel."""
    host = {"blueprint_id": "host"}
    both = range(steps)
    return tables(
        tolaria__system_state=[packet(step) for step in both],
        tolaria__layer_telemetry=[
            of_packet(step, layer_id=layer, loss=0.4, gradient_norm=1.0, gradient_variance=0.25, weight_norm=3.0)
            for step in both
            for layer in ("fc1", "fc2")
        ],
        tolaria__activation_telemetry=[
            of_packet(step, activation_id="act1", saturation_rate=0.25, saturation_events=3.0, activation_frequency=1.0)
            for step in both
        ],
        tolaria__parameter_telemetry=[
            of_packet(step, parameter_id="group0", optimizer_family="SGD", learning_rate=0.1, update_magnitude=-0.5)
            for step in both
        ],
        tolaria__connection_telemetry=[
            of_packet(step, source_layer_id="fc1", target_layer_id="fc2", data_flow_volume=64.0, latency_ms=0.5)
            for step in both
        ],
        kasmina__seed_state=[
            {
                "training_run_id": "run-a",
                "seed_id": "seed-1",
                "timestamp_ns": START,
                "source": "export",
                "stage": "TRAINING",
                "blueprint_id": "kernel-linear",
                "monitored_layers": ["fc2"],
                "monitoring_frequency": 0.5,
                "alpha": 0.25,
                "capabilities_allowed_blending_methods": ["linear", "cosine"],
                "capabilities_allowed_optimizer_families": ["sgd"],
                "capabilities_isolation_exemptions": [],
            }
        ],
        urza__blueprint=[
            {**host, "descriptor_tier": "SAFE", "descriptor_risk": 0.1, "descriptor_stage": 0, "optimizer_family": "sgd"},
            {"blueprint_id": "kernel-linear", "descriptor_tier": "EXPERIMENTAL", "descriptor_quarantine_only": False},
        ],
        urza__layer=[
            {**host, "index": 0, "layer_id": "fc1", "type": "linear", "input_channels": 8, "output_channels": 4}
            | {"activation_type": "relu", "is_placeholder": False},
            {**host, "index": 1, "layer_id": "fc2", "type": "linear", "input_channels": 4, "output_channels": 2}
            | {"activation_type": "none", "is_placeholder": False},
        ],
        urza__activation=[
            {**host, "index": 0, "activation_id": "act1", "type": "relu", "layer_id": "fc1", "is_placeholder": False},
            {**host, "index": 1, "activation_id": "act2", "type": "none", "layer_id": "fc2", "is_placeholder": False},
        ],
        urza__parameter=[
            {**host, "index": 0, "parameter_id": "group0", "parameter_count": 50, "layer_ids": ["fc1", "fc2"], "target": "w"}
        ],
        urza__connection=[
            {**host, "source_layer_id": "fc1", "target_layer_id": "fc2", "connection_strength": 2.0, "residual_flag": False}
        ],
        urza__activation_parameter=[
            {**host, "activation_id": "act1", "parameter_id": "group0", "influence": 0.5, "magnitude": 1.0, "effect": -1.0}
        ],
        urabrask__bsds=[
            {"blueprint_id": name, "issued_at_ns": START, "source": "bsds", "risk_score": risk, "hazard_band": "LOW"}
            | {"handling_class": "STANDARD", "resource_profile": "CPU", "recommendation": note, "cooldown_ms": 10.0}
            for name, risk, note in (("host", 0.2, None), ("kernel-linear", 0.3, "slowly"))
        ],
        tezzeret__kernel=[{"blueprint_id": "host", "issued_at_ns": START, "source": "update", "status": "COMPILED"}],
        weatherlight__health=[
            {"packet_id": "w0", "timestamp_ns": START, "status": "HEALTHY", "unhealthy_indicators": 0}
            | {"cpu_utilisation": 50.0, "conservative_mode": False, "sla_breaches": 0.0}
        ],
    )


def altered(world: dict[str, pa.Table], name: str, **columns: Any) -> dict[str, pa.Table]:
    """The world with other values in all rows of one table."""
    rows = [{**row, **columns} for row in world[name].to_pylist()]
    return {**world, name: pa.Table.from_pylist(rows, schema=world[name].schema)}
