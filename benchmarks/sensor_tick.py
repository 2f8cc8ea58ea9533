"""CPU seconds and memory of a tick of the exports sensor, and of planning a backfill, at many training runs.

    python -m benchmarks.sensor_tick --runs 1000 100000

One export file a run. The first tick of a process recalls the digests of files; the next ones are what every 10 s cost; the
tick after a new file also reads the ledger. Planning is what `tamiyo backfill` does before it asks for the backfill.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from lake.exports.folders import Exports
from lake.exports.ledger import Ledger, note_rebuilt
from lake.settings import Settings

FOLDER = "tolaria/system_state"


def exports(root: Path, first: int, last: int) -> None:
    """One file a run."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for run in range(first, last):
        packet = {"training_run_id": f"run-{run:07d}", "packet_id": "p-0", "timestamp_ns": str(run + 1)}
        (folder / f"run-{run:07d}.ndjson").write_text(json.dumps(packet) + "\n")


def cpu(work: Callable[[], object]) -> float:
    """Return CPU seconds of this process, kernel time included, for `work`."""
    before = time.process_time()
    work()
    return round(time.process_time() - before, 3)


def measured(place: Path, runs: int) -> dict[str, float]:
    """Measure in this process, whose memory is then that of `runs` runs alone."""
    from tamiyo.backfill import planned
    from tamiyo_assets.instance import open_instance
    from tamiyo_assets.resources.run import run_resources
    from tamiyo_assets.sensors import exports_sensor

    found = Settings(home=place / "home", exports=place / "exports", dagster_home=place / "dagster")
    resources = run_resources(found)
    cursor: str | None = None

    def tick() -> None:
        nonlocal cursor
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, resources=resources, sensor_name=exports_sensor.name
        ) as context:
            cursor = exports_sensor.evaluate_tick(context).cursor

    with open_instance(found.dagster_home) as instance:
        seconds = {"first": cpu(tick), "second": cpu(tick), "third": cpu(tick)}
        exports(found.exports, runs, runs + 1)
        seconds["one_more_file"] = cpu(tick)
        seconds["planning"] = cpu(lambda: planned(instance, found))
    return seconds | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def main() -> None:
    """Print one line for each number of runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.place:
        print(json.dumps({"runs": chosen.runs[0]} | measured(chosen.place, chosen.runs[0])))
        return
    for runs in chosen.runs:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            exports(place / "exports", 0, runs)
            read = Exports(place / "exports")
            time.sleep(2.5)  # a younger file is hashed at every scan
            scan = read.scan()
            (place / "home").mkdir()
            Ledger(place / "home").record(scan)
            note_rebuilt(place / "home")
            read.note(place / "home", scan)
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sensor_tick", "--place", name, "--runs", str(runs)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
