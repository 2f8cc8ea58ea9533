"""Declare Urza's tables: blueprints, their descriptors, and the graphs of their layers, activations and parameters."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import STRINGS, Column, Folder, Presence, Table

GUARD: Final = "guard_tensor"  # type of a layer that is a placeholder
_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F32: Final = pa.float32()
_F64: Final = pa.float64()
_BOOL: Final = pa.bool_()
_SENT: Final = Presence.EXPLICIT
_KEY: Final = Column("blueprint_id", _TEXT, "The blueprint.", presence=_SENT, nullable=False)
_INDEX: Final = Column("index", _INT, "Position in the record's list.", presence=_SENT, nullable=False)
_EXPORTED: Final = Column("exported_at_ns", _INT, "When the record was exported; NULL: by arrival.", "ns since 1970", _SENT)
_PLACEHOLDER: Final = Column(
    "is_placeholder", _BOOL, "A `guard_tensor` layer or an activation of one: no measurement.", presence=_SENT, nullable=False
)

BOUNDS: Final = pa.map_(pa.string(), pa.struct([("min_value", _F64), ("max_value", _F64)]))
MONITORS: Final = pa.list_(pa.struct([("seed", _TEXT), ("layer_id", _TEXT), ("weight", _F64)]))
THRESHOLDS: Final = pa.map_(pa.string(), _F64)


def _number(name: str, description: str, unit: str = "") -> Column:
    """Return the column of a number in a plain JSON graph; a key that is written is present, even if zero."""
    return Column(name, _F64, description, unit, _SENT)


def _count(name: str, description: str, unit: str = "") -> Column:
    """Return the column of a whole number in a plain JSON graph."""
    return Column(name, _INT, description, unit, _SENT)


def _word(name: str, description: str, nullable: bool = True) -> Column:
    """Return the column of a string in a plain JSON graph."""
    return Column(name, _TEXT, description, presence=_SENT, nullable=nullable)


def _table(short: str, description: str, key: tuple[str, ...], columns: tuple[Column, ...]) -> Table:
    """Return the table of one kind of element in a blueprint's graph."""
    return Table(
        name=f"urza.{short}",
        description=description,
        key=("blueprint_id", "exported_at_ns", *key),
        nullable_key=("exported_at_ns",),
        event_time="exported_at_ns",
        by_arrival=True,
        columns=(_KEY, *columns, _EXPORTED),
    )


BLUEPRINT: Final = _table(
    "blueprint",
    "One row a record of a blueprint: descriptor, optimizer, resource tier, compile times, what monitors it.",
    (),
    (
        Column("descriptor_blueprint_id", _TEXT, "The descriptor's own id.", path="descriptor.blueprint_id"),
        Column("descriptor_name", _TEXT, "Name.", path="descriptor.name"),
        Column("descriptor_tier", _TEXT, "Tier.", path="descriptor.tier", enum="BlueprintTier"),
        Column("descriptor_allowed_parameters", BOUNDS, "Bounds by parameter.", path="descriptor.allowed_parameters"),
        Column("descriptor_risk", _F32, "Catalogue risk.", "ratio", Presence.ZERO_OK, path="descriptor.risk"),
        Column("descriptor_stage", _INT, "Catalogue stage.", "", Presence.ZERO_OK, path="descriptor.stage"),
        Column(
            "descriptor_quarantine_only",
            _BOOL,
            "Only under quarantine.",
            presence=Presence.ZERO_OK,
            path="descriptor.quarantine_only",
        ),
        Column(
            "descriptor_approval_required",
            _BOOL,
            "Needs approval.",
            presence=Presence.ZERO_OK,
            path="descriptor.approval_required",
        ),
        Column("descriptor_description", _TEXT, "Description.", path="descriptor.description"),
        _word("optimizer_family", "Optimizer family, as written."),
        _number("optimizer_learning_rate", "Learning rate."),
        _number("optimizer_momentum", "Momentum."),
        _number("optimizer_gradient_variance", "Gradient variance."),
        Column("resource_tier", _TEXT, "Resource profile.", presence=_SENT, enum="ResourceProfile"),
        _number("compile_ms", "Compile time.", "ms"),
        _number("prewarm_ms", "Prewarm time.", "ms"),
        _word("compile_strategy", "Compile strategy."),
        Column("eager_fallback", _BOOL, "Whether the kernel fell back to eager.", presence=_SENT),
        Column("monitors", MONITORS, "Which seed monitors which layer, with its weight.", presence=_SENT),
        Column("monitor_thresholds", THRESHOLDS, "Adaptation trigger threshold by seed.", presence=_SENT),
        Column("capabilities_allowed_blending_methods", STRINGS, "NULL: not said; empty: none.", presence=_SENT),
    ),
)

