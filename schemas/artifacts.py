"""Declare the formats that the pipeline publishes: registries with their `index.json`, and `gnn_norms.json`.

A registry maps category -> index: 0 means missing, 1..capacity-2 are entries, capacity-1 means unknown. Everything that
an outside reader needs is here, as data (`REGISTRIES`) and as pydantic models, whose JSON Schemas are in
`docs/simic/schemas/`. The digest is defined once, in `registry_digest`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from schemas.features import EWMA_METRICS, PRIOR_METRICS

ALPHA: Final = 0.1
EPSILON: Final = 1e-6
NORMS_SCHEMA: Final = 1
MISSING: Final = 0

# (mean, standard deviation) from which every run's EWMA state starts
EWMA_PRIORS: Final[dict[str, tuple[float, float]]] = {
    "loss": (0.8, 0.3),
    "gradient_norm": (1.0, 0.5),
    "samples_per_s": (4500.0, 500.0),
    "hook_latency_ms": (12.0, 6.0),
}


@dataclass(frozen=True)
class RegistrySpec:
    """One registry: its fixed capacity, its seeded keys (at indices 1..n, in order), and how keys are normalized.

    `lower_case`: keys are lower-cased before anything else. `closed`: the vocabulary is an enum; nothing is appended.
    """

    name: str
    capacity: int
    seeded: tuple[str, ...] = ()
    lower_case: bool = False
    closed: bool = False

    @property
    def unknown(self) -> int:
        """Index of a key that is present but not in the registry."""
        return self.capacity - 1

    @property
    def last(self) -> int:
        """The highest index that an entry may have."""
        return self.capacity - 2

    @property
    def file(self) -> str:
        """Name of the flat file, e.g. `seed_registry.json`."""
        return f"{self.name}_registry.json"

    def normal(self, key: str) -> str:
        """Return the key as the registry holds it."""
        return key.lower() if self.lower_case else key


_STAGES: Final = (
    "DORMANT",
    "GERMINATED",
    "TRAINING",
    "BLENDING",
    "SHADOWING",
    "PROBATIONARY",
    "FOSSILIZED",
    "CULLED",
    "EMBARGOED",
    "RESETTING",
    "TERMINATED",
)

_SPECS: Final = (
    RegistrySpec("seed", 4096),
    RegistrySpec("blueprint", 4096),
    RegistrySpec("schedule", 256, ("linear", "cosine", "warmup_hold", "sigmoid"), lower_case=True),
    RegistrySpec("layer_type", 1024),
    RegistrySpec("activation_type", 1024),
    RegistrySpec("optimizer_family", 256, ("sgd", "adam", "adamw", "rmsprop", "adagrad"), lower_case=True),
    RegistrySpec("hazard_class", 256, ("LOW", "MEDIUM", "HIGH", "CRITICAL"), closed=True),
    RegistrySpec("handling_class", 256, ("STANDARD", "RESTRICTED", "QUARANTINE"), closed=True),
    RegistrySpec("resource_profile", 256, ("CPU", "GPU", "MEMORY_HEAVY", "IO_HEAVY", "MIXED"), closed=True),
    RegistrySpec("lifecycle_stage", 256, _STAGES, closed=True),
    RegistrySpec("blueprint_tier", 256, ("SAFE", "EXPERIMENTAL", "HIGH_RISK"), closed=True),
    RegistrySpec("policy_version", 1024),
    RegistrySpec("compile_status", 256, ("COMPILED", "EAGER_FALLBACK", "FAILED"), closed=True),
    RegistrySpec("health_status", 256, ("HEALTHY", "DEGRADED", "UNHEALTHY", "CRITICAL"), closed=True),
    RegistrySpec("gradient_instability", 256, ("vanishing", "stable", "noisy", "exploding")),
    RegistrySpec("isolation_exemption", 256),
    RegistrySpec("grafting_strategy", 256),
    RegistrySpec("parameter_target", 256),
)

REGISTRIES: Final[dict[str, RegistrySpec]] = {spec.name: spec for spec in _SPECS}


def registry_digest(entries: Mapping[str, int]) -> str:
    """Return the SHA-256 (hex) of the JSON of the [key, index] pairs sorted by key: separators `,` and `:`, ASCII-escaped."""
    pairs = [[key, entries[key]] for key in sorted(entries)]
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode("ascii")).hexdigest()


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hex.")]
Index = Annotated[int, Field(ge=1, description="Index of an entry: 1..capacity-2.")]


class _Published(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class VersionRecord(_Published):
    """One kept version of a registry: `versions/<name>/<version>.json` holds its entries."""

    version: int = Field(ge=1)
    digest: Digest
    added: dict[str, Index] = Field(description="The entries that this version has and the one before it had not.")


class RegistryRecord(_Published):
    """The state of one registry."""

    version: int = Field(ge=1)
    capacity: int = Field(ge=3, description="Fixed: index 0 is missing, capacity-1 unknown.")
    size: int = Field(ge=0, description="Number of entries.")
    digest: Digest
    retired: list[str] = Field(description="Keys that vanished upstream, or that an operator retired; never freed.")
    retired_by_operator: list[str] = Field(description="Those of `retired` that stay so even when they are sent again.")
    holes: list[Index] = Field(description="Unused indices below the highest used one: gaps that Simic left.")
    versions: list[VersionRecord]


class RegistryIndex(RootModel[dict[str, RegistryRecord]]):
    """`index.json`: per registry what is current, and how each version came to be."""

    model_config = ConfigDict(frozen=True, strict=True)


class FlatRegistry(RootModel[dict[str, Index]]):
    """`<name>_registry.json`: one flat JSON object {key: index}, keys sorted, and nothing else."""

    model_config = ConfigDict(frozen=True, strict=True)


class MetricNorm(_Published):
    """EWMA state of one metric after its newest observation over all runs; for readers outside, never a start of ours."""

    mean: float
    var: float = Field(ge=0.0)
    count: int = Field(ge=0, description="Observations of that run.")
    training_run_id: str | None = Field(description="Run of the newest observation; null before the first one.")
    timestamp_ns: int | None = Field(description="Its time in nanoseconds since 1970 UTC; null before the first one.")


class PriorNorm(_Published):
    """Fitted prior of one catalogue number: z = (transform(x) - mean) / sqrt(var)."""

    mean: float
    var: float = Field(gt=0.0)
    transform: Literal["log1p", "identity"]


class NormsFile(_Published):
    """`gnn_norms.json`: flat, strict JSON (no NaN, no Infinity)."""

    schema_version: Literal[1] = Field(alias="schema")
    version: int = Field(ge=1)
    alpha: float
    epsilon: float
    loss: MetricNorm
    gradient_norm: MetricNorm
    samples_per_s: MetricNorm
    hook_latency_ms: MetricNorm
    parameter_count: PriorNorm
    learning_rate: PriorNorm
    momentum: PriorNorm
    gradient_variance: PriorNorm

    def metrics(self) -> dict[str, MetricNorm]:
        """Return the EWMA metrics by name."""
        return {name: getattr(self, name) for name in EWMA_METRICS}

    def priors(self) -> dict[str, PriorNorm]:
        """Return the fitted priors by name."""
        return {name: getattr(self, name) for name in PRIOR_METRICS}
