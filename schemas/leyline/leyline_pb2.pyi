import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SeedLifecycleStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_STAGE_UNKNOWN: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_DORMANT: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_GERMINATED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_TRAINING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_BLENDING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_SHADOWING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_PROBATIONARY: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_FOSSILIZED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_CULLED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_EMBARGOED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_RESETTING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_TERMINATED: _ClassVar[SeedLifecycleStage]

class HealthStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_STATUS_UNKNOWN: _ClassVar[HealthStatus]
    HEALTH_STATUS_HEALTHY: _ClassVar[HealthStatus]
    HEALTH_STATUS_DEGRADED: _ClassVar[HealthStatus]
    HEALTH_STATUS_UNHEALTHY: _ClassVar[HealthStatus]
    HEALTH_STATUS_CRITICAL: _ClassVar[HealthStatus]

class CommandType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_UNKNOWN: _ClassVar[CommandType]
    COMMAND_SEED: _ClassVar[CommandType]
    COMMAND_ROLLBACK: _ClassVar[CommandType]
    COMMAND_OPTIMIZER: _ClassVar[CommandType]
    COMMAND_CIRCUIT_BREAKER: _ClassVar[CommandType]
    COMMAND_PAUSE: _ClassVar[CommandType]
    COMMAND_EMERGENCY: _ClassVar[CommandType]
    COMMAND_STRUCTURAL_PRUNING: _ClassVar[CommandType]

class SeedOperation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_OP_UNKNOWN: _ClassVar[SeedOperation]
    SEED_OP_GERMINATE: _ClassVar[SeedOperation]
    SEED_OP_START_TRAINING: _ClassVar[SeedOperation]
    SEED_OP_START_GRAFTING: _ClassVar[SeedOperation]
    SEED_OP_STABILIZE: _ClassVar[SeedOperation]
    SEED_OP_EVALUATE: _ClassVar[SeedOperation]
    SEED_OP_FINE_TUNE: _ClassVar[SeedOperation]
    SEED_OP_FOSSILIZE: _ClassVar[SeedOperation]
    SEED_OP_CULL: _ClassVar[SeedOperation]
    SEED_OP_CANCEL: _ClassVar[SeedOperation]

class CircuitBreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CIRCUIT_STATE_UNKNOWN: _ClassVar[CircuitBreakerState]
    CIRCUIT_STATE_CLOSED: _ClassVar[CircuitBreakerState]
    CIRCUIT_STATE_OPEN: _ClassVar[CircuitBreakerState]
    CIRCUIT_STATE_HALF_OPEN: _ClassVar[CircuitBreakerState]

class TelemetryLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TELEMETRY_LEVEL_UNSPECIFIED: _ClassVar[TelemetryLevel]
    TELEMETRY_LEVEL_INFO: _ClassVar[TelemetryLevel]
    TELEMETRY_LEVEL_WARNING: _ClassVar[TelemetryLevel]
    TELEMETRY_LEVEL_ERROR: _ClassVar[TelemetryLevel]
    TELEMETRY_LEVEL_CRITICAL: _ClassVar[TelemetryLevel]

class FieldReportOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIELD_REPORT_OUTCOME_UNSPECIFIED: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_SUCCESS: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_NEUTRAL: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_REGRESSION: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_ABORTED: _ClassVar[FieldReportOutcome]

class BlueprintTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLUEPRINT_TIER_UNSPECIFIED: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_SAFE: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_EXPERIMENTAL: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_HIGH_RISK: _ClassVar[BlueprintTier]

