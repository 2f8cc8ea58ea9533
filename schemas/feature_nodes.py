"""Declare the node types of the graph and their features, in tensor order."""

from typing import Final

from schemas.feature_rows import (
    ACTIVATION_TELEMETRY,
    BLUEPRINT_RECORD,
    BSDS,
    HEALTH,
    LAYER_TELEMETRY,
    PARAMETER_TELEMETRY,
    SEED_STATE,
    STATE,
    categorical,
    flag,
    multi_hot,
    numeric,
    share,
)
from schemas.feature_types import Feature, NodeType, Sources, Transform

_OF_HOST: Final = "newest of the host blueprint"
_OF_ATTACHED: Final = "newest of the attached blueprint"
_MONITORED: Final = (SEED_STATE, "monitored_layers")
_CONNECTED: Final = ("urza.connection", "source_layer_id")
_TRAINING_LOSS: Final = ((STATE, "training_loss"), (STATE, "loss"))
_VALIDATION_LOSS: Final = ((STATE, "validation_loss"),)


def _ewma(metric: str) -> Feature:
    sources = ((LAYER_TELEMETRY, metric), (STATE, metric))
    return numeric(metric, "tolaria", sources, Transform.EWMA, mandatory=True, metric=metric)


def _log_z(metric: str, system: str, sources: Sources, *, mandatory: bool = False) -> Feature:
    return numeric(metric, system, sources, Transform.LOG_Z, mandatory=mandatory, metric=metric)


def _grafting_strategies(note: str) -> Feature:
    sources = ((BSDS, "grafting_strategies"),)
    return multi_hot("grafting_strategies", "urabrask", sources, registry="grafting_strategy", width=32, note=note)


def _of_site(name: str, *more: tuple[str, str], system: str = "kasmina", note: str, transform: Transform) -> Feature:
    """Declare a numeric feature of a seed's site, derived from the layers that the seed monitors."""
    return numeric(name, system, (_MONITORED, *more), transform, derive=name, note=note)


def _flag_of_site(name: str, *more: tuple[str, str], system: str = "kasmina", note: str) -> Feature:
    return flag(name, system, (_MONITORED, *more), derive=name, note=note)


def _change(loss: str, sources: Sources) -> Feature:
    note = "ln(x / x of the run's packet before)"
    return numeric(f"{loss}_change", "tolaria", sources, Transform.CLAMP_ABS1, derive="loss_change", note=note)


def _utilisation(name: str) -> Feature:
    note = "of the packet's hardware context, or of its training metrics"
    return numeric(name, "tolaria", ((STATE, name), (HEALTH, name)), Transform.PERCENT, note=note)


LAYER: Final = NodeType(
    name="layer",
    doc="A layer of the host network.",
    features=(
        categorical("layer_type", "urza", (("urza.layer", "type"),), mandatory=True),
        numeric("input_channels", "urza", (("urza.layer", "input_channels"),), Transform.LOG1P, mandatory=True),
        numeric("output_channels", "urza", (("urza.layer", "output_channels"),), Transform.LOG1P, mandatory=True),
        categorical("activation_type", "urza", (("urza.layer", "activation_type"),), mandatory=True),
        numeric("dropout_rate", "urza", (("urza.layer", "dropout_rate"),), Transform.CLAMP01),
        numeric("weight_norm", "tolaria", ((LAYER_TELEMETRY, "weight_norm"), ("urza.layer", "weight_norm")), Transform.LOG1P),
        numeric("update_frequency", "tolaria", ((LAYER_TELEMETRY, "update_frequency"),), Transform.CLAMP01),
        _ewma("loss"),
        _ewma("gradient_norm"),
        _ewma("samples_per_s"),
        _ewma("hook_latency_ms"),
        numeric("bsds_risk_score", "urabrask", ((BSDS, "risk_score"),), Transform.CLAMP01, mandatory=True, note=_OF_HOST),
        categorical(
            "hazard_band", "urabrask", ((BSDS, "hazard_band"),), registry="hazard_class", mandatory=True, note=_OF_HOST
        ),
        categorical("handling_class", "urabrask", ((BSDS, "handling_class"),), note=_OF_HOST),
        _grafting_strategies(_OF_HOST),
        categorical(
            "resource_tier",
            "urza",
            ((BLUEPRINT_RECORD, "resource_tier"), (BSDS, "resource_profile")),
            registry="resource_profile",
            note=_OF_HOST,
        ),
        categorical(
            "gradient_instability",
            "tolaria",
            ((LAYER_TELEMETRY, "gradient_norm"), (STATE, "gradient_norm"), (LAYER_TELEMETRY, "gradient_variance")),
            derive="gradient_instability",
            note="against the run's EWMA mean of gradient_norm before the packet",
        ),
        numeric("gradient_variance", "tolaria", ((LAYER_TELEMETRY, "gradient_variance"),), Transform.LOG_VAR),
        numeric(
            "latency_budget_utilisation",
            "tolaria",
            tuple((table, column) for column in ("hook_latency_ms", "latency_budget_ms") for table in (LAYER_TELEMETRY, STATE)),
            Transform.CLAMP4,
            derive="latency_budget_utilisation",
            note="each of the layer, else of the packet",
        ),
    ),
)

