"""Read `$TAMIYO_HOME/pipeline.toml`: thresholds and waiting times of one home; the file beside this module has defaults."""

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from schemas.configuration import TrainingConfig, TrainingLaunch
from schemas.errors import ContractError

PIPELINE_FILE: Final = "pipeline.toml"
_DEFAULTS: Final = Path(__file__).with_name(PIPELINE_FILE)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhd])[a-z]*\s*")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _duration(value: object) -> object:
    if isinstance(value, bool | timedelta):
        return value
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    text = _DURATION.fullmatch(str(value))
    if text is None:
        raise ValueError('expected seconds, or a text such as "90s", "20m", "1h" or "7d"')
    return timedelta(seconds=float(text[1]) * _UNITS[text[2]])


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckThresholds(_Section):
    """Thresholds of asset checks: shares of elements or indices, numbers of rebuilds and runs, an index of stability."""

    mandatory_coverage: Share
    family_coverage: Share
    coverage_drop: Share
    coverage_drop_rebuilds: Annotated[int, Field(ge=1)]
    optional_gap_runs: Annotated[int, Field(ge=1)]
    registry_capacity: Share
    drift: Annotated[float, Field(ge=0.0)]


class TrainingSection(TrainingConfig):
    """Fields of the training configuration, and where a training runs."""

    launch: TrainingLaunch

    @property
    def config(self) -> TrainingConfig:
        """The fields that are part of the build id."""
        return TrainingConfig(**{name: getattr(self, name) for name in TrainingConfig.model_fields})


class PipelineFile(_Section):
    """The parsed file: durations, thresholds of checks and gates, fields of the training configuration."""

    retrain_after: Duration
    max_silence: Duration
    max_age: Duration
    checks: CheckThresholds
    gates: dict[str, float]
    training: TrainingSection


def read_pipeline_file(home: Path) -> PipelineFile:
    """Return the defaults as changed by the file of `home`. Raises ContractError if it can't be read or holds a bad value."""
    path = home / PIPELINE_FILE
    defaults = tomllib.loads(_DEFAULTS.read_text(encoding="utf-8"))
    try:
        changed = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        changed = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ContractError(f"{path}: expected TOML, found: {error}; mend it, or remove it for the defaults") from None
    unknown = changed.get("gates", {}).keys() - defaults["gates"].keys() if isinstance(changed.get("gates"), dict) else set()
    if unknown:
        known = ", ".join(defaults["gates"])
        raise ContractError(f"{path}: gates: expected some of {known}, found {', '.join(sorted(unknown))}")
    try:
        return PipelineFile.model_validate(_over(defaults, changed))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ContractError(f"{path}: {wrong}; all names and defaults are in lake/{_DEFAULTS.name}") from None


def _over(defaults: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` overridden by the values of `changed`, table by table."""
    merged = dict(defaults)
    for name, value in changed.items():
        known = merged.get(name)
        merged[name] = _over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