class HazardBand(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HAZARD_BAND_UNSPECIFIED: _ClassVar[HazardBand]
    HAZARD_BAND_LOW: _ClassVar[HazardBand]
    HAZARD_BAND_MEDIUM: _ClassVar[HazardBand]
    HAZARD_BAND_HIGH: _ClassVar[HazardBand]
    HAZARD_BAND_CRITICAL: _ClassVar[HazardBand]

class HandlingClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HANDLING_CLASS_UNSPECIFIED: _ClassVar[HandlingClass]
    HANDLING_CLASS_STANDARD: _ClassVar[HandlingClass]
    HANDLING_CLASS_RESTRICTED: _ClassVar[HandlingClass]
    HANDLING_CLASS_QUARANTINE: _ClassVar[HandlingClass]

class ResourceProfile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_PROFILE_UNSPECIFIED: _ClassVar[ResourceProfile]
    RESOURCE_PROFILE_CPU: _ClassVar[ResourceProfile]
    RESOURCE_PROFILE_GPU: _ClassVar[ResourceProfile]
    RESOURCE_PROFILE_MEMORY_HEAVY: _ClassVar[ResourceProfile]
    RESOURCE_PROFILE_IO_HEAVY: _ClassVar[ResourceProfile]
    RESOURCE_PROFILE_MIXED: _ClassVar[ResourceProfile]

class Provenance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROVENANCE_UNSPECIFIED: _ClassVar[Provenance]
    PROVENANCE_URABRASK: _ClassVar[Provenance]
    PROVENANCE_CURATED: _ClassVar[Provenance]
    PROVENANCE_HEURISTIC: _ClassVar[Provenance]
    PROVENANCE_EXTERNAL: _ClassVar[Provenance]

class CompileStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPILE_STATUS_UNKNOWN: _ClassVar[CompileStatus]
    COMPILE_STATUS_COMPILED: _ClassVar[CompileStatus]
    COMPILE_STATUS_EAGER_FALLBACK: _ClassVar[CompileStatus]
    COMPILE_STATUS_FAILED: _ClassVar[CompileStatus]

class BusMessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUS_MESSAGE_TYPE_UNSPECIFIED: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_SYSTEM_STATE: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_ADAPTATION_COMMAND: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_FIELD_REPORT: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_TELEMETRY: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_POLICY_UPDATE: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_KERNEL_PREFETCH_REQUEST: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_KERNEL_PREFETCH_READY: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_KERNEL_PREFETCH_ERROR: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_EMERGENCY_SIGNAL: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_BSDS_ISSUED: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_BSDS_FAILED: _ClassVar[BusMessageType]
    BUS_MESSAGE_TYPE_BENCHMARK_REPORT: _ClassVar[BusMessageType]
SEED_STAGE_UNKNOWN: SeedLifecycleStage
SEED_STAGE_DORMANT: SeedLifecycleStage
SEED_STAGE_GERMINATED: SeedLifecycleStage
SEED_STAGE_TRAINING: SeedLifecycleStage
SEED_STAGE_BLENDING: SeedLifecycleStage
SEED_STAGE_SHADOWING: SeedLifecycleStage
SEED_STAGE_PROBATIONARY: SeedLifecycleStage
SEED_STAGE_FOSSILIZED: SeedLifecycleStage
SEED_STAGE_CULLED: SeedLifecycleStage
SEED_STAGE_EMBARGOED: SeedLifecycleStage
SEED_STAGE_RESETTING: SeedLifecycleStage
SEED_STAGE_TERMINATED: SeedLifecycleStage
HEALTH_STATUS_UNKNOWN: HealthStatus
HEALTH_STATUS_HEALTHY: HealthStatus
HEALTH_STATUS_DEGRADED: HealthStatus
HEALTH_STATUS_UNHEALTHY: HealthStatus
HEALTH_STATUS_CRITICAL: HealthStatus
COMMAND_UNKNOWN: CommandType
COMMAND_SEED: CommandType
COMMAND_ROLLBACK: CommandType
COMMAND_OPTIMIZER: CommandType
COMMAND_CIRCUIT_BREAKER: CommandType
COMMAND_PAUSE: CommandType
COMMAND_EMERGENCY: CommandType
COMMAND_STRUCTURAL_PRUNING: CommandType
SEED_OP_UNKNOWN: SeedOperation
SEED_OP_GERMINATE: SeedOperation
SEED_OP_START_TRAINING: SeedOperation
SEED_OP_START_GRAFTING: SeedOperation
SEED_OP_STABILIZE: SeedOperation
SEED_OP_EVALUATE: SeedOperation
SEED_OP_FINE_TUNE: SeedOperation
SEED_OP_FOSSILIZE: SeedOperation
SEED_OP_CULL: SeedOperation
SEED_OP_CANCEL: SeedOperation
CIRCUIT_STATE_UNKNOWN: CircuitBreakerState
CIRCUIT_STATE_CLOSED: CircuitBreakerState
CIRCUIT_STATE_OPEN: CircuitBreakerState
CIRCUIT_STATE_HALF_OPEN: CircuitBreakerState
TELEMETRY_LEVEL_UNSPECIFIED: TelemetryLevel
TELEMETRY_LEVEL_INFO: TelemetryLevel
TELEMETRY_LEVEL_WARNING: TelemetryLevel
TELEMETRY_LEVEL_ERROR: TelemetryLevel
TELEMETRY_LEVEL_CRITICAL: TelemetryLevel
FIELD_REPORT_OUTCOME_UNSPECIFIED: FieldReportOutcome
FIELD_REPORT_OUTCOME_SUCCESS: FieldReportOutcome
FIELD_REPORT_OUTCOME_NEUTRAL: FieldReportOutcome
FIELD_REPORT_OUTCOME_REGRESSION: FieldReportOutcome
FIELD_REPORT_OUTCOME_ABORTED: FieldReportOutcome
BLUEPRINT_TIER_UNSPECIFIED: BlueprintTier
BLUEPRINT_TIER_SAFE: BlueprintTier
BLUEPRINT_TIER_EXPERIMENTAL: BlueprintTier
BLUEPRINT_TIER_HIGH_RISK: BlueprintTier
HAZARD_BAND_UNSPECIFIED: HazardBand
HAZARD_BAND_LOW: HazardBand
HAZARD_BAND_MEDIUM: HazardBand
HAZARD_BAND_HIGH: HazardBand
HAZARD_BAND_CRITICAL: HazardBand
HANDLING_CLASS_UNSPECIFIED: HandlingClass
HANDLING_CLASS_STANDARD: HandlingClass
HANDLING_CLASS_RESTRICTED: HandlingClass
HANDLING_CLASS_QUARANTINE: HandlingClass
RESOURCE_PROFILE_UNSPECIFIED: ResourceProfile
RESOURCE_PROFILE_CPU: ResourceProfile
RESOURCE_PROFILE_GPU: ResourceProfile
RESOURCE_PROFILE_MEMORY_HEAVY: ResourceProfile
RESOURCE_PROFILE_IO_HEAVY: ResourceProfile
RESOURCE_PROFILE_MIXED: ResourceProfile
PROVENANCE_UNSPECIFIED: Provenance
PROVENANCE_URABRASK: Provenance
PROVENANCE_CURATED: Provenance
PROVENANCE_HEURISTIC: Provenance
PROVENANCE_EXTERNAL: Provenance
COMPILE_STATUS_UNKNOWN: CompileStatus
COMPILE_STATUS_COMPILED: CompileStatus
COMPILE_STATUS_EAGER_FALLBACK: CompileStatus
COMPILE_STATUS_FAILED: CompileStatus
BUS_MESSAGE_TYPE_UNSPECIFIED: BusMessageType
BUS_MESSAGE_TYPE_SYSTEM_STATE: BusMessageType
BUS_MESSAGE_TYPE_ADAPTATION_COMMAND: BusMessageType
BUS_MESSAGE_TYPE_FIELD_REPORT: BusMessageType
BUS_MESSAGE_TYPE_TELEMETRY: BusMessageType
BUS_MESSAGE_TYPE_POLICY_UPDATE: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_REQUEST: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_READY: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_ERROR: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE: BusMessageType
BUS_MESSAGE_TYPE_EMERGENCY_SIGNAL: BusMessageType
BUS_MESSAGE_TYPE_BSDS_ISSUED: BusMessageType
BUS_MESSAGE_TYPE_BSDS_FAILED: BusMessageType
BUS_MESSAGE_TYPE_BENCHMARK_REPORT: BusMessageType

class SystemStatePacket(_message.Message):
    __slots__ = ("version", "current_epoch", "validation_accuracy", "validation_loss", "timestamp_ns", "hardware_context", "training_metrics", "seed_states", "packet_id", "global_step", "training_loss", "source_subsystem", "training_run_id", "experiment_name", "blueprint_id", "layers", "activations", "parameters", "connections")
    class TrainingMetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CURRENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_METRICS_FIELD_NUMBER: _ClassVar[int]
    SEED_STATES_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TRAINING_LOSS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    version: int
    current_epoch: int
    validation_accuracy: float
    validation_loss: float
    timestamp_ns: int
    hardware_context: HardwareContext
    training_metrics: _containers.ScalarMap[str, float]
    seed_states: _containers.RepeatedCompositeFieldContainer[SeedState]
    packet_id: str
    global_step: int
    training_loss: float
    source_subsystem: str
    training_run_id: str
    experiment_name: str
    blueprint_id: str
    layers: _containers.RepeatedCompositeFieldContainer[LayerTelemetry]
    activations: _containers.RepeatedCompositeFieldContainer[ActivationTelemetry]
    parameters: _containers.RepeatedCompositeFieldContainer[ParameterTelemetry]
    connections: _containers.RepeatedCompositeFieldContainer[ConnectionTelemetry]
    def __init__(self, version: _Optional[int] = ..., current_epoch: _Optional[int] = ..., validation_accuracy: _Optional[float] = ..., validation_loss: _Optional[float] = ..., timestamp_ns: _Optional[int] = ..., hardware_context: _Optional[_Union[HardwareContext, _Mapping]] = ..., training_metrics: _Optional[_Mapping[str, float]] = ..., seed_states: _Optional[_Iterable[_Union[SeedState, _Mapping]]] = ..., packet_id: _Optional[str] = ..., global_step: _Optional[int] = ..., training_loss: _Optional[float] = ..., source_subsystem: _Optional[str] = ..., training_run_id: _Optional[str] = ..., experiment_name: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerTelemetry, _Mapping]]] = ..., activations: _Optional[_Iterable[_Union[ActivationTelemetry, _Mapping]]] = ..., parameters: _Optional[_Iterable[_Union[ParameterTelemetry, _Mapping]]] = ..., connections: _Optional[_Iterable[_Union[ConnectionTelemetry, _Mapping]]] = ...) -> None: ...

