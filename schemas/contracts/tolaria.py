"""Declare Tolaria's tables: packets of training steps, and the telemetry of layers, activations and other elements in them."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import FLOATS, Column, Folder, Presence, Table, known

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F32: Final = pa.float32()

SYSTEM_STATE: Final = Table(
    name="tolaria.system_state",
    description="One row a training step of a host run, completion markers flagged.",
    key=("training_run_id", "packet_id", "timestamp_ns"),
    event_time="timestamp_ns",
    scope="training_run_id",
    message="SystemStatePacket",
    warnings=(known("blueprint_id", "urza.blueprint", "blueprint_id", "The host model's graph has an Urza record."),),
    columns=(
        Column("training_run_id", _TEXT, "The host run.", nullable=False),
        Column("packet_id", _TEXT, "The packet, unique within its run.", nullable=False),
        Column("timestamp_ns", _INT, "Event time.", "ns since 1970", nullable=False),
        Column("version", _INT, "Version of the contract that the producer speaks."),
        Column("current_epoch", _INT, "Epoch of training.", "epochs", Presence.ZERO_OK),
        Column("global_step", _INT, "Optimizer steps so far.", "steps", Presence.ZERO_OK),
        Column("training_loss", _F32, "Loss of the step's batch."),
        Column("validation_loss", _F32, "Loss on the validation split."),
        Column("validation_accuracy", _F32, "Accuracy on the validation split.", "ratio"),
        Column("source_subsystem", _TEXT, "Who sent the packet."),
        Column("experiment_name", _TEXT, "`<data set>/<architecture>` of a recorded run."),
        Column("blueprint_id", _TEXT, "The host model's graph in Urza."),
        Column("hardware_context_device_type", _TEXT, "cuda or cpu.", path="hardware_context.device_type"),
        Column("hardware_context_device_id", _TEXT, "Which device.", path="hardware_context.device_id"),
        Column("hardware_context_total_memory_gb", _F32, "Memory.", "GB", path="hardware_context.total_memory_gb"),
        Column("hardware_context_available_memory_gb", _F32, "Free memory.", "GB", path="hardware_context.available_memory_gb"),
        Column(
            "hardware_context_temperature_celsius", _F32, "Temperature.", "Celsius", path="hardware_context.temperature_celsius"
        ),
        Column(
            "hardware_context_utilization_percent",
            _F32,
            "Utilisation of the device named by device_type.",
            "percent",
            path="hardware_context.utilization_percent",
        ),
        Column("hardware_context_compute_capability", _INT, "CUDA capability.", path="hardware_context.compute_capability"),
        Column("training_metrics", FLOATS, "Step metrics by name (contracts.md section 7); every other name is kept."),
        Column(
            "is_completion",
            pa.bool_(),
            "A completion marker: kept, never a training state.",
            presence=Presence.DERIVED,
            nullable=False,
        ),
    ),
)


def _of_packet() -> tuple[Column, ...]:
    """Return the columns that an element inside a packet takes from the packet itself."""
    derived = Presence.DERIVED
    return (
        Column("training_run_id", _TEXT, "The packet's run.", presence=derived, nullable=False),
        Column("packet_id", _TEXT, "The packet.", presence=derived, nullable=False),
        Column("timestamp_ns", _INT, "The packet's event time.", "ns since 1970", derived, nullable=False),
        Column("global_step", _INT, "The packet's step.", "steps", derived),
    )


def _measured(name: str, description: str, unit: str = "", low: float | None = None, high: float | None = None) -> Column:
    """Return the column of an `optional float`, which is present if sent, even as zero."""
    return Column(name, _F32, description, unit, Presence.EXPLICIT, low=low, high=high)


def _telemetry(short: str, what: str, ids: tuple[str, ...], message: str, columns: tuple[Column, ...]) -> Table:
    """Return the table of one kind of element inside packets, keyed by the packet's key and the element's id(s)."""
    keys = tuple(Column(name, _TEXT, f"{name} of the {what}.", nullable=False) for name in ids)
    return Table(
        name=f"tolaria.{short}",
        description=f"One row a {what} and packet. Every number is optional; missing is missing.",
        key=("training_run_id", "packet_id", "timestamp_ns", *ids),
        event_time="timestamp_ns",
        scope="training_run_id",
        message=message,
        columns=(*_of_packet(), *keys, *columns),
    )


LAYER_TELEMETRY: Final = _telemetry(
    "layer_telemetry",
    "layer",
    ("layer_id",),
    "LayerTelemetry",
    (
        _measured("loss", "Loss attributed to the layer."),
        _measured("gradient_norm", "Norm of the layer's gradient."),
        _measured("gradient_variance", "Variance of the layer's gradient."),
        _measured("weight_norm", "Norm of the layer's weights."),
        _measured("samples_per_s", "Throughput.", "1/s"),
        _measured("hook_latency_ms", "Time spent in the layer's hooks.", "ms"),
        _measured("latency_budget_ms", "What those hooks may take.", "ms"),
        _measured("update_frequency", "Share of steps in the interval in which the weights moved.", "ratio", 0.0, 1.0),
        _measured("update_magnitude", "Norm of the update over norm of the weights.", "ratio"),
    ),
)

ACTIVATION_TELEMETRY: Final = _telemetry(
    "activation_telemetry",
    "activation",
    ("activation_id",),
    "ActivationTelemetry",
    (
        _measured("saturation_rate", "Share of saturated outputs.", "ratio", 0.0, 1.0),
        _measured("saturation_events", "Saturations in the interval.", "count"),
        _measured("gradient_flow", "Norm of the gradient out over norm of the gradient in.", "ratio"),
        _measured("gradient_contribution", "Contribution to the gradient of what follows."),
        _measured("nonlinearity_strength", "How far from linear the activation works."),
        _measured("stability", "Stability of the non-linearity.", "ratio", 0.0, 1.0),
        _measured("activation_frequency", "Calls per step.", "1/step"),
    ),
)

PARAMETER_TELEMETRY: Final = _telemetry(
    "parameter_telemetry",
    "optimizer parameter group",
    ("parameter_id",),
    "ParameterTelemetry",
    (
        Column("optimizer_family", _TEXT, "sgd, adam, ..."),
        _measured("learning_rate", "Learning rate."),
        _measured("momentum", "Momentum."),
        _measured("gradient_variance", "Variance of the group's gradient."),
        _measured("convergence_rate", "Estimate of the convergence rate."),
        _measured("update_magnitude", "Norm of the update over norm of the weights.", "ratio"),
    ),
)

CONNECTION_TELEMETRY: Final = _telemetry(
    "connection_telemetry",
    "connection",
    ("source_layer_id", "target_layer_id"),
    "ConnectionTelemetry",
    (
        _measured("data_flow_volume", "Data that flows through the connection.", "bytes/step"),
        _measured("latency_ms", "Latency of the connection.", "ms"),
    ),
)

TABLES: Final = (SYSTEM_STATE, LAYER_TELEMETRY, ACTIVATION_TELEMETRY, PARAMETER_TELEMETRY, CONNECTION_TELEMETRY)

FOLDERS: Final = (
    Folder(
        path="tolaria/system_state",
        description="SystemStatePacket, one a training step.",
        tables=(*(table.name for table in TABLES), "kasmina.seed_state"),
        messages=("SystemStatePacket",),
    ),
)
