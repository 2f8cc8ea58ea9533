"""Print the data card of a recording as Markdown, made from its files: `python -m recorder.runs.card EXPORTS`."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from recorder.data import DATA_SETS
from recorder.exports import read_table
from recorder.runs.reliability import MeasuredPair, class_counts, mean_uplift, reliability, replicates
from recorder.speech.health import CPU_SECONDS
from recorder.speech.uplift import Outcome
from schemas.configuration import RISK_CLASSES
from schemas.kernels import KERNELS
from schemas.splits import HELD_OUT_DATA_SET, SPLITS, split_of

Pairs = Mapping[MeasuredPair, list[Outcome]]


@dataclass(frozen=True)
class Run:
    """One run as its packets show it."""

    host: str
    data_set: str
    architecture: str
    stress: bool
    packets: int
    first_ns: int
    last_ns: int


def read_runs(root: Path) -> dict[str, Run]:
    """Return every run of an exports root, by its id."""
    rows = defaultdict(list)
    for row in read_table(root, "tolaria/system_state", "tolaria.system_state").to_pylist():
        rows[row["training_run_id"]].append(row)
    runs = {}
    for run_id, packets in sorted(rows.items()):
        data_set, _, architecture = (packets[0]["experiment_name"] or "").partition("/")
        times = [packet["timestamp_ns"] for packet in packets]
        stress = dict(packets[0]["training_metrics"] or ()).get("stress", 0.0) > 0
        runs[run_id] = Run(packets[0]["blueprint_id"], data_set, architecture, stress, len(packets), min(times), max(times))
    return runs


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table, line by line."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def _summary(runs: Mapping[str, Run], pairs: Pairs) -> list[str]:
    first, last = (
        datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
        for ns in (min(r.first_ns for r in runs.values()), max(r.last_ns for r in runs.values()))
    )
    splits = Counter(split_of(run.host, run.data_set, HELD_OUT_DATA_SET) for run in runs.values())
    measured = sum(map(len, pairs.values()))
    kernels = len({pair.kernel for pair in pairs})
    return [
        f"- Recorded from {first} to {last} UTC.",
        f"- {len(runs)} hosts, one run each ({', '.join(f'{splits[s]} {s}' for s in SPLITS)}), "
        f"{sum(run.packets for run in runs.values())} packets, {sum(run.stress for run in runs.values())} hosts under stress.",
        f"- {len(pairs)} outcomes (a state, seed, kernel and blending method at a horizon) of {measured} measured replicates; "
        f"{kernels} kernels, horizons of {', '.join(map(str, sorted({pair.horizon for pair in pairs})))} steps.",
    ]


def _hosts(runs: Mapping[str, Run]) -> list[str]:
    counts = Counter((run.data_set, run.architecture) for run in runs.values())
    rows = [(data, kind, count, DATA_SETS[data].licence) for (data, kind), count in sorted(counts.items())]
    return table(("data set", "architecture", "hosts", "licence of the data"), rows)


def _cost(root: Path, runs: Mapping[str, Run]) -> list[str]:
    """Return CPU seconds of a host, from warm-up to its last health report, as Weatherlight's telemetry reports them."""
    spent: dict[str, float] = {}
    for row in read_table(root, "weatherlight/telemetry", "telemetry.metric").to_pylist():
        run = row["packet_id"].removeprefix("weatherlight-").rpartition("-")[0]
        if row["name"] == CPU_SECONDS and run in runs:
            spent[run] = max(row["value"], spent.get(run, 0.0))
    groups: dict[str, list[float]] = defaultdict(list)
    for run, seconds in spent.items():
        groups[runs[run].architecture].append(seconds)
        groups["all"].append(seconds)
    rows = [(name, len(v), f"{np.mean(v):.1f}", f"{np.median(v):.1f}", f"{max(v):.1f}") for name, v in sorted(groups.items())]
    return table(("architecture", "hosts", "mean CPU s", "median", "most"), rows)


def _reliability(runs: Mapping[str, Run], pairs: Pairs) -> list[str]:
    groups: dict[tuple[str, str], dict[MeasuredPair, list[Outcome]]] = defaultdict(dict)
    for pair, outcomes in pairs.items():
        run = runs[pair.run]
        for name in ("all", f"{run.data_set}", "under stress" if run.stress else "without stress"):
            groups[name, str(pair.horizon)][pair] = outcomes
    rows = []
    for (name, horizon), members in sorted(groups.items()):
        found = reliability(members)
        if found is not None:
            numbers = (f"{v:.3f}" for v in (found.single, found.of_two, found.spread, found.noise))
            rows.append((name, horizon, found.pairs, *numbers))
    return table(("hosts", "horizon", "pairs", "r of one label", "r of two", "sd of u", "noise"), rows)


def _classes(pairs: Pairs) -> list[str]:
    horizons = sorted({pair.horizon for pair in pairs})
    counts = {h: class_counts({p: o for p, o in pairs.items() if p.horizon == h}) for h in horizons}
    return table(("horizon", *RISK_CLASSES), [(h, *(counts[h][name] for name in RISK_CLASSES)) for h in horizons])


def _kernels(pairs: Pairs) -> list[str]:
    rows = []
    for kernel in KERNELS:
        means = [mean_uplift(outcomes) for pair, outcomes in pairs.items() if pair.kernel == kernel]
        finite = np.array([u for u in means if np.isfinite(u)])
        if len(finite):
            low, middle, high = np.quantile(finite, (0.1, 0.5, 0.9))
            rows.append((kernel, len(means), f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}"))
    return table(("kernel", "pairs", "u at 10 %", "median u", "u at 90 %"), rows)


def data_card(root: Path) -> str:
    """Return the measured part of the card as Markdown."""
    runs, pairs = read_runs(root), replicates(root)
    parts = [
        ["## What was recorded", "", *_summary(runs, pairs)],
        ["## Hosts", "", *_hosts(runs)],
        ["## What a host cost", "", *_cost(root, runs)],
        ["## How far a label can be trusted", "", *_reliability(runs, pairs)],
        ["## Risk classes", "", *_classes(pairs)],
        ["## Kernels", "", *_kernels(pairs)],
    ]
    return "\n".join("\n".join([*part, ""]) for part in parts)


if __name__ == "__main__":
    sys.stdout.write(data_card(Path(sys.argv[1])))