class HardwareContext(_message.Message):
    __slots__ = ("device_type", "device_id", "total_memory_gb", "available_memory_gb", "temperature_celsius", "utilization_percent", "compute_capability")
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    device_type: str
    device_id: str
    total_memory_gb: float
    available_memory_gb: float
    temperature_celsius: float
    utilization_percent: float
    compute_capability: int
    def __init__(self, device_type: _Optional[str] = ..., device_id: _Optional[str] = ..., total_memory_gb: _Optional[float] = ..., available_memory_gb: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., utilization_percent: _Optional[float] = ..., compute_capability: _Optional[int] = ...) -> None: ...

class SeedState(_message.Message):
    __slots__ = ("seed_id", "stage", "gradient_norm", "learning_rate", "layer_depth", "metrics", "age_epochs", "risk_score", "blueprint_id", "monitored_layers", "monitoring_frequency", "adaptation_trigger_threshold", "activity_level", "success_rate", "risk_tolerance", "alpha", "alpha_schedule", "quarantine_only", "policy_version", "capabilities", "training_run_id", "global_step", "timestamp_ns")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LAYER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    AGE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    MONITORED_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MONITORING_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_TRIGGER_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    RISK_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ALPHA_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ONLY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    seed_id: str
    stage: SeedLifecycleStage
    gradient_norm: float
    learning_rate: float
    layer_depth: int
    metrics: _containers.ScalarMap[str, float]
    age_epochs: int
    risk_score: float
    blueprint_id: str
    monitored_layers: _containers.RepeatedScalarFieldContainer[str]
    monitoring_frequency: float
    adaptation_trigger_threshold: float
    activity_level: float
    success_rate: float
    risk_tolerance: float
    alpha: float
    alpha_schedule: AlphaSchedule
    quarantine_only: bool
    policy_version: str
    capabilities: SeedCapabilities
    training_run_id: str
    global_step: int
    timestamp_ns: int
    def __init__(self, seed_id: _Optional[str] = ..., stage: _Optional[_Union[SeedLifecycleStage, str]] = ..., gradient_norm: _Optional[float] = ..., learning_rate: _Optional[float] = ..., layer_depth: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., age_epochs: _Optional[int] = ..., risk_score: _Optional[float] = ..., blueprint_id: _Optional[str] = ..., monitored_layers: _Optional[_Iterable[str]] = ..., monitoring_frequency: _Optional[float] = ..., adaptation_trigger_threshold: _Optional[float] = ..., activity_level: _Optional[float] = ..., success_rate: _Optional[float] = ..., risk_tolerance: _Optional[float] = ..., alpha: _Optional[float] = ..., alpha_schedule: _Optional[_Union[AlphaSchedule, _Mapping]] = ..., quarantine_only: _Optional[bool] = ..., policy_version: _Optional[str] = ..., capabilities: _Optional[_Union[SeedCapabilities, _Mapping]] = ..., training_run_id: _Optional[str] = ..., global_step: _Optional[int] = ..., timestamp_ns: _Optional[int] = ...) -> None: ...

