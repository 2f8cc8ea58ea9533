from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BLUEPRINT_TIER_EXPERIMENTAL: BlueprintTier
BLUEPRINT_TIER_HIGH_RISK: BlueprintTier
BLUEPRINT_TIER_SAFE: BlueprintTier
BLUEPRINT_TIER_UNSPECIFIED: BlueprintTier
BUS_MESSAGE_TYPE_ADAPTATION_COMMAND: BusMessageType
BUS_MESSAGE_TYPE_BENCHMARK_REPORT: BusMessageType
BUS_MESSAGE_TYPE_BSDS_FAILED: BusMessageType
BUS_MESSAGE_TYPE_BSDS_ISSUED: BusMessageType
BUS_MESSAGE_TYPE_EMERGENCY_SIGNAL: BusMessageType
BUS_MESSAGE_TYPE_FIELD_REPORT: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_ERROR: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_READY: BusMessageType
BUS_MESSAGE_TYPE_KERNEL_PREFETCH_REQUEST: BusMessageType
BUS_MESSAGE_TYPE_POLICY_UPDATE: BusMessageType
BUS_MESSAGE_TYPE_SYSTEM_STATE: BusMessageType
BUS_MESSAGE_TYPE_TELEMETRY: BusMessageType
BUS_MESSAGE_TYPE_UNSPECIFIED: BusMessageType
CIRCUIT_STATE_CLOSED: CircuitBreakerState
CIRCUIT_STATE_HALF_OPEN: CircuitBreakerState
CIRCUIT_STATE_OPEN: CircuitBreakerState
CIRCUIT_STATE_UNKNOWN: CircuitBreakerState
COMMAND_CIRCUIT_BREAKER: CommandType
COMMAND_EMERGENCY: CommandType
COMMAND_OPTIMIZER: CommandType
COMMAND_PAUSE: CommandType
COMMAND_ROLLBACK: CommandType
COMMAND_SEED: CommandType
COMMAND_STRUCTURAL_PRUNING: CommandType
COMMAND_UNKNOWN: CommandType
COMPILE_STATUS_COMPILED: CompileStatus
COMPILE_STATUS_EAGER_FALLBACK: CompileStatus
COMPILE_STATUS_FAILED: CompileStatus
COMPILE_STATUS_UNKNOWN: CompileStatus
DESCRIPTOR: _descriptor.FileDescriptor
FIELD_REPORT_OUTCOME_ABORTED: FieldReportOutcome
FIELD_REPORT_OUTCOME_NEUTRAL: FieldReportOutcome
FIELD_REPORT_OUTCOME_REGRESSION: FieldReportOutcome
FIELD_REPORT_OUTCOME_SUCCESS: FieldReportOutcome
FIELD_REPORT_OUTCOME_UNSPECIFIED: FieldReportOutcome
HANDLING_CLASS_QUARANTINE: HandlingClass
HANDLING_CLASS_RESTRICTED: HandlingClass
HANDLING_CLASS_STANDARD: HandlingClass
HANDLING_CLASS_UNSPECIFIED: HandlingClass
HAZARD_BAND_CRITICAL: HazardBand
HAZARD_BAND_HIGH: HazardBand
HAZARD_BAND_LOW: HazardBand
HAZARD_BAND_MEDIUM: HazardBand
HAZARD_BAND_UNSPECIFIED: HazardBand
HEALTH_STATUS_CRITICAL: HealthStatus
HEALTH_STATUS_DEGRADED: HealthStatus
HEALTH_STATUS_HEALTHY: HealthStatus
HEALTH_STATUS_UNHEALTHY: HealthStatus
HEALTH_STATUS_UNKNOWN: HealthStatus
PROVENANCE_CURATED: Provenance
PROVENANCE_EXTERNAL: Provenance
PROVENANCE_HEURISTIC: Provenance
PROVENANCE_UNSPECIFIED: Provenance
PROVENANCE_URABRASK: Provenance
RESOURCE_PROFILE_CPU: ResourceProfile
RESOURCE_PROFILE_GPU: ResourceProfile
RESOURCE_PROFILE_IO_HEAVY: ResourceProfile
RESOURCE_PROFILE_MEMORY_HEAVY: ResourceProfile
RESOURCE_PROFILE_MIXED: ResourceProfile
RESOURCE_PROFILE_UNSPECIFIED: ResourceProfile
SEED_OP_CANCEL: SeedOperation
SEED_OP_CULL: SeedOperation
SEED_OP_EVALUATE: SeedOperation
SEED_OP_FINE_TUNE: SeedOperation
SEED_OP_FOSSILIZE: SeedOperation
SEED_OP_GERMINATE: SeedOperation
SEED_OP_STABILIZE: SeedOperation
SEED_OP_START_GRAFTING: SeedOperation
SEED_OP_START_TRAINING: SeedOperation
SEED_OP_UNKNOWN: SeedOperation
SEED_STAGE_BLENDING: SeedLifecycleStage
SEED_STAGE_CULLED: SeedLifecycleStage
SEED_STAGE_DORMANT: SeedLifecycleStage
SEED_STAGE_EMBARGOED: SeedLifecycleStage
SEED_STAGE_FOSSILIZED: SeedLifecycleStage
SEED_STAGE_GERMINATED: SeedLifecycleStage
SEED_STAGE_PROBATIONARY: SeedLifecycleStage
SEED_STAGE_RESETTING: SeedLifecycleStage
SEED_STAGE_SHADOWING: SeedLifecycleStage
SEED_STAGE_TERMINATED: SeedLifecycleStage
SEED_STAGE_TRAINING: SeedLifecycleStage
SEED_STAGE_UNKNOWN: SeedLifecycleStage
TELEMETRY_LEVEL_CRITICAL: TelemetryLevel
TELEMETRY_LEVEL_ERROR: TelemetryLevel
TELEMETRY_LEVEL_INFO: TelemetryLevel
TELEMETRY_LEVEL_UNSPECIFIED: TelemetryLevel
TELEMETRY_LEVEL_WARNING: TelemetryLevel

