"""What one more export costs, from the file to coverage and graphs, in homes of few and of many training runs.

    python -m benchmarks.increments --runs 20 200 2000 --rounds 5

Fills one home for each number of runs with copies of the committed sample (every run with a host of its own, 16 packets each),
then adds the exports of one more run to each home in turn. Each time a process of its own ingests, refreshes the registries,
joins features, counts coverage with its checks and encodes graphs, as Dagster assets; nothing is trained. Prints the medians of
CPU seconds and of peak memory of those processes, ratios of the most runs to the others, and how many runs were encoded.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import dagster as dg
import zstandard

from lake.settings import SAMPLE, Settings
from tamiyo_assets.assets.coverage import COVERAGE_TABLES
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.instance import open_instance

FOLDERS = ("urza/blueprint", "tolaria/system_state", "kasmina/seed_state")
MARK = b"s7-"  # every id of a host, run or packet of the sample has it
RUNS_A_COPY = 212


def put(root: Path, copy: str, hosts: range) -> None:
    """Write the exports of those hosts of the sample under other names."""
    wanted = tuple(MARK + b"%04d" % host for host in hosts)
    for folder in FOLDERS:
        for path in sorted((SAMPLE / folder).glob("*.ndjson.zst")):
            lines = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines(keepends=True)
            chosen = [line for line in lines if any(mark in line for mark in wanted) or (copy == "a" and MARK not in line)]
            if chosen:
                target = root / "exports" / folder / f"{copy}-{path.name.removesuffix('.zst')}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"".join(chosen).replace(MARK, copy.encode() + b"-"))


def once(root: Path) -> None:
    """Rebuild up to the graphs in this process; print what that took."""
    began = time.process_time()
    settings = Settings(home=root / "home", exports=root / "exports", dagster_home=root / "dagster")
    (root / "home").mkdir(exist_ok=True)
    selection = dg.AssetSelection.assets(DATASET, *(key_of(name) for name in COVERAGE_TABLES)).upstream()
    definitions = build_definitions(settings)
    job = dg.define_asset_job("increment", selection | dg.AssetSelection.checks_for_assets(*_checked()))
    resolved = dg.Definitions(
        assets=definitions.assets, asset_checks=definitions.asset_checks, jobs=[job], resources=definitions.resources
    )
    with open_instance(settings.dagster_home) as instance:
        result = resolved.resolve_job_def("increment").execute_in_process(instance=instance)
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == DATASET]
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"cpu": time.process_time() - began, "whole": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps(found | {"encoded": event.materialization.metadata["runs_encoded"].value}))


def _checked() -> list[dg.AssetsDefinition]:
    from tamiyo_assets.assets.coverage import coverage

    return [coverage]


def rebuild(root: Path) -> dict[str, float]:
    """Run `once` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.increments", "--once", str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill(root: Path, runs: int) -> None:
    """Make a home of `runs` training runs."""
    for copy in range(-(-runs // RUNS_A_COPY)):
        put(root, "abcdefghijklmnopqrstuvwxyz"[copy], range(min(RUNS_A_COPY, runs - copy * RUNS_A_COPY)))
    rebuild(root)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.once)
        return
    with tempfile.TemporaryDirectory() as place:
        roots = {runs: Path(place) / str(runs) for runs in options.runs}
        for runs, root in roots.items():
            fill(root, runs)
        found: dict[int, list[dict[str, float]]] = {runs: [] for runs in roots}
        for number in range(options.rounds):
            for runs, root in roots.items():
                put(root, f"n{number}", range(number, number + 1))
                found[runs].append(rebuild(root))
    names = ("cpu", "whole", "peak_mb", "encoded")
    medians = {runs: {name: round(median(one[name] for one in each), 2) for name in names} for runs, each in found.items()}
    most = medians[max(medians)]
    ratios = {
        f"{max(medians)} to {runs}": {name: round(most[name] / own[name], 2) for name in names} for runs, own in medians.items()
    }
    print(json.dumps({"rounds": options.rounds, "medians": medians, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