class AlphaSchedule(_message.Message):
    __slots__ = ("method", "total_steps", "temperature")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    method: str
    total_steps: int
    temperature: float
    def __init__(self, method: _Optional[str] = ..., total_steps: _Optional[int] = ..., temperature: _Optional[float] = ...) -> None: ...

class SeedCapabilities(_message.Message):
    __slots__ = ("allowed_blending_methods", "allowed_optimizer_families", "isolation_exemptions")
    ALLOWED_BLENDING_METHODS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_OPTIMIZER_FAMILIES_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_EXEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    allowed_blending_methods: _containers.RepeatedScalarFieldContainer[str]
    allowed_optimizer_families: _containers.RepeatedScalarFieldContainer[str]
    isolation_exemptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed_blending_methods: _Optional[_Iterable[str]] = ..., allowed_optimizer_families: _Optional[_Iterable[str]] = ..., isolation_exemptions: _Optional[_Iterable[str]] = ...) -> None: ...

class LayerTelemetry(_message.Message):
    __slots__ = ("layer_id", "loss", "gradient_norm", "gradient_variance", "weight_norm", "samples_per_s", "hook_latency_ms", "latency_budget_ms", "update_frequency", "update_magnitude")
    LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NORM_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    HOOK_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    layer_id: str
    loss: float
    gradient_norm: float
    gradient_variance: float
    weight_norm: float
    samples_per_s: float
    hook_latency_ms: float
    latency_budget_ms: float
    update_frequency: float
    update_magnitude: float
    def __init__(self, layer_id: _Optional[str] = ..., loss: _Optional[float] = ..., gradient_norm: _Optional[float] = ..., gradient_variance: _Optional[float] = ..., weight_norm: _Optional[float] = ..., samples_per_s: _Optional[float] = ..., hook_latency_ms: _Optional[float] = ..., latency_budget_ms: _Optional[float] = ..., update_frequency: _Optional[float] = ..., update_magnitude: _Optional[float] = ...) -> None: ...