class ActivationTelemetry(_message.Message):
    __slots__ = ["activation_frequency", "activation_id", "gradient_contribution", "gradient_flow", "nonlinearity_strength", "saturation_events", "saturation_rate", "stability"]
    ACTIVATION_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FLOW_FIELD_NUMBER: _ClassVar[int]
    NONLINEARITY_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SATURATION_EVENTS_FIELD_NUMBER: _ClassVar[int]
    SATURATION_RATE_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    activation_frequency: float
    activation_id: str
    gradient_contribution: float
    gradient_flow: float
    nonlinearity_strength: float
    saturation_events: float
    saturation_rate: float
    stability: float
    def __init__(self, activation_id: _Optional[str] = ..., saturation_rate: _Optional[float] = ..., saturation_events: _Optional[float] = ..., gradient_flow: _Optional[float] = ..., gradient_contribution: _Optional[float] = ..., nonlinearity_strength: _Optional[float] = ..., stability: _Optional[float] = ..., activation_frequency: _Optional[float] = ...) -> None: ...

class AdaptationCommand(_message.Message):
    __slots__ = ["annotations", "circuit_breaker", "command_id", "command_type", "execution_deadline_ms", "issued_at", "issued_by", "optimizer_adjustment", "rollback_payload", "seed_operation", "target_seed_id", "version"]
    class AnnotationsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    ISSUED_BY_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SEED_OPERATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_SEED_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    annotations: _containers.ScalarMap[str, str]
    circuit_breaker: CircuitBreakerCommand
    command_id: str
    command_type: CommandType
    execution_deadline_ms: int
    issued_at: _timestamp_pb2.Timestamp
    issued_by: str
    optimizer_adjustment: OptimizerAdjustment
    rollback_payload: _struct_pb2.Struct
    seed_operation: SeedOperationCommand
    target_seed_id: str
    version: int
    def __init__(self, version: _Optional[int] = ..., command_id: _Optional[str] = ..., command_type: _Optional[_Union[CommandType, str]] = ..., target_seed_id: _Optional[str] = ..., execution_deadline_ms: _Optional[int] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., issued_by: _Optional[str] = ..., seed_operation: _Optional[_Union[SeedOperationCommand, _Mapping]] = ..., optimizer_adjustment: _Optional[_Union[OptimizerAdjustment, _Mapping]] = ..., circuit_breaker: _Optional[_Union[CircuitBreakerCommand, _Mapping]] = ..., rollback_payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AlphaSchedule(_message.Message):
    __slots__ = ["method", "temperature", "total_steps"]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    method: str
    temperature: float
    total_steps: int
    def __init__(self, method: _Optional[str] = ..., total_steps: _Optional[int] = ..., temperature: _Optional[float] = ...) -> None: ...

class BSDS(_message.Message):
    __slots__ = ["blueprint_id", "cooldown_ms", "failure_rate", "gradient_instability", "grafting_strategies", "handling_class", "hazard_band", "issued_at", "latency_p95_ms", "peak_memory_mb", "provenance", "recommendation", "resource_profile", "risk_score", "version"]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_MS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_INSTABILITY_FIELD_NUMBER: _ClassVar[int]
    GRAFTING_STRATEGIES_FIELD_NUMBER: _ClassVar[int]
    HANDLING_CLASS_FIELD_NUMBER: _ClassVar[int]
    HAZARD_BAND_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_MS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    cooldown_ms: float
    failure_rate: float
    gradient_instability: float
    grafting_strategies: _containers.RepeatedScalarFieldContainer[str]
    handling_class: HandlingClass
    hazard_band: HazardBand
    issued_at: _timestamp_pb2.Timestamp
    latency_p95_ms: float
    peak_memory_mb: float
    provenance: Provenance
    recommendation: str
    resource_profile: ResourceProfile
    risk_score: float
    version: int
    def __init__(self, version: _Optional[int] = ..., blueprint_id: _Optional[str] = ..., risk_score: _Optional[float] = ..., hazard_band: _Optional[_Union[HazardBand, str]] = ..., handling_class: _Optional[_Union[HandlingClass, str]] = ..., resource_profile: _Optional[_Union[ResourceProfile, str]] = ..., recommendation: _Optional[str] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, str]] = ..., grafting_strategies: _Optional[_Iterable[str]] = ..., cooldown_ms: _Optional[float] = ..., gradient_instability: _Optional[float] = ..., failure_rate: _Optional[float] = ..., peak_memory_mb: _Optional[float] = ..., latency_p95_ms: _Optional[float] = ...) -> None: ...

