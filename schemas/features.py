"""Declare the graph: every node feature, relation and edge attribute, once, as data.

The tensor layout, the masks, the manifest, the coverage keys, the feature tables, the reference page and the tests all
derive from `NODE_TYPES` and `RELATIONS`. To add a feature, add one row, and a function in `gnn.join.derived` if it is derived.
"""

from dataclasses import replace
from typing import Final

from schemas.feature_nodes import CONTEXT as CONTEXT
from schemas.feature_nodes import LAYER as LAYER
from schemas.feature_nodes import NODE_TYPES as NODE_TYPES
from schemas.feature_nodes import PARAMETER as PARAMETER
from schemas.feature_nodes import SEED as SEED
from schemas.feature_rows import (
    ACTIVATION_TELEMETRY,
    BLUEPRINT_RECORD,
    CONNECTION_TELEMETRY,
    PARAMETER_TELEMETRY,
    SEED_STATE,
    categorical,
    flag,
    multi_hot,
    numeric,
)
from schemas.feature_types import Feature as Feature
from schemas.feature_types import FeatureGroup as FeatureGroup
from schemas.feature_types import Kind as Kind
from schemas.feature_types import NodeType as NodeType
from schemas.feature_types import Relation as Relation
from schemas.feature_types import Transform as Transform

_OF_CONTEXT: Final = {feature.name: replace(feature, note="of the context node") for feature in CONTEXT.features}
_BROADCAST: Final = (_OF_CONTEXT["latency_budget_utilisation"], _OF_CONTEXT["conservative_mode"])

RELATIONS: Final[tuple[Relation, ...]] = (
    Relation(
        source="layer",
        name="connects",
        target="layer",
        doc="Data flows from one layer to the next.",
        features=(
            numeric("connection_strength", "urza", (("urza.connection", "connection_strength"),), Transform.GRAPH_MAX),
            numeric("data_flow_volume", "tolaria", ((CONNECTION_TELEMETRY, "data_flow_volume"),), Transform.GRAPH_MAX),
            numeric("latency_ms", "tolaria", ((CONNECTION_TELEMETRY, "latency_ms"),), Transform.GRAPH_MAX),
            flag("residual_flag", "urza", (("urza.connection", "residual_flag"),)),
        ),
    ),
    Relation(
        source="layer",
        name="activates",
        target="activation",
        doc="A layer feeds its activation.",
        features=(
            numeric("activation_frequency", "tolaria", ((ACTIVATION_TELEMETRY, "activation_frequency"),), Transform.LOG1P),
            numeric("saturation_events", "tolaria", ((ACTIVATION_TELEMETRY, "saturation_events"),), Transform.LOG1P),
        ),
    ),
    Relation(
        source="activation",
        name="affects",
        target="layer",
        doc="An activation reaches its layer's successors in `connects`, or that layer itself where it has none.",
        features=(
            numeric("gradient_contribution", "tolaria", ((ACTIVATION_TELEMETRY, "gradient_contribution"),), Transform.LOG1P),
            numeric(
                "nonlinearity_strength",
                "tolaria",
                ((ACTIVATION_TELEMETRY, "nonlinearity_strength"), ("urza.activation", "nonlinearity_strength")),
                Transform.LOG1P,
            ),
        ),
    ),
    Relation(
        source="activation",
        name="configures",
        target="parameter",
        doc="An activation shapes what a parameter group learns.",
        features=(numeric("influence", "urza", (("urza.activation_parameter", "influence"),), Transform.CLAMP01),),
    ),
    Relation(
        source="parameter",
        name="modulates",
        target="activation",
        doc="A parameter group moves an activation.",
        features=(
            numeric("magnitude", "urza", (("urza.activation_parameter", "magnitude"),), Transform.SIGNED_LOG1P),
            numeric("effect", "urza", (("urza.activation_parameter", "effect"),), Transform.SIGNED_LOG1P),
        ),
    ),
    Relation(
        source="parameter",
        name="targets",
        target="blueprint",
        doc="A parameter group belongs to its blueprint, with what it targets there.",
        features=(categorical("target", "urza", (("urza.parameter", "target"),), registry="parameter_target"),),
    ),
    Relation(
        source="parameter",
        name="tunes",
        target="layer",
        doc="A parameter group holds a layer's weights.",
        features=(
            numeric("update_magnitude", "tolaria", ((PARAMETER_TELEMETRY, "update_magnitude"),), Transform.SIGNED_LOG1P),
            numeric("convergence_rate", "tolaria", ((PARAMETER_TELEMETRY, "convergence_rate"),), Transform.SIGNED_LOG1P),
        ),
    ),
    Relation(
        source="seed",
        name="monitors",
        target="layer",
        doc="A seed watches a layer.",
        features=(
            numeric("monitoring_frequency", "kasmina", ((SEED_STATE, "monitoring_frequency"),), Transform.CLAMP01),
            numeric(
                "adaptation_trigger_threshold",
                "kasmina",
                ((SEED_STATE, "adaptation_trigger_threshold"), (BLUEPRINT_RECORD, "monitor_thresholds")),
                Transform.CLAMP01,
                derive="adaptation_trigger_threshold",
                note="the seed's, else the host blueprint's for that seed",
            ),
            flag(
                "quarantine_flag",
                "kasmina",
                ((SEED_STATE, "quarantine_only"), (BLUEPRINT_RECORD, "descriptor_quarantine_only")),
                note="the seed's quarantine_only",
            ),
        ),
    ),
    Relation(
        source="seed",
        name="allowed",
        target="parameter",
        doc="A seed's capabilities are known and admit the parameter group's optimizer family.",
        features=(
            multi_hot(
                "blending_methods",
                "kasmina",
                ((SEED_STATE, "capabilities_allowed_blending_methods"),),
                registry="schedule",
                width=16,
            ),
            multi_hot(
                "optimizer_families",
                "kasmina",
                ((SEED_STATE, "capabilities_allowed_optimizer_families"),),
                registry="optimizer_family",
                width=16,
            ),
        ),
    ),
    Relation(
        source="context",
        name="conditions",
        target="layer",
        doc="The system's state reaches every layer.",
        features=_BROADCAST,
    ),
    Relation(
        source="context",
        name="conditions",
        target="seed",
        doc="The system's state reaches every seed.",
        features=_BROADCAST,
    ),
)

GROUPS: Final[tuple[NodeType | Relation, ...]] = (*NODE_TYPES, *RELATIONS)
FAMILIES: Final[tuple[str, ...]] = tuple(group.family for group in GROUPS)
COVERAGE_KEYS: Final[tuple[str, ...]] = tuple(group.key(f) for group in GROUPS for f in group.features)
EWMA_METRICS: Final[tuple[str, ...]] = ("loss", "gradient_norm", "samples_per_s", "hook_latency_ms")
PRIOR_METRICS: Final[tuple[str, ...]] = ("parameter_count", "learning_rate", "momentum", "gradient_variance")


def node_type(name: str) -> NodeType:
    """Return the node type of that name. Raises KeyError if there is none."""
    return {n.name: n for n in NODE_TYPES}[name]


def relation(short: str) -> Relation:
    """Return the relation of that short name (`layer_connects`, `context_seed`). Raises KeyError if there is none."""
    return {r.short: r for r in RELATIONS}[short]