class ActivationTelemetry(_message.Message):
    __slots__ = ("activation_id", "saturation_rate", "saturation_events", "gradient_flow", "gradient_contribution", "nonlinearity_strength", "stability", "activation_frequency")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    SATURATION_RATE_FIELD_NUMBER: _ClassVar[int]
    SATURATION_EVENTS_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FLOW_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    NONLINEARITY_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    saturation_rate: float
    saturation_events: float
    gradient_flow: float
    gradient_contribution: float
    nonlinearity_strength: float
    stability: float
    activation_frequency: float
    def __init__(self, activation_id: _Optional[str] = ..., saturation_rate: _Optional[float] = ..., saturation_events: _Optional[float] = ..., gradient_flow: _Optional[float] = ..., gradient_contribution: _Optional[float] = ..., nonlinearity_strength: _Optional[float] = ..., stability: _Optional[float] = ..., activation_frequency: _Optional[float] = ...) -> None: ...

class ParameterTelemetry(_message.Message):
    __slots__ = ("parameter_id", "optimizer_family", "learning_rate", "momentum", "gradient_variance", "convergence_rate", "update_magnitude")
    PARAMETER_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FAMILY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    CONVERGENCE_RATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    parameter_id: str
    optimizer_family: str
    learning_rate: float
    momentum: float
    gradient_variance: float
    convergence_rate: float
    update_magnitude: float
    def __init__(self, parameter_id: _Optional[str] = ..., optimizer_family: _Optional[str] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., gradient_variance: _Optional[float] = ..., convergence_rate: _Optional[float] = ..., update_magnitude: _Optional[float] = ...) -> None: ...

