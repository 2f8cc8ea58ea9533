"""Give shorthands for feature declarations: names of contract tables, and one function per kind of feature."""

from typing import Final

from schemas.feature_types import Feature, Kind, Sources, Transform

STATE: Final = "tolaria.system_state"
LAYER_TELEMETRY: Final = "tolaria.layer_telemetry"
ACTIVATION_TELEMETRY: Final = "tolaria.activation_telemetry"
PARAMETER_TELEMETRY: Final = "tolaria.parameter_telemetry"
CONNECTION_TELEMETRY: Final = "tolaria.connection_telemetry"
SEED_STATE: Final = "kasmina.seed_state"
BLUEPRINT_RECORD: Final = "urza.blueprint"
BSDS: Final = "urabrask.bsds"
HEALTH: Final = "weatherlight.health"


def numeric(
    name: str,
    system: str,
    sources: Sources,
    transform: Transform,
    *,
    mandatory: bool = False,
    neutral: float = 0.0,
    metric: str | None = None,
    derive: str | None = None,
    note: str = "",
) -> Feature:
    """Declare a numeric feature: one value channel, one mask channel."""
    return Feature(name, Kind.NUMERIC, system, sources, transform, mandatory, neutral, metric=metric, derive=derive, note=note)


def categorical(
    name: str,
    system: str,
    sources: Sources,
    *,
    registry: str = "",
    mandatory: bool = False,
    derive: str | None = None,
    note: str = "",
) -> Feature:
    """Declare a categorical feature; an empty `registry` means the feature's name."""
    return Feature(
        name, Kind.CATEGORICAL, system, sources, mandatory=mandatory, registry=registry or name, derive=derive, note=note
    )


def multi_hot(name: str, system: str, sources: Sources, *, registry: str, width: int, note: str = "") -> Feature:
    """Declare a multi-hot feature of `width` channels."""
    return Feature(name, Kind.MULTI_HOT, system, sources, registry=registry, width=width, note=note)


def share(name: str, system: str, sources: Sources, *, registry: str, width: int, derive: str, note: str = "") -> Feature:
    """Declare a share feature of `width` channels: the share of each category in a set."""
    return Feature(name, Kind.SHARE, system, sources, registry=registry, width=width, derive=derive, note=note)


def flag(name: str, system: str, sources: Sources, *, derive: str | None = None, note: str = "") -> Feature:
    """Declare a flag: one 0/1 value channel, one mask channel."""
    return Feature(name, Kind.FLAG, system, sources, derive=derive, note=note)
