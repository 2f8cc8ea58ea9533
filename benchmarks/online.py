"""Measure packet bytes to signed command, on one core: `python -m benchmarks.online --home HOME [--exports DIR] [--packets N]`.

HOME is one with a bundle that serves, as `tamiyo run` leaves it; packets are those of DIR, the committed sample by default, run
by run. It prints CPU milliseconds, which a shared machine spoils least, with wall milliseconds beside them; the share of each
step is of CPU time. A packet goes through the decider's thread as in `tamiyo serve`, without what Redis and the disk take.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from gnn.bundle.promote import CURRENT
from gnn.graph import builder
from gnn.online import policy as online
from gnn.online.config import ServingConfig
from gnn.online.policy import TamiyoPolicy
from gnn.online.snapshot import Snapshot
from lake.settings import SAMPLE
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.decider import Answer, Decider
from tamiyo.live.holder import MetadataTables
from tamiyo.live.limits import Breaker
from tamiyo.live.traffic import Traffic

GOALS: Final = {"p95_ms": 20.0, "goal_p95_ms": 10.0}
_WARM: Final = 100
_SECRET: Final = b"secret"
# what is timed by itself; `other` is the rest of the answer
STEPS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("decode", online, "decode_packets"),
    ("join", builder, "join"),
    ("encode", builder, "encode_all"),
    ("encode", builder, "to_batch"),
    ("coverage", online, "graph_coverage"),
    ("constraints", online, "facts_of"),
    ("constraints", online, "candidates"),
    ("forward", TamiyoPolicy, "_answer"),
    ("decision", TamiyoPolicy, "_choose"),
    ("command", online, "annotations_of"),
    ("command", online, "command_of"),
    ("telemetry", online, "decision_packet"),
)


class Steps:
    """CPU seconds of each step of the present answer."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, step: str) -> None:
        """Have calls of `owner.name` counted under `step`."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.now[step] += time.thread_time() - started

        setattr(owner, name, timed)


def packets(exports: Path, count: int) -> list[bytes]:
    """Training states of whole runs, run by run, about `count` of them."""
    states = [sent.payload for sent in Traffic.of(exports).messages if sent.kind == pb.BUS_MESSAGE_TYPE_SYSTEM_STATE]
    by_run: dict[str, list[bytes]] = defaultdict(list)
    for raw in states:
        by_run[pb.SystemStatePacket.FromString(raw).training_run_id].append(raw)
    chosen = [raw for run in sorted(by_run)[:: max(1, len(states) // (count + _WARM))] for raw in by_run[run]]
    return chosen[: count + _WARM]


def measure(home: Path, raws: Sequence[bytes]) -> dict[str, Any]:
    """Percentiles in ms and shares of the steps."""
    torch.set_num_threads(1)
    config = ServingConfig(budget_ms=60_000.0)
    policy = TamiyoPolicy.load(home / CURRENT, config)
    snapshot = Snapshot.of(policy.bundle, MetadataTables(home)())
    decider = Decider(config, lambda: (policy, snapshot), Breaker(3, 30.0))
    steps = Steps()
    for step, owner, name in STEPS:
        steps.watch(owner, name, step)
    rows, walls, cpus, nodes, routes = [], [], [], [], defaultdict(int)
    for number, raw in enumerate(raws):
        steps.now.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        packet = pb.SystemStatePacket.FromString(raw)
        answer = decider.answer(raw, packet)
        signing = time.thread_time()
        _signed(answer)
        steps.now["sign"] += time.thread_time() - signing
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        policy.drain_telemetry()
        if number < _WARM:
            continue
        engine = policy._engine
        nodes.append(sum(len(x) for x in engine.recent[-1].x.values()) if engine.recent else 0)
        routes[f"{answer.route} {answer.reason}"] += 1
        walls.append(wall * 1e3)
        cpus.append(cpu * 1e3)
        rows.append(dict(steps.now) | {"other": cpu - sum(steps.now.values())})
    decider.close()
    total = sum(cpus)
    names = list(dict.fromkeys([*(step for step, _, _ in STEPS), "sign", "other"]))
    return {
        "decisions": len(rows),
        "nodes_per_graph": float(np.mean(nodes)),
        "cpu_ms": _percentiles(cpus),
        "wall_ms": _percentiles(walls),
        "steps": {
            name: {
                "p50_ms": float(np.median([row.get(name, 0.0) for row in rows])) * 1e3,
                "share": sum(row.get(name, 0.0) for row in rows) * 1e3 / total,
            }
            for name in names
        },
        "answers": dict(sorted(routes.items(), key=lambda item: -item[1])),
    }


def _signed(answer: Answer) -> None:
    """Sign an answer as `tamiyo serve` does before it publishes it."""
    if answer.command is not None:
        data = bus.signed_command(answer.command, _SECRET).SerializeToString(deterministic=True)
        bus.entry_of(pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND, data, _SECRET)
    if answer.telemetry is not None:
        bus.entry_of(pb.BUS_MESSAGE_TYPE_TELEMETRY, answer.telemetry.SerializeToString(), _SECRET)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("least", 0.0))}


def main(arguments: Sequence[str]) -> int:
    """Print the figures; return exit status 1 if p95 is above the design's limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--exports", type=Path, default=SAMPLE)
    parser.add_argument("--packets", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    found = measure(asked.home, packets(asked.exports, asked.packets))
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['decisions']} decisions, {found['nodes_per_graph']:.0f} nodes a graph")
        for clock in ("cpu_ms", "wall_ms"):
            print(f"  {clock}: " + ", ".join(f"{name} {value:.2f}" for name, value in found[clock].items()))
        for name, step in found["steps"].items():
            print(f"  {name:12} {step['p50_ms']:6.2f} ms {step['share']:6.1%}")
        print("  " + ", ".join(f"{count} {what}" for what, count in found["answers"].items()))
        print(f"  asked: p95 at most {GOALS['p95_ms']:.0f} ms, goal {GOALS['goal_p95_ms']:.0f}")
    return 0 if found["cpu_ms"]["p95"] <= GOALS["p95_ms"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