SEED: Final = NodeType(
    name="seed",
    doc="A seed of the run: a candidate site with its lifecycle, capabilities and attached blueprint.",
    features=(
        categorical("seed_id", "kasmina", ((SEED_STATE, "seed_id"),), registry="seed", mandatory=True),
        numeric(
            "monitoring_scope",
            "kasmina",
            ((SEED_STATE, "monitored_layers"),),
            Transform.LOG1P,
            mandatory=True,
            derive="monitoring_scope",
            note="number of monitored layers",
        ),
        categorical("lifecycle_stage", "kasmina", ((SEED_STATE, "stage"),), mandatory=True),
        categorical("policy_version", "kasmina", ((SEED_STATE, "policy_version"),)),
        numeric("activity_level", "kasmina", ((SEED_STATE, "activity_level"),), Transform.CLAMP01, neutral=0.5),
        numeric("success_rate", "kasmina", ((SEED_STATE, "success_rate"),), Transform.CLAMP01, neutral=0.5),
        numeric("risk_tolerance", "kasmina", ((SEED_STATE, "risk_tolerance"),), Transform.CLAMP01, neutral=0.5),
        numeric("alpha", "kasmina", ((SEED_STATE, "alpha"),), Transform.CLAMP01, mandatory=True),
        categorical("alpha_schedule", "kasmina", ((SEED_STATE, "alpha_schedule_method"),), registry="schedule"),
        numeric("alpha_total_steps", "kasmina", ((SEED_STATE, "alpha_schedule_total_steps"),), Transform.LOG1P),
        numeric("alpha_temperature", "kasmina", ((SEED_STATE, "alpha_schedule_temperature"),), Transform.LOG1P),
        flag(
            "quarantine_only",
            "kasmina",
            ((SEED_STATE, "quarantine_only"), (BLUEPRINT_RECORD, "descriptor_quarantine_only")),
            note="the descriptor is the attached blueprint's",
        ),
        multi_hot(
            "allowed_blending_methods",
            "kasmina",
            ((SEED_STATE, "capabilities_allowed_blending_methods"),),
            registry="schedule",
            width=16,
        ),
        multi_hot(
            "allowed_optimizer_families",
            "kasmina",
            ((SEED_STATE, "capabilities_allowed_optimizer_families"),),
            registry="optimizer_family",
            width=16,
        ),
        multi_hot(
            "isolation_exemptions",
            "kasmina",
            ((SEED_STATE, "capabilities_isolation_exemptions"),),
            registry="isolation_exemption",
            width=16,
        ),
        categorical("blueprint_tier", "urza", ((BLUEPRINT_RECORD, "descriptor_tier"),), note=_OF_ATTACHED),
        numeric("bsds_risk_score", "urabrask", ((BSDS, "risk_score"),), Transform.CLAMP01, note=_OF_ATTACHED),
        categorical("hazard_band", "urabrask", ((BSDS, "hazard_band"),), registry="hazard_class", note=_OF_ATTACHED),
        categorical("handling_class", "urabrask", ((BSDS, "handling_class"),), note=_OF_ATTACHED),
        _grafting_strategies(_OF_ATTACHED),
        flag(
            "has_handling_notes",
            "urabrask",
            ((BSDS, "recommendation"),),
            derive="has_handling_notes",
            note=_OF_ATTACHED,
        ),
        _of_site(
            "relative_depth",
            _CONNECTED,
            note="mean topological position of its monitored layers / layers",
            transform=Transform.CLAMP01,
        ),
        _of_site("sites_before", note="seeds of the graph with a smaller relative depth", transform=Transform.LOG1P),
        _of_site("sites_after", note="seeds of the graph with a greater relative depth", transform=Transform.LOG1P),
        _flag_of_site("is_first", note="no site is before it"),
        _flag_of_site("is_last", note="no site is after it"),
        _flag_of_site(
            "has_norm", ("urza.layer", "type"), system="urza", note="a normalization layer is among its monitored layers"
        ),
        _of_site(
            "site_channels",
            ("urza.layer", "output_channels"),
            system="urza",
            note="of its last monitored layer in topological order",
            transform=Transform.LOG1P,
        ),
        numeric("layer_depth", "kasmina", ((SEED_STATE, "layer_depth"),), Transform.LOG1P),
    ),
)