class ConnectionTelemetry(_message.Message):
    __slots__ = ("source_layer_id", "target_layer_id", "data_flow_volume", "latency_ms")
    SOURCE_LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FLOW_VOLUME_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    source_layer_id: str
    target_layer_id: str
    data_flow_volume: float
    latency_ms: float
    def __init__(self, source_layer_id: _Optional[str] = ..., target_layer_id: _Optional[str] = ..., data_flow_volume: _Optional[float] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class AdaptationCommand(_message.Message):
    __slots__ = ("version", "command_id", "command_type", "target_seed_id", "execution_deadline_ms", "issued_at", "issued_by", "seed_operation", "optimizer_adjustment", "circuit_breaker", "rollback_payload", "annotations")
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_SEED_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    ISSUED_BY_FIELD_NUMBER: _ClassVar[int]
    SEED_OPERATION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    version: int
    command_id: str
    command_type: CommandType
    target_seed_id: str
    execution_deadline_ms: int
    issued_at: _timestamp_pb2.Timestamp
    issued_by: str
    seed_operation: SeedOperationCommand
    optimizer_adjustment: OptimizerAdjustment
    circuit_breaker: CircuitBreakerCommand
    rollback_payload: _struct_pb2.Struct
    annotations: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., command_id: _Optional[str] = ..., command_type: _Optional[_Union[CommandType, str]] = ..., target_seed_id: _Optional[str] = ..., execution_deadline_ms: _Optional[int] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., issued_by: _Optional[str] = ..., seed_operation: _Optional[_Union[SeedOperationCommand, _Mapping]] = ..., optimizer_adjustment: _Optional[_Union[OptimizerAdjustment, _Mapping]] = ..., circuit_breaker: _Optional[_Union[CircuitBreakerCommand, _Mapping]] = ..., rollback_payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SeedOperationCommand(_message.Message):
    __slots__ = ("operation", "blueprint_id", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    operation: SeedOperation
    blueprint_id: str
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, operation: _Optional[_Union[SeedOperation, str]] = ..., blueprint_id: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class OptimizerAdjustment(_message.Message):
    __slots__ = ("optimizer_id", "hyperparameters")
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OPTIMIZER_ID_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    optimizer_id: str
    hyperparameters: _containers.ScalarMap[str, float]
    def __init__(self, optimizer_id: _Optional[str] = ..., hyperparameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class CircuitBreakerCommand(_message.Message):
    __slots__ = ("desired_state", "rationale")
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    desired_state: CircuitBreakerState
    rationale: str
    def __init__(self, desired_state: _Optional[_Union[CircuitBreakerState, str]] = ..., rationale: _Optional[str] = ...) -> None: ...

class FieldReport(_message.Message):
    __slots__ = ("version", "report_id", "command_id", "training_run_id", "seed_id", "blueprint_id", "outcome", "metrics", "observation_window_epochs", "issued_at", "tamiyo_policy_version", "follow_up_actions", "notes", "layer_id", "packet_id", "control_delta", "treated_delta", "base_loss")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_WINDOW_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    TAMIYO_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UP_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_DELTA_FIELD_NUMBER: _ClassVar[int]
    TREATED_DELTA_FIELD_NUMBER: _ClassVar[int]
    BASE_LOSS_FIELD_NUMBER: _ClassVar[int]
    version: int
    report_id: str
    command_id: str
    training_run_id: str
    seed_id: str
    blueprint_id: str
    outcome: FieldReportOutcome
    metrics: _containers.ScalarMap[str, float]
    observation_window_epochs: int
    issued_at: _timestamp_pb2.Timestamp
    tamiyo_policy_version: str
    follow_up_actions: _containers.RepeatedCompositeFieldContainer[FollowUpAction]
    notes: str
    layer_id: str
    packet_id: str
    control_delta: float
    treated_delta: float
    base_loss: float
    def __init__(self, version: _Optional[int] = ..., report_id: _Optional[str] = ..., command_id: _Optional[str] = ..., training_run_id: _Optional[str] = ..., seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., outcome: _Optional[_Union[FieldReportOutcome, str]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., observation_window_epochs: _Optional[int] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tamiyo_policy_version: _Optional[str] = ..., follow_up_actions: _Optional[_Iterable[_Union[FollowUpAction, _Mapping]]] = ..., notes: _Optional[str] = ..., layer_id: _Optional[str] = ..., packet_id: _Optional[str] = ..., control_delta: _Optional[float] = ..., treated_delta: _Optional[float] = ..., base_loss: _Optional[float] = ...) -> None: ...

class FollowUpAction(_message.Message):
    __slots__ = ("action_type", "rationale")
    ACTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    action_type: str
    rationale: str
    def __init__(self, action_type: _Optional[str] = ..., rationale: _Optional[str] = ...) -> None: ...

class BlueprintDescriptor(_message.Message):
    __slots__ = ("blueprint_id", "name", "tier", "allowed_parameters", "risk", "stage", "quarantine_only", "approval_required", "description")
    class AllowedParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParameterBounds
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParameterBounds, _Mapping]] = ...) -> None: ...
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ONLY_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    name: str
    tier: BlueprintTier
    allowed_parameters: _containers.MessageMap[str, ParameterBounds]
    risk: float
    stage: int
    quarantine_only: bool
    approval_required: bool
    description: str
    def __init__(self, blueprint_id: _Optional[str] = ..., name: _Optional[str] = ..., tier: _Optional[_Union[BlueprintTier, str]] = ..., allowed_parameters: _Optional[_Mapping[str, ParameterBounds]] = ..., risk: _Optional[float] = ..., stage: _Optional[int] = ..., quarantine_only: _Optional[bool] = ..., approval_required: _Optional[bool] = ..., description: _Optional[str] = ...) -> None: ...

class ParameterBounds(_message.Message):
    __slots__ = ("min_value", "max_value")
    MIN_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_FIELD_NUMBER: _ClassVar[int]
    min_value: float
    max_value: float
    def __init__(self, min_value: _Optional[float] = ..., max_value: _Optional[float] = ...) -> None: ...

class BSDS(_message.Message):
    __slots__ = ("version", "blueprint_id", "risk_score", "hazard_band", "handling_class", "resource_profile", "recommendation", "issued_at", "provenance", "grafting_strategies", "cooldown_ms", "gradient_instability", "failure_rate", "peak_memory_mb", "latency_p95_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    HAZARD_BAND_FIELD_NUMBER: _ClassVar[int]
    HANDLING_CLASS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    GRAFTING_STRATEGIES_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_MS_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_INSTABILITY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    blueprint_id: str
    risk_score: float
    hazard_band: HazardBand
    handling_class: HandlingClass
    resource_profile: ResourceProfile
    recommendation: str
    issued_at: _timestamp_pb2.Timestamp
    provenance: Provenance
    grafting_strategies: _containers.RepeatedScalarFieldContainer[str]
    cooldown_ms: float
    gradient_instability: float
    failure_rate: float
    peak_memory_mb: float
    latency_p95_ms: float
    def __init__(self, version: _Optional[int] = ..., blueprint_id: _Optional[str] = ..., risk_score: _Optional[float] = ..., hazard_band: _Optional[_Union[HazardBand, str]] = ..., handling_class: _Optional[_Union[HandlingClass, str]] = ..., resource_profile: _Optional[_Union[ResourceProfile, str]] = ..., recommendation: _Optional[str] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, str]] = ..., grafting_strategies: _Optional[_Iterable[str]] = ..., cooldown_ms: _Optional[float] = ..., gradient_instability: _Optional[float] = ..., failure_rate: _Optional[float] = ..., peak_memory_mb: _Optional[float] = ..., latency_p95_ms: _Optional[float] = ...) -> None: ...

