"""Resolve settings (paths, thresholds of checks) at each command, run and tick, never at import."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lake.alerts.wording import UI_URL
from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from lake.exports.ledger import Ledger
from lake.pipeline_file import read_pipeline_file
from schemas.configuration import TrainingConfig, TrainingLaunch
from schemas.decode import Limits
from schemas.errors import ContractError, StorageError, TamiyoError

SAMPLE = Path(__file__).resolve().parents[1] / "recorder" / "sample"
DEFAULT_HOME = Path("var/tamiyo")
SAMPLE_HOME = Path("var/sample")
DEFAULT_EXPORTS = Path("var/exports")
DEFAULT_DAGSTER_HOME = Path("var/dagster")
ORIGIN = "origin.json"
FRESHNESS: Final = timedelta(hours=36)
LAUNCH: Final = "TAMIYO_TRAINING_LAUNCH"
_LONGEST: Final = 400  # bytes of a home's path; databases take at most 512, and their files lie some folders deeper
_READ_OTHERWISE: Final = re.compile(r"[\[\]?\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


class ExportsMissing(TamiyoError):
    """The exports root is absent or empty."""


class Settings(BaseModel):
    """Configuration of one pipeline: its home, the exports that it reads, the thresholds of its checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    exports: Path
    exports_are_sample: bool = False
    dagster_home: Path
    alert_webhook: str | None = None
    ui_url: str = UI_URL
    mandatory_coverage: float = Field(default=1.0, ge=0.0, le=1.0)
    family_coverage: float = Field(default=0.70, ge=0.0, le=1.0)
    coverage_drop: float = Field(default=0.10, ge=0.0, le=1.0)
    coverage_drop_rebuilds: int = Field(default=20, ge=1)
    optional_gap_runs: int = Field(default=3, ge=1)
    registry_capacity: float = Field(default=0.90, ge=0.0, le=1.0)
    drift: float = Field(default=0.25, ge=0.0)
    retrain_after: timedelta = timedelta(hours=1)
    max_silence: timedelta = timedelta(minutes=20)
    max_age: timedelta = timedelta(days=30)
    freshness: timedelta = FRESHNESS
    limits: Limits = Limits()
    training: TrainingConfig = TrainingConfig()
    launch: TrainingLaunch = TrainingLaunch()
    gates: dict[str, float] = Field(default_factory=dict)


