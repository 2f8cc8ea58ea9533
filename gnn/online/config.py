"""How the policy serves: device, precision, compilation, thresholds of a decision, and limits of the process around it."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnn.coverage.signals import CRITICAL_AT, WARNING_UNDER
from schemas.configuration import MAX_HARM, MIN_VALUE
from schemas.errors import ServingError

SERVING_FILE: Final = "serving.toml"
PREFIX: Final = "TAMIYO_SERVING_"


class ServingConfig(BaseModel):
    """Configuration of `TamiyoPolicy` and of `tamiyo serve`.

    `device` `auto` is CUDA where there is one. `precision` is that of the network's products (autocast), `tf32` allows
    TF32 in float32 products on CUDA. `compile` tries `torch.compile` with `compile_backend`. A graft is commanded where
    its utility is above `min_value` and its probability of high or critical harm not above `max_harm`. Inputs are
    degraded where the mean over mandatory coverage keys is under `warn_coverage`, critically so at or under
    `critical_coverage`. A hazard of band HIGH multiplies the learning rate by `hazard_learning_rate`.

    The process answers within `budget_ms`, opens a breaker for `breaker_open_s` after `breaker_faults` faults in a row, and
    pauses a run at most once in `pause_steps` steps. Metadata are read every `metadata_s`, `current` is looked at every
    `swap_s`. A segment of landed messages is closed at `segment_bytes` or `segment_s`. Messages that another reader left are
    taken over after `claim_s`; a packet that was answered is remembered for `answered_s`. The hub tells every `hub_s`.
    `runs` is a pattern of the runs that are answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    tf32: bool = False
    compile: bool = False
    compile_backend: str = "inductor"
    min_value: float = MIN_VALUE
    max_harm: float = Field(default=MAX_HARM, ge=0.0, le=1.0)
    deadline_ms: int = Field(default=5000, gt=0)
    telemetry_limit: int = Field(default=1024, gt=0)
    warn_coverage: float = Field(default=WARNING_UNDER, ge=0.0, le=1.0)
    critical_coverage: float = Field(default=CRITICAL_AT, ge=0.0, le=1.0)
    hazard_learning_rate: float = Field(default=0.5, gt=0.0, le=1.0)
    budget_ms: float = Field(default=45.0, gt=0.0)
    breaker_faults: int = Field(default=3, gt=0)
    breaker_open_s: float = Field(default=30.0, gt=0.0)
    pause_steps: int = Field(default=10, gt=0)
    metadata_s: float = Field(default=5.0, gt=0.0)
    swap_s: float = Field(default=1.0, gt=0.0)
    segment_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    segment_s: float = Field(default=30.0, gt=0.0)
    claim_s: float = Field(default=60.0, gt=0.0)
    hub_s: float = Field(default=5.0, gt=0.0)
    answered_s: int = Field(default=86_400, gt=0)
    runs: str = "*"

    @classmethod
    def resolve(
        cls, home: Path | None = None, *, environment: Mapping[str, str] | None = None, **arguments: Any
    ) -> "ServingConfig":
        """Take each value from `arguments` (None: not given), `TAMIYO_SERVING_<NAME>`, `<home>/serving.toml`, the default.

        Raises ServingError for an unknown name or a bad value.
        """
        env = os.environ if environment is None else environment
        named = {key.removeprefix(PREFIX).lower(): text for key, text in env.items() if key.startswith(PREFIX) and text}
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            return cls.model_validate(_from_file(home) | named | given)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ServingError(
                f"serving configuration: expected values of {', '.join(cls.model_fields)}, found {wrong}; "
                f"see {SERVING_FILE} in the home, {PREFIX}* and the arguments"
            ) from None


def _from_file(home: Path | None) -> dict[str, Any]:
    path = None if home is None else home / SERVING_FILE
    try:
        return {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ServingError(f"{path}: expected a TOML file of serving values, found: {error}; mend or remove it") from None


def torch_device(config: ServingConfig) -> torch.device:
    """The device to serve on; ServingError where CUDA is asked for and there is none. Sets the TF32 mode on CUDA."""
    present = torch.cuda.is_available()
    if config.device == "cuda" and not present:
        raise ServingError("device: expected CUDA as configured, found none; configure device `cpu` or `auto`")
    if config.device == "cpu" or not present:
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    return torch.device("cuda")
