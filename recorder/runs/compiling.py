"""Do Tezzeret's part: compile a module with `torch.compile`, and report the outcome.

The usual backend is `aot_eager`: whole-graph capture and autograd tracing without code generation, about a second a module,
where `inductor` takes up to twenty and needs a C++ compiler. The record names the backend.
"""

import hashlib
import time
from typing import Any, Final

import torch
from torch import nn

from recorder.speech.clock import stamp
from schemas.errors import COMPILER_FAULTS
from schemas.leyline import leyline_pb2 as pb

USUAL_BACKEND: Final = "aot_eager"


def known_backend(name: str) -> str:
    """Return the name of a `torch.compile` backend, as it is. Raises ValueError if torch knows none of that name."""
    if name != USUAL_BACKEND and name not in torch._dynamo.list_backends(exclude_tags=()):
        known = ", ".join(torch._dynamo.list_backends(exclude_tags=()))
        raise ValueError(f"expected a backend of torch.compile, found {name!r}; torch knows {known}")
    return name


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def compile_status(blueprint_id: str, module: nn.Module, *inputs: Any, backend: str) -> pb.KernelCatalogUpdate:
    """Compile `module` whole (no graph breaks), run it once, and return its compile status.

    COMPILED; EAGER_FALLBACK if it only runs eagerly; FAILED if it does not even do that. `artifact_ref` names the backend, or
    says `eager`, with the reason if another backend than the usual one was asked for. compile_ms holds compilation and first
    run, prewarm_ms the second run. `issued_at` is left to the caller (`issue`).
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
    except COMPILER_FAULTS as error:
        compiled = module
        update.artifact_ref, update.status = _fallback(backend, error), _eager_status(module, *inputs)
    update.compile_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    if update.status != pb.COMPILE_STATUS_FAILED:
        compiled(*inputs)
        update.prewarm_ms = (time.perf_counter() - started) * 1e3
    torch._dynamo.reset()
    return update


def _fallback(backend: str, error: BaseException) -> str:
    """Return `eager`, and what the backend said.

    The usual backend's message is left out: there, only code that Dynamo can't trace falls back.
    """
    text = " ".join(str(error).partition("\n\n")[0].split())
    return "eager" if backend == USUAL_BACKEND else f"eager ({backend}: {type(error).__name__}: {text})"[:400]


def _eager_status(module: nn.Module, *inputs: Any) -> "pb.CompileStatus":
    try:
        module(*inputs)
    except (RuntimeError, TypeError, ValueError):
        return pb.COMPILE_STATUS_FAILED
    return pb.COMPILE_STATUS_EAGER_FALLBACK


def issue(update: pb.KernelCatalogUpdate, issued_at_ns: int) -> pb.KernelCatalogUpdate:
    """Return the same update with its event time."""
    update.issued_at.CopyFrom(stamp(issued_at_ns))
    return update