LAYER: Final = _table(
    "layer",
    "One row a layer of a record's graph.",
    ("layer_id",),
    (
        _INDEX,
        _word("layer_id", "The layer.", nullable=False),
        _word("type", "Layer type; `guard_tensor` is a placeholder."),
        _count("depth", "Depth in the graph.", "layers"),
        _count("input_channels", "Channels in.", "channels"),
        _count("output_channels", "Channels out.", "channels"),
        _word("activation_type", "Activation type (`activation` or `activation_type`); `none` is measured."),
        _number("dropout_rate", "Dropout rate.", "ratio"),
        _number("weight_norm", "Norm of the weights."),
        _number("gradient_norm", "Norm of the gradient."),
        _number("latency_ms", "Latency.", "ms"),
        _count("parameter_count", "Parameters.", "count"),
        _PLACEHOLDER,
    ),
)

ACTIVATION: Final = _table(
    "activation",
    "One row an activation of a record's graph.",
    ("activation_id",),
    (
        _INDEX,
        _word("activation_id", "The activation.", nullable=False),
        _word("type", "Activation type."),
        _word("layer_id", "The layer before it."),
        _number("saturation_rate", "Share of saturated outputs.", "ratio"),
        _number("gradient_flow", "Norm of the gradient out over norm of the gradient in.", "ratio"),
        _number("computational_cost", "Cost.", "operations"),
        _number("nonlinearity_strength", "How far from linear the activation works."),
        _PLACEHOLDER,
    ),
)

PARAMETER: Final = _table(
    "parameter",
    "One row a parameter of a record's graph.",
    ("parameter_id",),
    (
        _INDEX,
        _word("parameter_id", "The parameter.", nullable=False),
        _word("name", "Name."),
        _count("parameter_count", "Scalars.", "count"),
        Column("layer_ids", STRINGS, "Layers that it tunes.", presence=_SENT),
        _number("min", "Lower bound."),
        _number("max", "Upper bound."),
        _number("span", "Width of its range."),
        _number("default", "Default value."),
        _word("target", "What it targets."),
    ),
)

CONNECTION: Final = _table(
    "connection",
    "One row a directed connection of two layers.",
    ("source_layer_id", "target_layer_id"),
    (
        _word("source_layer_id", "From.", nullable=False),
        _word("target_layer_id", "To.", nullable=False),
        _number("connection_strength", "Strength."),
        Column("residual_flag", _BOOL, "Whether it is a residual connection.", presence=_SENT),
    ),
)

ACTIVATION_PARAMETER: Final = _table(
    "activation_parameter",
    "One row an influence of an activation on a parameter.",
    ("activation_id", "parameter_id"),
    (
        _word("activation_id", "The activation.", nullable=False),
        _word("parameter_id", "The parameter.", nullable=False),
        _number("influence", "Influence.", "ratio"),
        _number("magnitude", "Magnitude."),
        _number("effect", "Effect, signed."),
    ),
)

TABLES: Final = (BLUEPRINT, LAYER, ACTIVATION, PARAMETER, CONNECTION, ACTIVATION_PARAMETER)

FOLDERS: Final = (
    Folder(
        path="urza/blueprint",
        description="Urza records: descriptor, optimizer, graph, and the BSDS and compile times inside them.",
        tables=(*(table.name for table in TABLES), "urabrask.bsds", "tezzeret.kernel"),
        extensions=(".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet"),
    ),
)
