"""The feature declaration: every node feature, relation and edge attribute of the graph, declared once, as data.

The tensor layout, the masks, the manifest, the coverage keys, the feature tables, the reference page and the tests all
derive from `NODE_TYPES` and `RELATIONS`. Adding a feature is adding one row here (and its source in the encoder).
"""

from typing import Final

from schemas.feature_types import Feature as Feature
from schemas.feature_types import FeatureGroup as FeatureGroup
from schemas.feature_types import Kind as Kind
from schemas.feature_types import NodeType as NodeType
from schemas.feature_types import Relation as Relation
from schemas.feature_types import Transform as Transform


def _numeric(
    name: str,
    system: str,
    source: str,
    transform: Transform,
    *,
    mandatory: bool = False,
    neutral: float = 0.0,
    metric: str | None = None,
) -> Feature:
    return Feature(name, Kind.NUMERIC, system, source, transform, mandatory, neutral, metric=metric)


def _ewma(metric: str, *, source: str = "tolaria.layer_telemetry, else tolaria.system_state", name: str = "") -> Feature:
    return _numeric(name or metric, "tolaria", source, Transform.EWMA, mandatory=True, metric=metric)


def _log_z(metric: str, system: str, source: str, *, mandatory: bool = False) -> Feature:
    return _numeric(metric, system, source, Transform.LOG_Z, mandatory=mandatory, metric=metric)


def _categorical(name: str, system: str, source: str, *, registry: str = "", mandatory: bool = False) -> Feature:
    return Feature(name, Kind.CATEGORICAL, system, source, mandatory=mandatory, registry=registry or name)


def _multi_hot(name: str, system: str, source: str, *, registry: str, width: int) -> Feature:
    return Feature(name, Kind.MULTI_HOT, system, source, registry=registry, width=width)


def _flag(name: str, system: str, source: str) -> Feature:
    return Feature(name, Kind.FLAG, system, source)


def _grafting_strategies(whose: str) -> Feature:
    source = f"urabrask.bsds {whose}"
    return _multi_hot("grafting_strategies", "urabrask", source, registry="grafting_strategy", width=32)


_HOST: Final = "(newest of the host blueprint)"
_ATTACHED: Final = "(newest of the attached blueprint)"
_BUDGET: Final = "hook_latency_ms / latency_budget_ms"

LAYER: Final = NodeType(
    name="layer",
    doc="A layer of the host network.",
    features=(
        _categorical("layer_type", "urza", "urza.layer type", mandatory=True),
        _numeric("input_channels", "urza", "urza.layer", Transform.LOG1P, mandatory=True),
        _numeric("output_channels", "urza", "urza.layer", Transform.LOG1P, mandatory=True),
        _categorical("activation_type", "urza", "urza.layer", mandatory=True),
        _numeric("dropout_rate", "urza", "urza.layer", Transform.CLAMP01),
        _numeric("weight_norm", "tolaria", "tolaria.layer_telemetry, else urza.layer", Transform.LOG1P),
        _numeric("update_frequency", "tolaria", "tolaria.layer_telemetry", Transform.CLAMP01),
        _ewma("loss"),
        _ewma("gradient_norm"),
        _ewma("samples_per_s"),
        _ewma("hook_latency_ms"),
        _numeric("bsds_risk_score", "urabrask", f"urabrask.bsds risk_score {_HOST}", Transform.CLAMP01, mandatory=True),
        _categorical("hazard_band", "urabrask", f"urabrask.bsds {_HOST}", registry="hazard_class", mandatory=True),
        _categorical("handling_class", "urabrask", f"urabrask.bsds {_HOST}"),
        _grafting_strategies(_HOST),
        _categorical(
            "resource_tier",
            "urza",
            f"urza.blueprint resource_tier (of the host), else urabrask.bsds resource_profile {_HOST}",
            registry="resource_profile",
        ),
        _categorical("gradient_instability", "tolaria", "derived: gradient_norm against the run's EWMA mean before"),
        _numeric("gradient_variance", "tolaria", "tolaria.layer_telemetry", Transform.LOG_VAR),
        _numeric(
            "latency_budget_utilisation", "tolaria", f"derived: {_BUDGET}, the layer's else the packet's", Transform.CLAMP4
        ),
    ),
)