ACTIVATION: Final = NodeType(
    name="activation",
    doc="An activation of the host network.",
    features=(
        categorical("activation_type", "urza", (("urza.activation", "type"),), mandatory=True),
        numeric(
            "saturation_rate",
            "tolaria",
            ((ACTIVATION_TELEMETRY, "saturation_rate"), ("urza.activation", "saturation_rate")),
            Transform.CLAMP01,
        ),
        numeric(
            "gradient_flow",
            "tolaria",
            ((ACTIVATION_TELEMETRY, "gradient_flow"), ("urza.activation", "gradient_flow")),
            Transform.LOG1P,
        ),
        numeric("computational_cost", "urza", (("urza.activation", "computational_cost"),), Transform.LOG1P),
        numeric("saturation_events", "tolaria", ((ACTIVATION_TELEMETRY, "saturation_events"),), Transform.LOG1P),
        numeric("stability", "tolaria", ((ACTIVATION_TELEMETRY, "stability"),), Transform.CLAMP01),
    ),
)

PARAMETER: Final = NodeType(
    name="parameter",
    doc="An optimizer parameter group of the host network.",
    features=(
        _log_z("parameter_count", "urza", (("urza.parameter", "parameter_count"),), mandatory=True),
        _log_z(
            "learning_rate",
            "tolaria",
            ((PARAMETER_TELEMETRY, "learning_rate"), (BLUEPRINT_RECORD, "optimizer_learning_rate")),
            mandatory=True,
        ),
        _log_z("momentum", "tolaria", ((PARAMETER_TELEMETRY, "momentum"), (BLUEPRINT_RECORD, "optimizer_momentum"))),
        _log_z(
            "gradient_variance",
            "tolaria",
            ((PARAMETER_TELEMETRY, "gradient_variance"), (BLUEPRINT_RECORD, "optimizer_gradient_variance")),
        ),
        categorical(
            "optimizer_family",
            "tolaria",
            ((PARAMETER_TELEMETRY, "optimizer_family"), (BLUEPRINT_RECORD, "optimizer_family")),
            mandatory=True,
        ),
        numeric("convergence_rate", "tolaria", ((PARAMETER_TELEMETRY, "convergence_rate"),), Transform.SIGNED_LOG1P),
        numeric("update_magnitude", "tolaria", ((PARAMETER_TELEMETRY, "update_magnitude"),), Transform.SIGNED_LOG1P),
        categorical("compile_status", "tezzeret", (("tezzeret.kernel", "status"),), note=_OF_HOST),
        categorical("resource_profile", "urabrask", ((BSDS, "resource_profile"),), note=_OF_HOST),
        numeric("cooldown_ms", "urabrask", ((BSDS, "cooldown_ms"),), Transform.LOG1P, note=_OF_HOST),
    ),
)