class BSDSIssued(_message.Message):
    __slots__ = ("bsds",)
    BSDS_FIELD_NUMBER: _ClassVar[int]
    bsds: BSDS
    def __init__(self, bsds: _Optional[_Union[BSDS, _Mapping]] = ...) -> None: ...

class BSDSFailed(_message.Message):
    __slots__ = ("blueprint_id", "reason")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    reason: str
    def __init__(self, blueprint_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class KernelCatalogUpdate(_message.Message):
    __slots__ = ("blueprint_id", "artifact_ref", "checksum", "guard_digest", "compile_ms", "prewarm_ms", "status", "issued_at")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_REF_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    GUARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMPILE_MS_FIELD_NUMBER: _ClassVar[int]
    PREWARM_MS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    artifact_ref: str
    checksum: str
    guard_digest: str
    compile_ms: float
    prewarm_ms: float
    status: CompileStatus
    issued_at: _timestamp_pb2.Timestamp
    def __init__(self, blueprint_id: _Optional[str] = ..., artifact_ref: _Optional[str] = ..., checksum: _Optional[str] = ..., guard_digest: _Optional[str] = ..., compile_ms: _Optional[float] = ..., prewarm_ms: _Optional[float] = ..., status: _Optional[_Union[CompileStatus, str]] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TelemetryPacket(_message.Message):
    __slots__ = ("packet_id", "timestamp", "source_subsystem", "level", "metrics", "events", "spans", "system_health")
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_HEALTH_FIELD_NUMBER: _ClassVar[int]
    packet_id: str
    timestamp: _timestamp_pb2.Timestamp
    source_subsystem: str
    level: TelemetryLevel
    metrics: _containers.RepeatedCompositeFieldContainer[MetricPoint]
    events: _containers.RepeatedCompositeFieldContainer[TelemetryEvent]
    spans: _containers.RepeatedCompositeFieldContainer[TraceSpan]
    system_health: SystemHealth
    def __init__(self, packet_id: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_subsystem: _Optional[str] = ..., level: _Optional[_Union[TelemetryLevel, str]] = ..., metrics: _Optional[_Iterable[_Union[MetricPoint, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[TelemetryEvent, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[TraceSpan, _Mapping]]] = ..., system_health: _Optional[_Union[SystemHealth, _Mapping]] = ...) -> None: ...

class MetricPoint(_message.Message):
    __slots__ = ("name", "value", "unit", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TelemetryEvent(_message.Message):
    __slots__ = ("event_id", "description", "level", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    description: str
    level: TelemetryLevel
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, event_id: _Optional[str] = ..., description: _Optional[str] = ..., level: _Optional[_Union[TelemetryLevel, str]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TraceSpan(_message.Message):
    __slots__ = ("span_id", "parent_span_id", "name", "start_time", "end_time", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    span_id: str
    parent_span_id: str
    name: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, span_id: _Optional[str] = ..., parent_span_id: _Optional[str] = ..., name: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SystemHealth(_message.Message):
    __slots__ = ("status", "summary", "indicators")
    class IndicatorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    status: HealthStatus
    summary: str
    indicators: _containers.ScalarMap[str, str]
    def __init__(self, status: _Optional[_Union[HealthStatus, str]] = ..., summary: _Optional[str] = ..., indicators: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BusEnvelope(_message.Message):
    __slots__ = ("message_type", "payload", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    message_type: BusMessageType
    payload: bytes
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, message_type: _Optional[_Union[BusMessageType, str]] = ..., payload: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PolicyUpdate(_message.Message):
    __slots__ = ("version", "policy_id", "training_run_id", "issued_at", "tamiyo_policy_version", "payload")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    TAMIYO_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    version: int
    policy_id: str
    training_run_id: str
    issued_at: _timestamp_pb2.Timestamp
    tamiyo_policy_version: str
    payload: bytes
    def __init__(self, version: _Optional[int] = ..., policy_id: _Optional[str] = ..., training_run_id: _Optional[str] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tamiyo_policy_version: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...