SEED: Final = NodeType(
    name="seed",
    doc="A seed of the run: a candidate site with its lifecycle, capabilities and attached blueprint.",
    features=(
        _categorical("seed_id", "kasmina", "kasmina.seed_state", registry="seed", mandatory=True),
        _numeric(
            "monitoring_scope",
            "kasmina",
            "derived: number of kasmina.seed_state monitored_layers",
            Transform.LOG1P,
            mandatory=True,
        ),
        _categorical("lifecycle_stage", "kasmina", "kasmina.seed_state stage", mandatory=True),
        _categorical("policy_version", "kasmina", "kasmina.seed_state"),
        _numeric("activity_level", "kasmina", "kasmina.seed_state", Transform.CLAMP01, neutral=0.5),
        _numeric("success_rate", "kasmina", "kasmina.seed_state", Transform.CLAMP01, neutral=0.5),
        _numeric("risk_tolerance", "kasmina", "kasmina.seed_state", Transform.CLAMP01, neutral=0.5),
        _numeric("alpha", "kasmina", "kasmina.seed_state", Transform.CLAMP01, mandatory=True),
        _categorical("alpha_schedule", "kasmina", "kasmina.seed_state alpha_schedule_method", registry="schedule"),
        _numeric("alpha_total_steps", "kasmina", "kasmina.seed_state alpha_schedule_total_steps", Transform.LOG1P),
        _numeric("alpha_temperature", "kasmina", "kasmina.seed_state alpha_schedule_temperature", Transform.LOG1P),
        _flag(
            "quarantine_only",
            "kasmina",
            "kasmina.seed_state, else urza.blueprint descriptor_quarantine_only (of the attached blueprint)",
        ),
        _multi_hot(
            "allowed_blending_methods",
            "kasmina",
            "kasmina.seed_state capabilities_allowed_blending_methods",
            registry="schedule",
            width=16,
        ),
        _multi_hot(
            "allowed_optimizer_families",
            "kasmina",
            "kasmina.seed_state capabilities_allowed_optimizer_families",
            registry="optimizer_family",
            width=16,
        ),
        _multi_hot(
            "isolation_exemptions",
            "kasmina",
            "kasmina.seed_state capabilities_isolation_exemptions",
            registry="isolation_exemption",
            width=16,
        ),
        _categorical("blueprint_tier", "urza", "urza.blueprint descriptor_tier (of the attached blueprint)"),
        _numeric("bsds_risk_score", "urabrask", f"urabrask.bsds risk_score {_ATTACHED}", Transform.CLAMP01),
        _categorical("hazard_band", "urabrask", f"urabrask.bsds {_ATTACHED}", registry="hazard_class"),
        _categorical("handling_class", "urabrask", f"urabrask.bsds {_ATTACHED}"),
        _grafting_strategies(_ATTACHED),
        _flag("has_handling_notes", "urabrask", f"derived: urabrask.bsds recommendation {_ATTACHED}"),
    ),
)

ACTIVATION: Final = NodeType(
    name="activation",
    doc="An activation of the host network.",
    features=(
        _categorical("activation_type", "urza", "urza.activation type", mandatory=True),
        _numeric("saturation_rate", "tolaria", "tolaria.activation_telemetry, else urza.activation", Transform.CLAMP01),
        _numeric("gradient_flow", "tolaria", "tolaria.activation_telemetry, else urza.activation", Transform.LOG1P),
        _numeric("computational_cost", "urza", "urza.activation", Transform.LOG1P),
        _numeric("saturation_events", "tolaria", "tolaria.activation_telemetry", Transform.LOG1P),
        _numeric("stability", "tolaria", "tolaria.activation_telemetry", Transform.CLAMP01),
    ),
)

