"""Run every benchmark and write `docs/benchmarks.md`: `python -m benchmarks.table [--page] [--only NAME ...]`, or `make bench`.

Each benchmark runs in a process of its own, in its quick form, one after another: under 15 minutes on two cores that do nothing
else. The figures, with machine and versions, go to `benchmarks/results.json`; the page is written from that file alone, so that
`--page` writes it again without measuring. `--only` measures some and keeps the others' figures.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = REPOSITORY / "benchmarks" / "results.json"
PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
PACKAGES: Final = ("dagster", "torch", "torch-geometric", "deltalake", "duckdb", "polars", "pyarrow", "protobuf")

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "graph": ("-m", "benchmarks.graph", "--quick", "--json"),
    "model": ("-m", "benchmarks.model", "--quick", "--json"),
    "norms": ("-m", "benchmarks.norms", "--json"),
    "registries": ("-m", "benchmarks.registries", "--json"),
    "ingest": ("-m", "benchmarks.ingest", "--packets", "200000", "--rounds", "1"),
    "load": ("-m", "benchmarks.load", "--rounds", "5"),
    "increments": ("-m", "benchmarks.increments", "--runs", "20", "200", "--rounds", "3"),
    "rebuild": ("-m", "benchmarks.rebuild", "--rounds", "3"),
    "recorder": ("benchmarks/recorder.py", "--blocks", "20", "--json"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; `figure` is a format string over the benchmark's JSON object."""

    benchmark: str
    what: str
    figure: str


ROWS: Final[Sequence[Row]] = (
    Row("graph", "graphs of 62 nodes and 247 edges built offline, a second", "{0[offline_graphs_per_s]:,.0f}"),
    Row("graph", "from feature tables to a published shard, graphs a second", "{0[stored_graphs_per_s]:,.0f}"),
    Row("graph", "one packet online, median: known topology", "{0[online_known_p50_ms]:.1f} ms"),
    Row("graph", "one packet online, median: new topology", "{0[online_new_p50_ms]:.1f} ms"),
    Row("graph", "a graph of 5,000 elements a type", "{0[large_graph_ms]:.0f} ms"),
    Row("graph", "a batch of 64 graphs against PyG's `Batch.from_data_list`, bit-identical", "{0[batch_speedup]:.0f}x faster"),
    Row("graph", "peak memory of building 10,000 graphs", "{0[peak_memory_mb]:.0f} MB"),
    Row("model", "forward against the same function in stock PyG, 30 nodes", "{0[forward 30][ratio]:.1f}x faster"),
    Row("model", "the same, 300 nodes", "{0[forward 300][ratio]:.1f}x faster"),
    Row("model", "the same, 10,000 nodes", "{0[forward 10k / 50k][ratio]:.1f}x faster"),
    Row("model", "a training step of 64 graphs, against stock PyG", "{0[training step][ratio]:.1f}x faster"),
    Row("norms", "rolling mean and variance of 10,000,000 observations", "{0[s]:.2f} s, {0[ratio]:.0f}x faster than the loop"),
    Row("registries", "a registry refresh with 1,000 kept versions, against 10", "{0[ratio]:.1f}x the time"),
    Row("ingest", "200,000 packets of protobuf ingested, against the bare reader", "{0[.binpb][cpu_ratio]:.1f}x the CPU time"),
    Row("ingest", "the same, NDJSON", "{0[.ndjson][cpu_ratio]:.1f}x the CPU time"),
    Row("ingest", "the same, Parquet", "{0[.parquet][cpu_ratio]:.1f}x the CPU time"),
    Row(
        "ingest", "its peak memory, in that order", "{0[.binpb][peak_MiB]}, {0[.ndjson][peak_MiB]}, {0[.parquet][peak_MiB]} MiB"
    ),
    Row("load", "loading the code location, against `import dagster`", "{0[ratio]:.2f}x the CPU time"),
    Row(
        "increments",
        "one more training run in a home of 200, against one of 20",
        "{0[ratios][200 to 20][cpu]:.2f}x the CPU time",
    ),
    Row("increments", "the same, peak memory", "{0[ratios][200 to 20][peak_mb]:.2f}x"),
    Row("rebuild", "from a dropped file to finished coverage checks, with a running UI", "{0[checked, seconds]:.0f} s"),
    Row("rebuild", "what one rebuild adds to the event log", "{0[event log, bytes][a rebuild]:,} bytes"),
    Row("recorder", "a training step recorded every 10th step: CNN", "{0[cnn][ratio]:.2f}x the CPU time"),
    Row("recorder", "the same: transformer", "{0[transformer][ratio]:.2f}x the CPU time"),
    Row("recorder", "the same: LSTM", "{0[lstm][ratio]:.2f}x the CPU time"),
    Row("recorder", "the same: MLP", "{0[mlp][ratio]:.2f}x the CPU time"),
)


def machine() -> dict[str, Any]:
    """The machine and the versions that the figures depend on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def last_object(text: str) -> Any:
    """The JSON object at the end of what a benchmark printed: the whole text, or its last line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return json.loads(text.strip().splitlines()[-1])


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Run benchmarks one after another; CalledProcessError if one fails."""
    found: dict[str, Any] = {}
    for name in names:
        print(f"{name}: python {' '.join(COMMANDS[name])}", flush=True)
        began = time.monotonic()
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *COMMANDS[name]], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = round(time.monotonic() - began, 1)
        found[name] = {"command": f"python {' '.join(COMMANDS[name])}", "seconds": seconds, "figures": last_object(done.stdout)}
        print(f"  {seconds:.0f} s", flush=True)
    return found


def page(results: Mapping[str, Any]) -> str:
    """Return the page of `results`; rows of benchmarks that were not measured are left out."""
    about, found = results["machine"], results["benchmarks"]
    parts = [
        "# Benchmarks",
        "",
        "Measured and written by `make bench`; do not edit. Ratios hold on other machines better than times do.",
    ]
    parts += ["Times are CPU seconds of one thread, unless the row says otherwise, since neighbours would spoil wall time.", ""]
    parts += ["| measured on | |", "|---|---|", f"| date | {about['measured']} |"]
    parts += [f"| machine | {about['processor']}, {about['cores']} cores, {about['memory_gb']} GB |"]
    parts += [f"| load when it began | {about['load']} |", f"| Python | {about['python']} |"]
    parts += [f"| {name} | {number} |" for name, number in about["versions"].items()]
    parts += ["", "| what | measured | command |", "|---|---|---|"]
    for row in ROWS:
        if row.benchmark in found:
            each = found[row.benchmark]
            parts.append(f"| {row.what} | {row.figure.format(each['figures'])} | `{each['command']}` |")
    total = sum(each["seconds"] for each in found.values())
    parts += [
        "",
        f"All of it took {total / 60:.1f} minutes. Without its quick options each command measures more; see `--help`.",
    ]
    parts += ["", (REPOSITORY / "benchmarks" / "long.md").read_text(encoding="utf-8").rstrip()]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Measure, keep the results, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page from the kept results; measure nothing")
    parser.add_argument("--only", nargs="+", choices=tuple(COMMANDS), help="measure only these")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"benchmarks": {}}
    if not options.page:
        about = machine()
        kept = results["benchmarks"] if options.only else {}
        results = {"machine": about, "benchmarks": kept | measure(options.only or tuple(COMMANDS))}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