class BSDSFailed(_message.Message):
    __slots__ = ["blueprint_id", "reason"]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    reason: str
    def __init__(self, blueprint_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class BSDSIssued(_message.Message):
    __slots__ = ["bsds"]
    BSDS_FIELD_NUMBER: _ClassVar[int]
    bsds: BSDS
    def __init__(self, bsds: _Optional[_Union[BSDS, _Mapping]] = ...) -> None: ...

class BlueprintDescriptor(_message.Message):
    __slots__ = ["allowed_parameters", "approval_required", "blueprint_id", "description", "name", "quarantine_only", "risk", "stage", "tier"]
    class AllowedParametersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParameterBounds
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParameterBounds, _Mapping]] = ...) -> None: ...
    ALLOWED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ONLY_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    allowed_parameters: _containers.MessageMap[str, ParameterBounds]
    approval_required: bool
    blueprint_id: str
    description: str
    name: str
    quarantine_only: bool
    risk: float
    stage: int
    tier: BlueprintTier
    def __init__(self, blueprint_id: _Optional[str] = ..., name: _Optional[str] = ..., tier: _Optional[_Union[BlueprintTier, str]] = ..., allowed_parameters: _Optional[_Mapping[str, ParameterBounds]] = ..., risk: _Optional[float] = ..., stage: _Optional[int] = ..., quarantine_only: bool = ..., approval_required: bool = ..., description: _Optional[str] = ...) -> None: ...

