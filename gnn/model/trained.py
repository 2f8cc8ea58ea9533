"""Declare the result of training, which a bundle is written from: the network with what readers need to trust or refuse it."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gnn.model.calibration import Calibration
from gnn.model.network import TamiyoGNN
from schemas.configuration import REQUIRED_HEADS, TrainingConfig


@dataclass(frozen=True)
class HeadStatus:
    """Whether a head was trained, on how many labels, and if not, why."""

    trained: bool
    labels: int
    reason: str | None = None


@dataclass(frozen=True)
class TrainedModel:
    """A network and its report.

    `kernels` are those measured on training hosts (the others stay masked); `site_kernels` are the same by `layer_type` id
    of the monitored layer. `tables` holds `training.examples`, `.predictions`, `.evaluation` and `.calibration` by name.
    `metrics` and `metrics_missing` are blocks of the manifest.
    """

    network: TamiyoGNN
    config: TrainingConfig
    horizon: int | None
    heads: dict[str, HeadStatus]
    kernels: tuple[str, ...]
    site_kernels: dict[int, tuple[str, ...]]
    calibration: Calibration
    metrics: dict[str, Any]
    metrics_missing: dict[str, str]
    summary: dict[str, Any]
    history: tuple[dict[str, float], ...]
    tables: dict[str, pa.Table]

    @property
    def untrained(self) -> list[str]:
        """The required heads without a usable label, with the reason: `value: ...`."""
        return [f"{name}: {head.reason}" for name, head in self.heads.items() if not head.trained and name in REQUIRED_HEADS]
