"""How the policy serves: device, precision, compilation and the thresholds of a decision."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from gnn.coverage.signals import CRITICAL_AT, WARNING_UNDER
from schemas.configuration import MAX_HARM, MIN_VALUE
from schemas.errors import ServingError


class ServingConfig(BaseModel):
    """Configuration of `TamiyoPolicy`.

    `device` `auto` is CUDA where there is one. `precision` is that of the network's products (autocast), `tf32` allows
    TF32 in float32 products on CUDA. `compile` tries `torch.compile` with `compile_backend`. A graft is commanded where
    its expected uplift is above `min_value` and its probability of high or critical harm below `max_harm`. Inputs are degraded
    where the mean over mandatory coverage keys is under `warn_coverage`, critically so at or under `critical_coverage`.
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


def torch_device(config: ServingConfig) -> torch.device:
    """The device to serve on; ServingError where CUDA is asked for and there is none. Sets the TF32 mode on CUDA."""
    present = torch.cuda.is_available()
    if config.device == "cuda" and not present:
        raise ServingError("device: expected CUDA as configured, found none; configure device `cpu` or `auto`")
    if config.device == "cpu" or not present:
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    return torch.device("cuda")