PARAMETER: Final = NodeType(
    name="parameter",
    doc="An optimizer parameter group of the host network.",
    features=(
        _log_z("parameter_count", "urza", "urza.parameter", mandatory=True),
        _log_z(
            "learning_rate",
            "tolaria",
            "tolaria.parameter_telemetry, else urza.blueprint optimizer_learning_rate",
            mandatory=True,
        ),
        _log_z("momentum", "tolaria", "tolaria.parameter_telemetry, else urza.blueprint optimizer_momentum"),
        _log_z("gradient_variance", "tolaria", "tolaria.parameter_telemetry, else urza.blueprint optimizer_gradient_variance"),
        _categorical(
            "optimizer_family",
            "tolaria",
            "tolaria.parameter_telemetry, else urza.blueprint optimizer_family",
            mandatory=True,
        ),
        _numeric("convergence_rate", "tolaria", "tolaria.parameter_telemetry", Transform.SIGNED_LOG1P),
        _numeric("update_magnitude", "tolaria", "tolaria.parameter_telemetry", Transform.SIGNED_LOG1P),
        _categorical("compile_status", "tezzeret", f"tezzeret.kernel status {_HOST}"),
        _categorical("resource_profile", "urabrask", f"urabrask.bsds {_HOST}"),
        _numeric("cooldown_ms", "urabrask", f"urabrask.bsds {_HOST}", Transform.LOG1P),
    ),
)

BLUEPRINT: Final = NodeType(
    name="blueprint",
    doc="The host's blueprint, and each one attached to a seed.",
    features=(
        _categorical(
            "blueprint_id", "urza", "derived: the packet's or the seed's blueprint_id", registry="blueprint", mandatory=True
        ),
        _categorical("tier", "urza", "urza.blueprint descriptor_tier", registry="blueprint_tier", mandatory=True),
        _categorical("hazard_band", "urabrask", "urabrask.bsds (newest)", registry="hazard_class"),
        _numeric(
            "risk",
            "urabrask",
            "urabrask.bsds risk_score (newest), else urza.blueprint descriptor_risk",
            Transform.CLAMP01,
            mandatory=True,
        ),
        _numeric("stage", "urza", "urza.blueprint descriptor_stage", Transform.LOG1P),
        _flag("quarantine_only", "urza", "urza.blueprint descriptor_quarantine_only"),
        _flag("approval_required", "urza", "urza.blueprint descriptor_approval_required"),
    ),
)

CONTEXT: Final = NodeType(
    name="context",
    doc="The one node of the system's state at the packet's time.",
    features=(
        _numeric(
            "rolling_loss", "tolaria", "derived: the run's EWMA mean of loss before", Transform.LOSS_PRIOR, mandatory=True
        ),
        _ewma("samples_per_s", source="tolaria.system_state samples_per_s", name="throughput"),
        _numeric(
            "gpu_utilisation",
            "tolaria",
            "tolaria.system_state (hardware_context or training_metrics), else weatherlight.health",
            Transform.PERCENT,
        ),
        _numeric(
            "cpu_utilisation",
            "tolaria",
            "tolaria.system_state (hardware_context or training_metrics), else weatherlight.health",
            Transform.PERCENT,
        ),
        _flag("conservative_mode", "weatherlight", "derived: weatherlight.health and Tamiyo's telemetry, the newest of both"),
        _categorical("health_status", "weatherlight", "weatherlight.health status"),
        _numeric("unhealthy_indicators", "weatherlight", "weatherlight.health", Transform.LOG1P),
        _numeric("sla_breaches", "weatherlight", "weatherlight.health", Transform.LOG1P),
        _numeric("latency_budget_utilisation", "tolaria", f"derived: {_BUDGET} of the packet", Transform.CLAMP4),
    ),
)

NODE_TYPES: Final[tuple[NodeType, ...]] = (LAYER, SEED, ACTIVATION, PARAMETER, BLUEPRINT, CONTEXT)


def _broadcast() -> tuple[Feature, ...]:
    return (
        _numeric("latency_budget_utilisation", "tolaria", "derived: the context's", Transform.CLAMP4),
        _flag("conservative_mode", "weatherlight", "derived: the context's"),
    )


