"""Where things are and how strict the checks are: resolved once, from options, the environment and the defaults."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnn.model.config import TrainingConfig
from schemas.decode import Limits
from schemas.errors import ContractError, StorageError, TamiyoError

SAMPLE = Path(__file__).resolve().parents[1] / "recorder" / "sample"
DEFAULT_HOME = Path("var/tamiyo")
DEFAULT_EXPORTS = Path("var/exports")
DEFAULT_DAGSTER_HOME = Path("var/dagster")


class ExportsMissing(TamiyoError):
    """There is no exports root to read."""


class Settings(BaseModel):
    """Configuration of one pipeline: its home, the exports that it reads, the thresholds of its checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    exports: Path
    exports_are_sample: bool = False
    dagster_home: Path
    alert_webhook: str | None = None
    mandatory_coverage: float = Field(default=1.0, ge=0.0, le=1.0)
    family_coverage: float = Field(default=0.70, ge=0.0, le=1.0)
    limits: Limits = Limits()
    training: TrainingConfig = TrainingConfig()
    gates: dict[str, float] = Field(default_factory=dict)


def resolve(*, exports: Path | None = None, home: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from options first, then `TAMIYO_*` variables, then the defaults of the house.

    Where no exports root is named and `var/exports` is absent or empty, the committed sample is read. `TAMIYO_LIMITS` is a JSON
    object of bounds on what decoders accept; ContractError where it names another one, or where any value is a bad one.
    """
    env = os.environ if environment is None else environment
    named_home = home or _path(env, "TAMIYO_HOME")
    named_exports = exports or _path(env, "TAMIYO_EXPORTS")
    is_sample = named_exports is None and not _has_entries(DEFAULT_EXPORTS)
    root = named_exports or (SAMPLE if is_sample else DEFAULT_EXPORTS)
    default_dagster = DEFAULT_DAGSTER_HOME if named_home is None else named_home / "dagster"
    return Settings(
        home=(named_home or DEFAULT_HOME).absolute(),
        exports=root.absolute(),
        exports_are_sample=is_sample,
        dagster_home=(_path(env, "DAGSTER_HOME") or default_dagster).absolute(),
        alert_webhook=env.get("TAMIYO_ALERT_WEBHOOK") or None,
        mandatory_coverage=_share(env, "TAMIYO_MANDATORY_COVERAGE", 1.0),
        family_coverage=_share(env, "TAMIYO_FAMILY_COVERAGE", 0.70),
        limits=_limits(env.get("TAMIYO_LIMITS") or "{}"),
    )


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise ContractError(f"{name}: expected a number from 0 to 1, found {text!r}; leave it away for {default}")
    return share


def _limits(text: str) -> Limits:
    try:
        return Limits.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or text[:80]!r}: {one['msg']}" for one in error.errors())
        raise ContractError(
            f"TAMIYO_LIMITS: expected a JSON object of {', '.join(Limits.model_fields)}, found {wrong}"
        ) from None


def require_home(settings: Settings) -> None:
    """Make the home; raise StorageError where it can't be written to."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        raise StorageError(
            f"home {settings.home}: expected a directory that can be written to, found: {error.strerror}; "
            "pass --home DIR or set TAMIYO_HOME"
        ) from None


def require_exports(settings: Settings) -> None:
    """Raise ExportsMissing where the exports root is not a directory."""
    if not settings.exports.is_dir():
        raise ExportsMissing(
            f"exports root {settings.exports}: expected a directory <system>/<contract>/<file>, found none; "
            "pass --exports DIR, set TAMIYO_EXPORTS, or make recordings with `tamiyo record`"
        )


def _path(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name)
    return Path(value) if value else None


def _has_entries(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())
