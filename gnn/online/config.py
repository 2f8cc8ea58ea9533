"""Configure serving: device, precision, compilation, thresholds of a decision, limits of the serving process."""

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
    """Configuration of `TamiyoPolicy` and of `tamiyo serve`: network, decision and process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field(default="cpu", description="`auto` is CUDA if there is one.")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="Of the network's products (autocast).")
    tf32: bool = Field(default=False, description="Allow TF32 in float32 products on CUDA.")
    compile: bool = Field(default=False, description="Try `torch.compile` at load; answers are eager if it fails.")
    compile_backend: str = Field(default="inductor", description="Backend of `torch.compile`.")
    min_value: float = Field(default=MIN_VALUE, description="A graft is commanded only if its utility [nats] is above this.")
    max_harm: float = Field(
        default=MAX_HARM, ge=0.0, le=1.0, description="Largest probability of high or critical harm of a commanded graft."
    )
    deadline_ms: int = Field(default=5000, gt=0, description="Time that a command gives its executor.")
    telemetry_limit: int = Field(default=1024, gt=0, description="Telemetry packets kept until they are drained.")
    warn_coverage: float = Field(
        default=WARNING_UNDER, ge=0.0, le=1.0, description="Inputs are degraded if mean mandatory coverage is under this."
    )
    critical_coverage: float = Field(
        default=CRITICAL_AT, ge=0.0, le=1.0, description="At or under this mean mandatory coverage nothing is commanded."
    )
    hazard_learning_rate: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Factor on the learning rate if the hazard band is HIGH."
    )
    budget_ms: float = Field(default=45.0, gt=0.0, description="Time for an answer; past it the answer is PAUSE.")
    breaker_faults: int = Field(default=3, gt=0, description="Faults in a row that open a breaker.")
    breaker_open_s: float = Field(default=30.0, gt=0.0, description="How long a breaker stays open before one trial.")
    pause_steps: int = Field(default=10, gt=0, description="A run is paused at most once in this many steps.")
    metadata_s: float = Field(default=5.0, gt=0.0, description="How often metadata are read.")
    swap_s: float = Field(default=1.0, gt=0.0, description="How often `current` is looked at for a new bundle.")
    segment_bytes: int = Field(default=16 * 1024 * 1024, gt=0, description="Size at which a segment of landed messages closes.")
    segment_s: float = Field(default=30.0, gt=0.0, description="Age at which a segment of landed messages closes.")
    claim_s: float = Field(default=60.0, gt=0.0, description="Age at which messages that another reader left are taken over.")
    hub_s: float = Field(default=5.0, gt=0.0, description="How often the hub reports on all systems.")
    answered_s: int = Field(default=86_400, gt=0, description="How long an answered packet is remembered.")
    runs: str = Field(default="*", description="Pattern of the training runs that are answered.")

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
    """Return the device to serve on, and set the TF32 mode if it is CUDA.

    Raises ServingError if CUDA is configured and there is none.
    """
    present = torch.cuda.is_available()
    if config.device == "cuda" and not present:
        raise ServingError("device: expected CUDA as configured, found none; configure device `cpu` or `auto`")
    if config.device == "cpu" or not present:
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    return torch.device("cuda")