RELATIONS: Final[tuple[Relation, ...]] = (
    Relation(
        source="layer",
        name="connects",
        target="layer",
        doc="Data flows from one layer to the next.",
        features=(
            _numeric("connection_strength", "urza", "urza.connection", Transform.GRAPH_MAX),
            _numeric("data_flow_volume", "tolaria", "tolaria.connection_telemetry", Transform.GRAPH_MAX),
            _numeric("latency_ms", "tolaria", "tolaria.connection_telemetry", Transform.GRAPH_MAX),
            _flag("residual_flag", "urza", "urza.connection"),
        ),
    ),
    Relation(
        source="layer",
        name="activates",
        target="activation",
        doc="A layer feeds its activation.",
        features=(
            _numeric("activation_frequency", "tolaria", "tolaria.activation_telemetry", Transform.LOG1P),
            _numeric("saturation_events", "tolaria", "tolaria.activation_telemetry", Transform.LOG1P),
        ),
    ),
    Relation(
        source="activation",
        name="affects",
        target="layer",
        doc="An activation reaches its layer's successors in `connects`, or that layer itself where it has none.",
        features=(
            _numeric("gradient_contribution", "tolaria", "tolaria.activation_telemetry", Transform.LOG1P),
            _numeric("nonlinearity_strength", "tolaria", "tolaria.activation_telemetry, else urza.activation", Transform.LOG1P),
        ),
    ),
    Relation(
        source="activation",
        name="configures",
        target="parameter",
        doc="An activation shapes what a parameter group learns.",
        features=(_numeric("influence", "urza", "urza.activation_parameter", Transform.CLAMP01),),
    ),
    Relation(
        source="parameter",
        name="modulates",
        target="activation",
        doc="A parameter group moves an activation.",
        features=(
            _numeric("magnitude", "urza", "urza.activation_parameter", Transform.SIGNED_LOG1P),
            _numeric("effect", "urza", "urza.activation_parameter", Transform.SIGNED_LOG1P),
        ),
    ),
    Relation(
        source="parameter",
        name="targets",
        target="blueprint",
        doc="A parameter group belongs to its blueprint, with what it targets there.",
        features=(_categorical("target", "urza", "urza.parameter", registry="parameter_target"),),
    ),
    Relation(
        source="parameter",
        name="tunes",
        target="layer",
        doc="A parameter group holds a layer's weights.",
        features=(
            _numeric("update_magnitude", "tolaria", "tolaria.parameter_telemetry", Transform.SIGNED_LOG1P),
            _numeric("convergence_rate", "tolaria", "tolaria.parameter_telemetry", Transform.SIGNED_LOG1P),
        ),
    ),
    Relation(
        source="seed",
        name="monitors",
        target="layer",
        doc="A seed watches a layer.",
        features=(
            _numeric("monitoring_frequency", "kasmina", "kasmina.seed_state", Transform.CLAMP01),
            _numeric(
                "adaptation_trigger_threshold",
                "kasmina",
                "derived: kasmina.seed_state, else urza.blueprint monitor_thresholds",
                Transform.CLAMP01,
            ),
            _flag("quarantine_flag", "kasmina", "derived: the seed's quarantine_only"),
        ),
    ),
    Relation(
        source="seed",
        name="allowed",
        target="parameter",
        doc="A seed's capabilities are known and admit the parameter group's optimizer family.",
        features=(
            _multi_hot(
                "blending_methods",
                "kasmina",
                "kasmina.seed_state capabilities_allowed_blending_methods",
                registry="schedule",
                width=16,
            ),
            _multi_hot(
                "optimizer_families",
                "kasmina",
                "kasmina.seed_state capabilities_allowed_optimizer_families",
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
        features=_broadcast(),
    ),
    Relation(
        source="context",
        name="conditions",
        target="seed",
        doc="The system's state reaches every seed.",
        features=_broadcast(),
    ),
)

GROUPS: Final[tuple[NodeType | Relation, ...]] = (*NODE_TYPES, *RELATIONS)
FAMILIES: Final[tuple[str, ...]] = tuple(group.family for group in GROUPS)
COVERAGE_KEYS: Final[tuple[str, ...]] = tuple(group.key(f) for group in GROUPS for f in group.features)
EWMA_METRICS: Final[tuple[str, ...]] = ("loss", "gradient_norm", "samples_per_s", "hook_latency_ms")
PRIOR_METRICS: Final[tuple[str, ...]] = ("parameter_count", "learning_rate", "momentum", "gradient_variance")


def node_type(name: str) -> NodeType:
    """The node type of that name; KeyError where there is none."""
    return {n.name: n for n in NODE_TYPES}[name]


def relation(short: str) -> Relation:
    """The relation of that short name (`layer_connects`, `context_seed`); KeyError where there is none."""
    return {r.short: r for r in RELATIONS}[short]