BLUEPRINT: Final = NodeType(
    name="blueprint",
    doc="The host's blueprint, and each one attached to a seed.",
    features=(
        categorical(
            "blueprint_id",
            "urza",
            ((STATE, "blueprint_id"), (SEED_STATE, "blueprint_id")),
            registry="blueprint",
            mandatory=True,
            note="the packet names the host's, a seed the one attached to it",
        ),
        categorical("tier", "urza", ((BLUEPRINT_RECORD, "descriptor_tier"),), registry="blueprint_tier", mandatory=True),
        categorical("hazard_band", "urabrask", ((BSDS, "hazard_band"),), registry="hazard_class", note="newest"),
        numeric(
            "risk",
            "urabrask",
            ((BSDS, "risk_score"), (BLUEPRINT_RECORD, "descriptor_risk")),
            Transform.CLAMP01,
            mandatory=True,
            note="newest",
        ),
        numeric("stage", "urza", ((BLUEPRINT_RECORD, "descriptor_stage"),), Transform.LOG1P),
        flag("quarantine_only", "urza", ((BLUEPRINT_RECORD, "descriptor_quarantine_only"),)),
        flag("approval_required", "urza", ((BLUEPRINT_RECORD, "descriptor_approval_required"),)),
    ),
)

CONTEXT: Final = NodeType(
    name="context",
    doc="The one node of the system's state at the packet's time.",
    features=(
        numeric(
            "rolling_loss",
            "tolaria",
            ((STATE, "loss"),),
            Transform.LOSS_PRIOR,
            mandatory=True,
            derive="rolling_loss",
            note="the run's EWMA mean of loss before the packet",
        ),
        numeric(
            "throughput",
            "tolaria",
            ((STATE, "samples_per_s"),),
            Transform.EWMA,
            mandatory=True,
            metric="samples_per_s",
        ),
        _utilisation("gpu_utilisation"),
        _utilisation("cpu_utilisation"),
        flag(
            "conservative_mode",
            "weatherlight",
            ((HEALTH, "conservative_mode"), ("telemetry.metric", "value")),
            derive="conservative_mode",
            note="the newest of Weatherlight's and of Tamiyo's metric tamiyo.conservative_mode",
        ),
        categorical("health_status", "weatherlight", ((HEALTH, "status"),)),
        numeric("unhealthy_indicators", "weatherlight", ((HEALTH, "unhealthy_indicators"),), Transform.LOG1P),
        numeric("sla_breaches", "weatherlight", ((HEALTH, "sla_breaches"),), Transform.LOG1P),
        numeric(
            "latency_budget_utilisation",
            "tolaria",
            ((STATE, "hook_latency_ms"), (STATE, "latency_budget_ms")),
            Transform.CLAMP4,
            derive="latency_budget_utilisation",
            note="of the packet",
        ),
        numeric("validation_loss", "tolaria", _VALIDATION_LOSS, Transform.LN_CHANCE),
        numeric(
            "training_loss",
            "tolaria",
            _TRAINING_LOSS,
            Transform.LN_CHANCE,
            derive="training_loss",
            note="the packet's, else its metric loss",
        ),
        numeric("validation_accuracy", "tolaria", ((STATE, "validation_accuracy"),), Transform.CLAMP01),
        numeric(
            "generalisation_gap",
            "tolaria",
            (*_VALIDATION_LOSS, *_TRAINING_LOSS),
            Transform.CLAMP_ABS3,
            derive="generalisation_gap",
            note="ln(validation loss / training loss)",
        ),
        _change("validation_loss", _VALIDATION_LOSS),
        _change("training_loss", _TRAINING_LOSS),
        numeric("epoch", "tolaria", ((STATE, "current_epoch"),), Transform.LOG1P),
        numeric(
            "output_classes",
            "urza",
            (("urza.layer", "output_channels"), _CONNECTED),
            Transform.LOG1P,
            derive="output_classes",
            note="of the last layer in topological order",
        ),
        share(
            "layer_type_shares",
            "urza",
            (("urza.layer", "type"),),
            registry="layer_type",
            width=32,
            derive="layer_type_shares",
            note="share of the graph's layers",
        ),
    ),
)

NODE_TYPES: Final[tuple[NodeType, ...]] = (LAYER, SEED, ACTIVATION, PARAMETER, BLUEPRINT, CONTEXT)