def resolve(*, exports: Path | None = None, home: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings: from options, else `TAMIYO_*` variables, else `$TAMIYO_HOME/pipeline.toml`, else defaults.

    If no exports root is named and `var/exports` holds no file, the committed sample is read, into `var/sample` unless a home
    is named. A home in which other exports have arrived never goes back to the sample. A home given as an option keeps its
    Dagster instance under `<home>/dagster`, whatever `DAGSTER_HOME` says. Raises ContractError for a bad value.
    """
    env = os.environ if environment is None else environment
    named_home = home or _path(env, "TAMIYO_HOME")
    named_exports = exports or _path(env, "TAMIYO_EXPORTS")
    is_sample = named_exports is None and is_empty(DEFAULT_EXPORTS) and not has_own_exports(named_home or DEFAULT_HOME)
    root = named_exports or (SAMPLE if is_sample else DEFAULT_EXPORTS)
    where = named_home or (SAMPLE_HOME if is_sample else DEFAULT_HOME)
    named_dagster = None if home is not None else _path(env, "DAGSTER_HOME")
    file = read_pipeline_file(where)
    return Settings(
        home=where.absolute(),
        exports=root.absolute(),
        exports_are_sample=is_sample,
        dagster_home=(named_dagster or (DEFAULT_DAGSTER_HOME if named_home is None else named_home / "dagster")).absolute(),
        alert_webhook=env.get("TAMIYO_ALERT_WEBHOOK") or None,
        ui_url=env.get("TAMIYO_UI_URL") or UI_URL,
        **(
            file.checks.model_dump()
            | {
                "mandatory_coverage": _share(env, "TAMIYO_MANDATORY_COVERAGE", file.checks.mandatory_coverage),
                "family_coverage": _share(env, "TAMIYO_FAMILY_COVERAGE", file.checks.family_coverage),
            }
        ),
        retrain_after=file.retrain_after,
        max_silence=file.max_silence,
        max_age=file.max_age,
        freshness=freshness_window(env),
        limits=_limits(env.get("TAMIYO_LIMITS") or "{}"),
        training=file.training.config,
        launch=_launch(env.get(LAUNCH) or "{}", file.training.launch),
        gates=file.gates,
    )


def freshness_window(environment: Mapping[str, str] | None = None) -> timedelta:
    """Return how long a feed may send nothing new: `TAMIYO_FRESHNESS_HOURS`, or 36 h. Raises ContractError if it is bad."""
    text = (os.environ if environment is None else environment).get("TAMIYO_FRESHNESS_HOURS")
    if not text:
        return FRESHNESS
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0.1 <= hours <= 24 * 366:
        raise ContractError(
            f"TAMIYO_FRESHNESS_HOURS: expected a number of hours from 0.1 to 8784, found {text!r}; unset it for "
            f"{FRESHNESS / timedelta(hours=1):.0f}"
        )
    return timedelta(hours=hours)


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise ContractError(f"{name}: expected a number from 0 to 1, found {text!r}; unset it for {default}")
    return share


def _limits(text: str) -> Limits:
    try:
        return Limits.model_validate_json(text)
    except ValidationError as error:
        raise _no_object("TAMIYO_LIMITS", Limits, text, error) from None


def _launch(text: str, default: TrainingLaunch) -> TrainingLaunch:
    """Return `default` with the fields that the JSON object in `text` names."""
    try:
        named = TrainingLaunch.model_validate_json(text)
    except ValidationError as error:
        raise _no_object(LAUNCH, TrainingLaunch, text, error) from None
    return default.model_copy(update={name: getattr(named, name) for name in named.model_fields_set})


def _no_object(variable: str, model: type[BaseModel], text: str, error: ValidationError) -> ContractError:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or text[:80]!r}: {one['msg']}" for one in error.errors())
    return ContractError(f"{variable}: expected a JSON object of {', '.join(model.model_fields)}, found {wrong}")


def require_home(settings: Settings) -> None:
    """Make the home. Raises StorageError if it is not writable, or holds the sample although it is for own exports."""
    require_place(settings.home)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        raise StorageError(
            f"home {settings.home}: expected a directory that can be written to, found: {error.strerror}; "
            "pass --home DIR or set TAMIYO_HOME"
        ) from None
    if settings.home == DEFAULT_HOME.absolute() and settings.exports != SAMPLE and _holds_the_sample(settings.home):
        raise StorageError(
            f"home {settings.home}: expected your exports alone, found the committed sample of an earlier version; "
            "move the directory away, or pass --home DIR"
        )


def require_place(home: Path) -> None:
    """Raise StorageError, before anything is written, if tables and databases can't be stored under this path."""
    text = str(home)
    found = _READ_OTHERWISE.search(text)
    if found is not None:
        wrong = f"{found[0]!a} in it, which databases and tables read otherwise"
    elif not text.isprintable() and any(0xDC80 <= ord(one) <= 0xDCFF for one in text):
        wrong = "bytes in it that are no UTF-8"
    elif len(text.encode("utf-8", "surrogateescape")) > _LONGEST:
        wrong = f"one of {len(text.encode('utf-8', 'surrogateescape'))} bytes"
    else:
        return
    raise StorageError(
        f"home {text!a}: expected a path without [ ] ? \\ % escapes and control characters, of at most {_LONGEST} bytes, "
        f"found {wrong}; pass --home DIR or set TAMIYO_HOME"
    )


def require_exports(settings: Settings) -> None:
    """Raise ExportsMissing if the exports root is absent or holds no file."""
    if is_empty(settings.exports):
        found = "a directory without any" if settings.exports.is_dir() else "no directory"
        raise ExportsMissing(
            f"exports root {settings.exports}: expected a directory with files <system>/<contract>/<file>, found {found}; "
            "pass --exports DIR, set TAMIYO_EXPORTS, or make recordings with `tamiyo record`"
        )


def _path(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name)
    return Path(value) if value else None


def is_empty(root: Path) -> bool:
    """Return whether an exports root holds no finished file; `.name` and `name.tmp` are still being written."""
    return next(_finished_files(root), None) is None


def _finished_files(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith(".") and not name.endswith(".tmp"))


def note_origin(settings: Settings) -> None:
    """Remember whether a home holds the committed sample or other exports; the caller holds the lock of its writers."""
    path = settings.home / ORIGIN
    said = (json.dumps({"sample": settings.exports == SAMPLE}) + "\n").encode("ascii")
    if not path.exists() or path.read_bytes() != said:
        publish_file(path, said)


def has_own_exports(home: Path) -> bool:
    """Return whether exports other than the committed sample have ever arrived in a home."""
    return _has_arrivals(home) and not _holds_the_sample(home)


def vanished_exports(settings: Settings) -> str | None:
    """Describe an exports root that is absent or empty although own exports had arrived; None if nothing is wrong."""
    if not is_empty(settings.exports) or not has_own_exports(settings.home):
        return None
    return f"exports root {settings.exports}: expected files <system>/<contract>/<file>, found none, though some had arrived"


def _has_arrivals(home: Path) -> bool:
    return any(entry.event == "arrived" for entry in Ledger(home).entries())


def _holds_the_sample(home: Path) -> bool:
    """Return whether the exports in a home are the committed sample; for a home of an earlier version, judge by the files."""
    path = home / ORIGIN
    if path.exists():
        return read_object(path, StorageError).get("sample") is True
    arrived = {(entry.file, entry.size) for entry in Ledger(home).entries() if entry.event == "arrived"}
    return bool(arrived) and arrived == {(p.relative_to(SAMPLE).as_posix(), p.stat().st_size) for p in _finished_files(SAMPLE)}