class BusEnvelope(_message.Message):
    __slots__ = ["attributes", "message_type", "payload"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    message_type: BusMessageType
    payload: bytes
    def __init__(self, message_type: _Optional[_Union[BusMessageType, str]] = ..., payload: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CircuitBreakerCommand(_message.Message):
    __slots__ = ["desired_state", "rationale"]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    desired_state: CircuitBreakerState
    rationale: str
    def __init__(self, desired_state: _Optional[_Union[CircuitBreakerState, str]] = ..., rationale: _Optional[str] = ...) -> None: ...

class ConnectionTelemetry(_message.Message):
    __slots__ = ["data_flow_volume", "latency_ms", "source_layer_id", "target_layer_id"]
    DATA_FLOW_VOLUME_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    data_flow_volume: float
    latency_ms: float
    source_layer_id: str
    target_layer_id: str
    def __init__(self, source_layer_id: _Optional[str] = ..., target_layer_id: _Optional[str] = ..., data_flow_volume: _Optional[float] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class FieldReport(_message.Message):
    __slots__ = ["base_loss", "blueprint_id", "command_id", "control_delta", "follow_up_actions", "issued_at", "layer_id", "metrics", "notes", "observation_window_epochs", "outcome", "packet_id", "report_id", "seed_id", "tamiyo_policy_version", "training_run_id", "treated_delta", "version"]
    class MetricsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BASE_LOSS_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_DELTA_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UP_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_WINDOW_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    TAMIYO_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TREATED_DELTA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    base_loss: float
    blueprint_id: str
    command_id: str
    control_delta: float
    follow_up_actions: _containers.RepeatedCompositeFieldContainer[FollowUpAction]
    issued_at: _timestamp_pb2.Timestamp
    layer_id: str
    metrics: _containers.ScalarMap[str, float]
    notes: str
    observation_window_epochs: int
    outcome: FieldReportOutcome
    packet_id: str
    report_id: str
    seed_id: str
    tamiyo_policy_version: str
    training_run_id: str
    treated_delta: float
    version: int
    def __init__(self, version: _Optional[int] = ..., report_id: _Optional[str] = ..., command_id: _Optional[str] = ..., training_run_id: _Optional[str] = ..., seed_id: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., outcome: _Optional[_Union[FieldReportOutcome, str]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., observation_window_epochs: _Optional[int] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., tamiyo_policy_version: _Optional[str] = ..., follow_up_actions: _Optional[_Iterable[_Union[FollowUpAction, _Mapping]]] = ..., notes: _Optional[str] = ..., layer_id: _Optional[str] = ..., packet_id: _Optional[str] = ..., control_delta: _Optional[float] = ..., treated_delta: _Optional[float] = ..., base_loss: _Optional[float] = ...) -> None: ...

class FollowUpAction(_message.Message):
    __slots__ = ["action_type", "rationale"]
    ACTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    action_type: str
    rationale: str
    def __init__(self, action_type: _Optional[str] = ..., rationale: _Optional[str] = ...) -> None: ...

class HardwareContext(_message.Message):
    __slots__ = ["available_memory_gb", "compute_capability", "device_id", "device_type", "temperature_celsius", "total_memory_gb", "utilization_percent"]
    AVAILABLE_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    available_memory_gb: float
    compute_capability: int
    device_id: str
    device_type: str
    temperature_celsius: float
    total_memory_gb: float
    utilization_percent: float
    def __init__(self, device_type: _Optional[str] = ..., device_id: _Optional[str] = ..., total_memory_gb: _Optional[float] = ..., available_memory_gb: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., utilization_percent: _Optional[float] = ..., compute_capability: _Optional[int] = ...) -> None: ...

class KernelCatalogUpdate(_message.Message):
    __slots__ = ["artifact_ref", "blueprint_id", "checksum", "compile_ms", "guard_digest", "issued_at", "prewarm_ms", "status"]
    ARTIFACT_REF_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    COMPILE_MS_FIELD_NUMBER: _ClassVar[int]
    GUARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    PREWARM_MS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    artifact_ref: str
    blueprint_id: str
    checksum: str
    compile_ms: float
    guard_digest: str
    issued_at: _timestamp_pb2.Timestamp
    prewarm_ms: float
    status: CompileStatus
    def __init__(self, blueprint_id: _Optional[str] = ..., artifact_ref: _Optional[str] = ..., checksum: _Optional[str] = ..., guard_digest: _Optional[str] = ..., compile_ms: _Optional[float] = ..., prewarm_ms: _Optional[float] = ..., status: _Optional[_Union[CompileStatus, str]] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LayerTelemetry(_message.Message):
    __slots__ = ["gradient_norm", "gradient_variance", "hook_latency_ms", "latency_budget_ms", "layer_id", "loss", "samples_per_s", "update_frequency", "update_magnitude", "weight_norm"]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    HOOK_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    LAYER_ID_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NORM_FIELD_NUMBER: _ClassVar[int]
    gradient_norm: float
    gradient_variance: float
    hook_latency_ms: float
    latency_budget_ms: float
    layer_id: str
    loss: float
    samples_per_s: float
    update_frequency: float
    update_magnitude: float
    weight_norm: float
    def __init__(self, layer_id: _Optional[str] = ..., loss: _Optional[float] = ..., gradient_norm: _Optional[float] = ..., gradient_variance: _Optional[float] = ..., weight_norm: _Optional[float] = ..., samples_per_s: _Optional[float] = ..., hook_latency_ms: _Optional[float] = ..., latency_budget_ms: _Optional[float] = ..., update_frequency: _Optional[float] = ..., update_magnitude: _Optional[float] = ...) -> None: ...

class MetricPoint(_message.Message):
    __slots__ = ["attributes", "name", "unit", "value"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    name: str
    unit: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class OptimizerAdjustment(_message.Message):
    __slots__ = ["hyperparameters", "optimizer_id"]
    class HyperparametersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_ID_FIELD_NUMBER: _ClassVar[int]
    hyperparameters: _containers.ScalarMap[str, float]
    optimizer_id: str
    def __init__(self, optimizer_id: _Optional[str] = ..., hyperparameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ParameterBounds(_message.Message):
    __slots__ = ["max_value", "min_value"]
    MAX_VALUE_FIELD_NUMBER: _ClassVar[int]
    MIN_VALUE_FIELD_NUMBER: _ClassVar[int]
    max_value: float
    min_value: float
    def __init__(self, min_value: _Optional[float] = ..., max_value: _Optional[float] = ...) -> None: ...

class ParameterTelemetry(_message.Message):
    __slots__ = ["convergence_rate", "gradient_variance", "learning_rate", "momentum", "optimizer_family", "parameter_id", "update_magnitude"]
    CONVERGENCE_RATE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FAMILY_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    convergence_rate: float
    gradient_variance: float
    learning_rate: float
    momentum: float
    optimizer_family: str
    parameter_id: str
    update_magnitude: float
    def __init__(self, parameter_id: _Optional[str] = ..., optimizer_family: _Optional[str] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., gradient_variance: _Optional[float] = ..., convergence_rate: _Optional[float] = ..., update_magnitude: _Optional[float] = ...) -> None: ...

class SeedCapabilities(_message.Message):
    __slots__ = ["allowed_blending_methods", "allowed_optimizer_families", "isolation_exemptions"]
    ALLOWED_BLENDING_METHODS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_OPTIMIZER_FAMILIES_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_EXEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    allowed_blending_methods: _containers.RepeatedScalarFieldContainer[str]
    allowed_optimizer_families: _containers.RepeatedScalarFieldContainer[str]
    isolation_exemptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed_blending_methods: _Optional[_Iterable[str]] = ..., allowed_optimizer_families: _Optional[_Iterable[str]] = ..., isolation_exemptions: _Optional[_Iterable[str]] = ...) -> None: ...

class SeedOperationCommand(_message.Message):
    __slots__ = ["blueprint_id", "operation", "parameters"]
    class ParametersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    operation: SeedOperation
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, operation: _Optional[_Union[SeedOperation, str]] = ..., blueprint_id: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class SeedState(_message.Message):
    __slots__ = ["activity_level", "adaptation_trigger_threshold", "age_epochs", "alpha", "alpha_schedule", "blueprint_id", "capabilities", "global_step", "gradient_norm", "layer_depth", "learning_rate", "metrics", "monitored_layers", "monitoring_frequency", "policy_version", "quarantine_only", "risk_score", "risk_tolerance", "seed_id", "stage", "success_rate", "timestamp_ns", "training_run_id"]
    class MetricsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ACTIVITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_TRIGGER_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    AGE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ALPHA_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    LAYER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MONITORED_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MONITORING_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_ONLY_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    RISK_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    activity_level: float
    adaptation_trigger_threshold: float
    age_epochs: int
    alpha: float
    alpha_schedule: AlphaSchedule
    blueprint_id: str
    capabilities: SeedCapabilities
    global_step: int
    gradient_norm: float
    layer_depth: int
    learning_rate: float
    metrics: _containers.ScalarMap[str, float]
    monitored_layers: _containers.RepeatedScalarFieldContainer[str]
    monitoring_frequency: float
    policy_version: str
    quarantine_only: bool
    risk_score: float
    risk_tolerance: float
    seed_id: str
    stage: SeedLifecycleStage
    success_rate: float
    timestamp_ns: int
    training_run_id: str
    def __init__(self, seed_id: _Optional[str] = ..., stage: _Optional[_Union[SeedLifecycleStage, str]] = ..., gradient_norm: _Optional[float] = ..., learning_rate: _Optional[float] = ..., layer_depth: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., age_epochs: _Optional[int] = ..., risk_score: _Optional[float] = ..., blueprint_id: _Optional[str] = ..., monitored_layers: _Optional[_Iterable[str]] = ..., monitoring_frequency: _Optional[float] = ..., adaptation_trigger_threshold: _Optional[float] = ..., activity_level: _Optional[float] = ..., success_rate: _Optional[float] = ..., risk_tolerance: _Optional[float] = ..., alpha: _Optional[float] = ..., alpha_schedule: _Optional[_Union[AlphaSchedule, _Mapping]] = ..., quarantine_only: bool = ..., policy_version: _Optional[str] = ..., capabilities: _Optional[_Union[SeedCapabilities, _Mapping]] = ..., training_run_id: _Optional[str] = ..., global_step: _Optional[int] = ..., timestamp_ns: _Optional[int] = ...) -> None: ...

class SystemHealth(_message.Message):
    __slots__ = ["indicators", "status", "summary"]
    class IndicatorsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    indicators: _containers.ScalarMap[str, str]
    status: HealthStatus
    summary: str
    def __init__(self, status: _Optional[_Union[HealthStatus, str]] = ..., summary: _Optional[str] = ..., indicators: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SystemStatePacket(_message.Message):
    __slots__ = ["activations", "blueprint_id", "connections", "current_epoch", "experiment_name", "global_step", "hardware_context", "layers", "packet_id", "parameters", "seed_states", "source_subsystem", "timestamp_ns", "training_loss", "training_metrics", "training_run_id", "validation_accuracy", "validation_loss", "version"]
    class TrainingMetricsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SEED_STATES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    activations: _containers.RepeatedCompositeFieldContainer[ActivationTelemetry]
    blueprint_id: str
    connections: _containers.RepeatedCompositeFieldContainer[ConnectionTelemetry]
    current_epoch: int
    experiment_name: str
    global_step: int
    hardware_context: HardwareContext
    layers: _containers.RepeatedCompositeFieldContainer[LayerTelemetry]
    packet_id: str
    parameters: _containers.RepeatedCompositeFieldContainer[ParameterTelemetry]
    seed_states: _containers.RepeatedCompositeFieldContainer[SeedState]
    source_subsystem: str
    timestamp_ns: int
    training_loss: float
    training_metrics: _containers.ScalarMap[str, float]
    training_run_id: str
    validation_accuracy: float
    validation_loss: float
    version: int
    def __init__(self, version: _Optional[int] = ..., current_epoch: _Optional[int] = ..., validation_accuracy: _Optional[float] = ..., validation_loss: _Optional[float] = ..., timestamp_ns: _Optional[int] = ..., hardware_context: _Optional[_Union[HardwareContext, _Mapping]] = ..., training_metrics: _Optional[_Mapping[str, float]] = ..., seed_states: _Optional[_Iterable[_Union[SeedState, _Mapping]]] = ..., packet_id: _Optional[str] = ..., global_step: _Optional[int] = ..., training_loss: _Optional[float] = ..., source_subsystem: _Optional[str] = ..., training_run_id: _Optional[str] = ..., experiment_name: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerTelemetry, _Mapping]]] = ..., activations: _Optional[_Iterable[_Union[ActivationTelemetry, _Mapping]]] = ..., parameters: _Optional[_Iterable[_Union[ParameterTelemetry, _Mapping]]] = ..., connections: _Optional[_Iterable[_Union[ConnectionTelemetry, _Mapping]]] = ...) -> None: ...

class TelemetryEvent(_message.Message):
    __slots__ = ["attributes", "description", "event_id", "level"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    description: str
    event_id: str
    level: TelemetryLevel
    def __init__(self, event_id: _Optional[str] = ..., description: _Optional[str] = ..., level: _Optional[_Union[TelemetryLevel, str]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TelemetryPacket(_message.Message):
    __slots__ = ["events", "level", "metrics", "packet_id", "source_subsystem", "spans", "system_health", "timestamp"]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_HEALTH_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[TelemetryEvent]
    level: TelemetryLevel
    metrics: _containers.RepeatedCompositeFieldContainer[MetricPoint]
    packet_id: str
    source_subsystem: str
    spans: _containers.RepeatedCompositeFieldContainer[TraceSpan]
    system_health: SystemHealth
    timestamp: _timestamp_pb2.Timestamp
    def __init__(self, packet_id: _Optional[str] = ..., timestamp: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., source_subsystem: _Optional[str] = ..., level: _Optional[_Union[TelemetryLevel, str]] = ..., metrics: _Optional[_Iterable[_Union[MetricPoint, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[TelemetryEvent, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[TraceSpan, _Mapping]]] = ..., system_health: _Optional[_Union[SystemHealth, _Mapping]] = ...) -> None: ...

class TraceSpan(_message.Message):
    __slots__ = ["attributes", "end_time", "name", "parent_span_id", "span_id", "start_time"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    end_time: _timestamp_pb2.Timestamp
    name: str
    parent_span_id: str
    span_id: str
    start_time: _timestamp_pb2.Timestamp
    def __init__(self, span_id: _Optional[str] = ..., parent_span_id: _Optional[str] = ..., name: _Optional[str] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SeedLifecycleStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class HealthStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CommandType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class SeedOperation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CircuitBreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class TelemetryLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class FieldReportOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class BlueprintTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class HazardBand(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class HandlingClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class ResourceProfile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Provenance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CompileStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class BusMessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
