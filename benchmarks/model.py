"""The network against the same function in stock PyG: `python -m benchmarks.model [--json] [--device cuda] [--quick]`.

Both networks hold the same weights, at widths 256/128, in one process; runs are interleaved, figures are medians of CPU
seconds on one thread (of wall seconds on CUDA), ratios are stock / ours. Stock is HeteroConv over all relations in every
round, as one writes it; with `--pruned` its last round leaves out, as ours does, the relations that reach no node which the
heads read. Readouts and heads are the same code in both; so are the encoders, except that ours answers small graphs with
weights put in order beforehand (`gnn.model.small`), once for all forward passes. Sizes are nodes / edges of one graph; a
training step is forward, backward and fused AdamW, as in training, on 64 graphs of 40 nodes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.random_graphs import random_batch
from benchmarks.stock import stock_network
from gnn.graph.batch import GraphBatch
from gnn.model.network import TamiyoGNN
from gnn.model.outputs import Outputs
from schemas.configuration import ModelConfig

WIDTHS = ModelConfig(hidden=256, activation_hidden=128, out=128)
GOALS = {"30": 3.0, "300": 2.5, "10k / 50k": 2.5, "100k / 500k": 2.3, "training step": 2.0}
LIMITS_MS = {"p50": 35.0, "p95": 45.0, "p99": 55.0}


@dataclass(frozen=True)
class Size:
    """One graph: rounds of measurement, nodes by type, edges a relation."""

    runs: int
    nodes: dict[str, int]
    edges: int


def size(nodes: int, edges: int, runs: int) -> Size:
    """Spread nodes over the types as recorded graphs have them: layers, activations and parameters above all."""
    each = max((nodes - 6) // 10, 1)
    rest = {"seed": each, "blueprint": 3, "context": 1}
    return Size(runs, {"layer": 3 * each, "activation": 3 * each, "parameter": 3 * each} | rest, edges // 11)


SIZES = {
    "30": size(30, 110, 41),
    "300": size(300, 1_100, 21),
    "10k / 50k": size(10_000, 50_000, 5),
    "100k / 500k": size(100_000, 500_000, 3),
}


class Timer:
    """CPU seconds of calls on the CPU; wall seconds, after all kernels, on CUDA."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def __call__(self, call: Callable[[], Any]) -> float:
        """Return the seconds of one call."""
        if not self.cuda:
            begun = time.process_time()
            call()
            return time.process_time() - begun
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - begun


def interleaved(calls: dict[str, Callable[[], Any]], runs: int, timer: Timer) -> dict[str, list[float]]:
    """Seconds of `runs` rounds of all calls, one after the other, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(runs + 1):
        for name, call in calls.items():
            seconds = timer(call)
            if number:
                found[name].append(seconds)
    return found


def error(ours: Outputs, theirs: Outputs) -> float:
    """Return the largest difference of any output, relative to that output's largest value."""
    pairs = zip(ours.tensors().values(), theirs.tensors().values(), strict=True)
    sizes = [(float((a - b).abs().max()), float(b.abs().max())) for a, b in pairs if b.numel()]
    return max(difference / max(largest, 1e-6) for difference, largest in sizes)


def fresh(batch: GraphBatch) -> GraphBatch:
    """The same batch without what it has computed: each forward pays for its plan, but not for the order of directions.

    That order follows from numbers of nodes and edges, which are the same for the packets of a host, so it is kept.
    """
    return replace(batch)


def forward(networks: dict[str, TamiyoGNN], name: str, each: Size, device: str) -> dict[str, Any]:
    """Compare forward passes on one graph."""
    batch = random_batch(1, sizes=each.nodes, edges=each.edges).to(device)
    with torch.inference_mode():
        worst = error(networks["ours"](fresh(batch)), networks["stock"](fresh(batch)))
        calls = {key: (lambda network=network: network(fresh(batch))) for key, network in networks.items()}
        seconds = interleaved(calls, each.runs, Timer(device))
    return _compared(name, seconds) | {"largest_relative_error": worst}


def training(networks: dict[str, TamiyoGNN], device: str, runs: int = 5) -> dict[str, Any]:
    """Compare training steps on 64 graphs."""
    batch = random_batch(64, sizes=size(40, 150, 1).nodes, edges=14).to(device)
    calls = {}
    for key, network in networks.items():
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
        calls[key] = lambda network=network, optimizer=optimizer: _step(network, optimizer, fresh(batch))
    return _compared("training step", interleaved(calls, runs, Timer(device)))


def _step(network: TamiyoGNN, optimizer: torch.optim.Optimizer, batch: GraphBatch) -> None:
    network.train()
    optimizer.zero_grad()
    outputs = network(batch)
    (
        outputs.seed_value.square().mean() + outputs.seed_risk_logits.square().mean() + outputs.seed_policy_logits.mean()
    ).backward()
    optimizer.step()
    network.eval()


def _compared(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    ratio = middle["stock"] / middle["ours"]
    found = {"ours_ms": middle["ours"] * 1e3, "stock_ms": middle["stock"] * 1e3, "ratio": ratio, "asked": GOALS[name]}
    return found | {"met": ratio >= GOALS[name]}


def latency(network: TamiyoGNN, each: Size, device: str, runs: int = 200) -> dict[str, float]:
    """Percentiles of forward passes alone, and the peak memory on CUDA."""
    batch = random_batch(1, sizes=each.nodes, edges=each.edges).to(device)
    timer = Timer(device)
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        for _ in range(20):
            network(fresh(batch))
        times = sorted(timer(lambda: network(fresh(batch))) * 1e3 for _ in range(runs))
    found = {f"p{p}": times[min(runs * p // 100, runs - 1)] for p in (50, 95, 99)}
    return found | {"peak_mb": torch.cuda.max_memory_allocated() / 1e6, "met": all(found[k] <= v for k, v in LIMITS_MS.items())}


def peak_memory() -> float:
    """Peak resident memory in MB of a process of its own that answers the largest graph once."""
    import subprocess
    import sys

    code = (
        "import torch\n"
        "from benchmarks.ingest import resident_peak\n"
        "from benchmarks.model import SIZES, WIDTHS, random_batch, TamiyoGNN\n"
        "each = SIZES['100k / 500k']\n"
        "with torch.inference_mode():\n"
        "    TamiyoGNN(WIDTHS).eval()(random_batch(1, sizes=each.nodes, edges=each.edges))\n"
        "print(resident_peak())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure(device: str, *, quick: bool, pruned: bool) -> dict[str, Any]:
    """All figures; `quick` leaves the largest graph out."""
    torch.manual_seed(0)
    ours = TamiyoGNN(WIDTHS).eval().to(device)
    networks = {"ours": ours, "stock": stock_network(ours, pruned=pruned).eval().to(device)}
    found: dict[str, Any] = {}
    for name, each in SIZES.items():
        if not (quick and each.edges > 10_000):
            found[f"forward {name}"] = forward(networks, name, each, device)
    found["training step"] = training(networks, device)
    if device == "cuda":
        for name in ("10k / 50k", "100k / 500k"):
            found[f"latency {name}"] = latency(ours, SIZES[name], device)
    elif not quick:
        peak = peak_memory()
        found["peak memory 100k / 500k"] = {"mb": peak, "asked": 1500.0, "met": peak <= 1500.0}
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="leave the largest graph out")
    parser.add_argument("--pruned", action="store_true", help="leave out of the last round of stock what nothing reads")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.device, quick=options.quick, pruned=options.pruned)
    if options.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:24}", "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
