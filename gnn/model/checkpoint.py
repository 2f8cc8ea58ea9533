"""Checkpoints of a training under way: whole or not at all, and used only by the training that wrote them."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lake.durable.publish import beside, ensure_dir, fsync_dir
from schemas.errors import TrainingError

State = dict[str, Any]


@dataclass
class Checkpoints:
    """The one checkpoint file of a training; `fingerprint` names its data, configuration and versions.

    `every_s` bounds how often it is written (a checkpoint never changes the result, only what is repeated after a kill).
    """

    path: Path | None
    fingerprint: str
    every_s: float = 15.0
    _written: float = field(default_factory=time.monotonic)

    def load(self) -> State | None:
        """Return the last checkpoint of this very training, or None (another training's is ignored, a damaged one too)."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, OSError):
            return None
        return state if isinstance(state, dict) and state.get("fingerprint") == self.fingerprint else None

    def save(self, state: State, *, last: bool) -> None:
        """Write `state` when it is due, and always when it is the `last` one."""
        if self.path is None or not (last or time.monotonic() - self._written >= self.every_s):
            return
        ensure_dir(self.path.parent)
        temporary = beside(self.path)
        try:
            with temporary.open("wb") as file:
                torch.save(state | {"fingerprint": self.fingerprint}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise TrainingError(f"checkpoint {self.path}: expected to write it, found {error}; free space and rerun") from error
        fsync_dir(self.path.parent)
        self._written = time.monotonic()
