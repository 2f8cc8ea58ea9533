"""Write and read checkpoints of a running training: written whole or not at all, and used only by the same training."""

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
    """The checkpoint file of one training; `fingerprint` identifies its data, configuration and versions.

    It is written at most once in `every_s` seconds. A checkpoint never changes the result, only how much is repeated after a
    kill.
    """

    path: Path | None
    fingerprint: str
    every_s: float = 15.0
    _written: float = field(default_factory=time.monotonic)

    def load(self) -> State | None:
        """Return the last checkpoint of this training, or None; one that is damaged or of another training is ignored."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, OSError):
            return None
        return state if isinstance(state, dict) and state.get("fingerprint") == self.fingerprint else None

    def save(self, state: State, *, last: bool) -> None:
        """Write `state` if it is due; always if it is the `last` one."""
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
