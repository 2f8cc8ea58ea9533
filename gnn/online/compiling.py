"""torch.compile where it works: the outcome is recorded once per model version, and serving goes on eager without it."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from gnn.bundle.golden import answer
from gnn.bundle.layout import batch_from
from gnn.bundle.read import Bundle
from gnn.model.network import TamiyoGNN
from gnn.online.config import ServingConfig
from lake.durable.publish import lock, publish_file
from schemas.errors import COMPILER_FAULTS

_LOG = logging.getLogger(__name__)
COMPILE_STATUS = "compile_status.json"
Status = Literal["COMPILED", "EAGER_FALLBACK", "EAGER"]


@dataclass(frozen=True)
class Compiled:
    """The module to call, how it runs, and whether this outcome is new for this model version."""

    module: nn.Module
    status: Status
    error: str | None = None
    fresh: bool = False


def compiled(network: TamiyoGNN, bundle: Bundle, config: ServingConfig, device: torch.device, home: Path | None) -> Compiled:
    """Compile `network` and try it on a golden graph; any failure of the compiler falls back to eager.

    The outcome goes to `<home>/compile_status.json` under the build id (not at all where `home` is None). EAGER: not asked.
    """
    if not config.compile:
        return Compiled(network, "EAGER")
    module, error = _attempt(network, bundle, config, device)
    status: Status = "COMPILED" if error is None else "EAGER_FALLBACK"
    fresh = _record(home, bundle.build_id, config, status, error)
    if error is not None and fresh:
        _LOG.warning("torch.compile of build %s failed, serving goes on eager: %s", bundle.build_id, error)
    return Compiled(module, status, error, fresh)


def _attempt(network: TamiyoGNN, bundle: Bundle, config: ServingConfig, device: torch.device) -> tuple[nn.Module, str | None]:
    try:
        module = cast(TamiyoGNN, torch.compile(network, dynamic=True, backend=config.compile_backend))
        inputs = {k.removeprefix("input.0."): v for k, v in bundle.golden.items() if k.startswith("input.0.")}
        answer(module, batch_from(inputs, 1).to(device), bundle.golden["kernel_mask"].to(device), bundle.norms.priors)
    except COMPILER_FAULTS as error:
        return network, f"{type(error).__name__}: {error}"[:500]
    return module, None


def _record(home: Path | None, build_id: str, config: ServingConfig, status: Status, error: str | None) -> bool:
    """Write the outcome down; whether this model version had not said it before."""
    if home is None:
        return True
    path = home / COMPILE_STATUS
    with lock(home / f".{COMPILE_STATUS}.lock"):
        known = compile_status(home)
        entry = {"status": status, "error": error, "backend": config.compile_backend, "torch": torch.__version__}
        before = known.get(build_id)
        if before is not None and {k: v for k, v in before.items() if k != "at"} == entry:
            return False
        known[build_id] = entry | {"at": datetime.now(UTC).isoformat()}
        publish_file(path, (json.dumps(known, sort_keys=True, indent=1) + "\n").encode("utf-8"))
    return before is None


def compile_status(home: Path) -> dict[str, dict[str, Any]]:
    """Outcomes by build id; empty where the file is absent or damaged (it is derived, and written again)."""
    try:
        found = json.loads((home / COMPILE_STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
