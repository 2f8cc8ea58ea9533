"""Define `manifest.json`, the published description of a bundle, as a pydantic model; its JSON Schema is published too."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from gnn.bundle.build_id import BuildInputs
from gnn.graph.distribution import Distribution
from schemas.artifacts import Digest
from schemas.configuration import ModelConfig, TrainingConfig

Dimension = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern="^[A-Z]$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureSpec(_Part):
    """One feature or edge attribute, in its place: `width` value channels (0 for a categorical) of `dtype`."""

    name: str
    dtype: Literal["float32", "int64"]
    kind: str
    transform: str
    width: int = Field(ge=0)
    registry: str | None
    mandatory: bool
    neutral: float


class GroupSpec(_Part):
    """The ordered features of a node type or relation."""

    features: list[FeatureSpec]


class RelationSpec(GroupSpec):
    """A relation; its reverse carries the same attributes."""

    source: str
    name: str
    target: str


class TensorSpec(_Part):
    """Shape and dtype; a letter stands for a size that varies: N nodes, E edges, G graphs, S seeds, B blueprints."""

    shape: list[Dimension]
    dtype: str


class OutputSpec(TensorSpec):
    """An output: whether anything trained it, and if not, why; one that is not trained is not offered online."""

    trained: bool
    reason: str | None


class RegistryPart(_Part):
    """A registry as it stands in the bundle."""

    version: int = Field(ge=0)
    digest: Digest
    capacity: int = Field(ge=3)
    size: int = Field(ge=0)


class NormsPart(_Part):
    """The norms as they stand in the bundle."""

    version: int = Field(ge=0)
    digest: Digest


class PolicyPart(_Part):
    """The 32 kernels in column order, those measured on training hosts, and the measured ones by layer type."""

    kernels: list[str] = Field(min_length=32, max_length=32)
    measured: list[str]
    site_kernels: dict[str, list[str]]
    horizon_steps: int | None


class DecisionPart(_Part):
    """Utility is (1 - policy_share) value + policy_share x logit_scale x logit - harm_weight x probability of harm, in nats.

    The pair with the highest is taken if it is above `least`; else nothing is done.
    """

    policy_share: float = Field(ge=0, le=1)
    logit_scale: float = Field(gt=0)
    harm_weight: float = Field(ge=0)
    least: float


class CalibrationPart(_Part):
    """Risk probabilities are softmax(logits / temperature); the interval is value ± scale x deviation."""

    risk_temperature: float = Field(gt=0)
    interval_level: float = Field(gt=0, lt=1)
    interval_scale: float = Field(ge=0)
    decision: DecisionPart
    examples: int = Field(ge=0)
    missing: dict[str, str]


class HeadPart(_Part):
    """Whether a head was trained, on how many labels, and if not, why."""

    trained: bool
    labels: int = Field(ge=0)
    reason: str | None


class Member(_Part):
    """Digest and size of another member."""

    sha256: Digest
    size: int = Field(ge=0)


class _Span(_Part):
    """A figure with its interval."""

    mean: float
    low: float
    high: float


class _Rates(_Part):
    """Harmful outcomes among the chosen pairs, and among random ones."""

    chosen: float | None
    random: float | None


# the figures that gates and reports calculate with; the others are only shown
_FIGURES: Final[dict[str, TypeAdapter[Any]]] = {
    "benefit": TypeAdapter(_Span | None),
    "gap_closed": TypeAdapter(dict[str, _Span | None] | None),
    "gap_closed_minus_best_baseline": TypeAdapter(_Span | None),
    "harm_rate": TypeAdapter(_Rates | None),
    "risk_ece_after": TypeAdapter(float | None),
    "value_interval_coverage": TypeAdapter(float | None),
}


class Manifest(_Part):
    """Everything about a bundle that a reader checks before it serves it."""

    schema_version: Literal[1]
    model: Literal["tamiyo_gnn_v1"]
    build_id: Digest
    inputs: BuildInputs
    node_types: dict[str, GroupSpec]
    relations: dict[str, RelationSpec]
    tensors: dict[str, TensorSpec]
    outputs: dict[str, OutputSpec]
    weights: dict[str, TensorSpec]
    network: ModelConfig
    registries: dict[str, RegistryPart]
    norms: NormsPart
    policy: PolicyPart
    calibration: CalibrationPart
    heads: dict[str, HeadPart]
    versions: dict[str, str]
    training: dict[str, Any]
    training_config: TrainingConfig
    distributions: dict[str, Distribution] = {}
    metrics: dict[str, Any]
    metrics_missing: dict[str, str]
    members: dict[str, Member]

    @field_validator("metrics")
    @classmethod
    def _figures(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        """Refuse a figure that is not in its published form: a gate or a report page would fail on it."""
        for name, form in _FIGURES.items():
            try:
                form.validate_python(metrics.get(name), strict=True)
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg']}") from None
        return metrics

    def to_bytes(self) -> bytes:
        """Return the published bytes: strict JSON with sorted keys."""
        return canonical(self.model_dump(mode="json"))


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return strict JSON with sorted keys, indented, ending in a newline (UTF-8)."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("utf-8")


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()
