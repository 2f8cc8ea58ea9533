"""Tezzeret's part: really compile a module with `torch.compile`, and say what came of it.

The usual backend is `aot_eager`: whole-graph capture and autograd tracing without code generation, about a second a module,
where `inductor` takes twenty. The record names it.
"""

import hashlib
import time
from typing import Any

import torch
from torch import nn

from recorder.clock import stamp
from schemas.leyline import leyline_pb2 as pb


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def compile_status(blueprint_id: str, module: nn.Module, *inputs: Any, backend: str) -> pb.KernelCatalogUpdate:
    """Compile `module` whole (no graph breaks) and run it once: COMPILED, or EAGER_FALLBACK where it only runs eagerly, or
    FAILED where it does not even do that. `artifact_ref` names the backend; compile_ms holds compilation and first run,
    prewarm_ms the second run. `issued_at` is left to the caller (`issue`).
    """
    guards = _digest(*(f"{tuple(x.shape)}/{x.dtype}" for x in inputs))
    shapes = [f"{name}{tuple(value.shape)}" for name, value in module.state_dict().items()]
    update = pb.KernelCatalogUpdate(
        blueprint_id=blueprint_id,
        checksum=_digest(module, *shapes),
        guard_digest=guards,
        artifact_ref=f"torch.compile/{backend}",
    )
    started = time.perf_counter()
    torch._dynamo.reset()
    try:
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        compiled(*inputs)
        update.status = pb.COMPILE_STATUS_COMPILED
    except (RuntimeError, TypeError, ValueError, AttributeError, torch._dynamo.exc.TorchDynamoException):
        compiled = module
        update.artifact_ref, update.status = "eager", _eager_status(module, *inputs)
    update.compile_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    if update.status != pb.COMPILE_STATUS_FAILED:
        compiled(*inputs)
        update.prewarm_ms = (time.perf_counter() - started) * 1e3
    torch._dynamo.reset()
    return update


def _eager_status(module: nn.Module, *inputs: Any) -> "pb.CompileStatus":
    try:
        module(*inputs)
    except (RuntimeError, TypeError, ValueError):
        return pb.COMPILE_STATUS_FAILED
    return pb.COMPILE_STATUS_EAGER_FALLBACK


def issue(update: pb.KernelCatalogUpdate, issued_at_ns: int) -> pb.KernelCatalogUpdate:
    """The same update with its event time."""
    update.issued_at.CopyFrom(stamp(issued_at_ns))
    return update
