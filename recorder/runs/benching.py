"""Measure what a module costs: forward latency, a step's wall time, and the memory that a training step holds."""

import statistics
import time
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from recorder.speech.safety_sheets import Benchmark
from recorder.watch.tensors import tensors_of
from recorder.watch.tracing import undisturbed

_RUNS: Final = 20


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def working_set_mb(model: nn.Module, optimizer: torch.optim.Optimizer | None, example: Tensor) -> float:
    """Return the MB of tensors that one training step holds.

    These are weights, gradients, optimizer state, and every leaf module's output.
    """
    outputs: list[Tensor] = []
    leaves = [m for m in model.modules() if next(m.children(), None) is None]
    handles = [m.register_forward_hook(lambda _m, _a, output: outputs.extend(tensors_of(output))) for m in leaves]
    try:
        with undisturbed(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    weights = list(model.parameters())
    state = [] if optimizer is None else [t for s in optimizer.state.values() for t in tensors_of(list(s.values()))]
    return (2 * _bytes(weights) + _bytes(state) + _bytes(outputs)) / 2**20


def benchmark(model: nn.Module, optimizer: torch.optim.Optimizer | None, example: Tensor, *, step_ms: float) -> Benchmark:
    """Measure 20 forward passes in eval mode and the working set of a step; RNG and statistics stay as they were."""
    times = []
    with undisturbed(model), torch.no_grad():
        for _ in range(_RUNS):
            started = time.perf_counter()
            model(example)
            times.append((time.perf_counter() - started) * 1e3)
    p95 = statistics.quantiles(times, n=20)[-1]
    return Benchmark(p95, working_set_mb(model, optimizer, example), step_ms)
