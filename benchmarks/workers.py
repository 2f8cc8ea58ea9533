"""Wall seconds from contract tables to shards with one worker and with two, bucket by bucket as `tamiyo backfill` spreads it.

    python -m benchmarks.workers [EXPORTS] [--rounds 2]
    python -m benchmarks.workers --cluster            # the same through Dagster, Celery, Redis and PostgreSQL

Each worker is a running process with its imports loaded; it takes buckets one by one until all 16 are done. Every round
makes the features, coverage and graphs of a fresh copy of the same contract tables, with one worker, then with two. With
`--cluster`, `make cluster` runs with one worker, then with two, each from an empty home, and the time is that from the start of
the first run of a bucket to the end of the last. Run it on a machine that does nothing else.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.stages import digested, ingested, registered
from gnn.graph.dataset import current_shards
from gnn.registry.refresh import load
from lake.settings import SAMPLE
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.buckets import BUCKETS
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets.coverage import refresh_coverage
from tamiyo_assets.assets.features import FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild

COUNTS: Final = (1, 2)
PATIENCE_S: Final = 900.0


def prepared(exports: Path, home: Path) -> None:
    """Make all that the runs of buckets read; then warm up on nothing: files in memory, libraries loaded."""
    home.mkdir(parents=True)
    tables = TableStore(home, DERIVED)
    for stage in (ingested, registered, digested):
        stage(exports, home, tables)


def work(home: Path, buckets: "Queue[int | None]", ready: Barrier) -> None:
    """Make bucket after bucket, as a worker of a cluster does."""

    ready.wait()
    tables = TableStore(home, DERIVED)
    while (bucket := buckets.get()) is not None:
        list(FeatureBuild(tables, Versions(home, tables), [bucket]).refresh())
        list(refresh_coverage(tables, [bucket]))
        list(GraphBuild(home, tables, load(home / "registries"), [bucket]).refresh())


def seconds(home: Path, count: int) -> float:
    """Return the wall seconds that `count` workers take for all buckets of a home."""
    context = multiprocessing.get_context("spawn")
    ready, buckets = context.Barrier(count + 1), context.Queue()
    for bucket in (*range(BUCKETS), *(None,) * count):
        buckets.put(bucket)
    processes = [context.Process(target=work, args=(home, buckets, ready)) for _ in range(count)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.monotonic()
    for process in processes:
        process.join()
    ended = time.monotonic()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"expected {count} workers to end with status 0, found {[one.exitcode for one in processes]}")
    return ended - began


def compared(exports: Path, rounds: int) -> dict[str, object]:
    """Measure both numbers of workers in turn, and require that they make the same shards."""
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    shards = set()
    with tempfile.TemporaryDirectory() as place:
        prepared(exports, Path(place, "home"))
        for _ in range(rounds):
            for count in COUNTS:
                home = Path(place, "copy")
                shutil.copytree(Path(place, "home"), home)
                found[count].append(seconds(home, count))
                shards.add(json.dumps(current_shards(home), sort_keys=True))
                shutil.rmtree(home)
    if len(shards) != 1:
        raise SystemExit(f"expected the same shards from any number of workers, found {len(shards)} sets")
    return {"rounds": rounds} | said({count: median(values) for count, values in found.items()})


def said(wall_s: dict[int, float]) -> dict[str, object]:
    """Return the figures of both numbers of workers, and the ratio."""
    one, two = (wall_s[count] for count in COUNTS)
    return {"wall_s": {count: round(value, 1) for count, value in wall_s.items()}, "speed_up": round(one / two, 2)}


def clustered(exports: Path | None) -> dict[str, object]:
    """Measure a backfill by a cluster of one worker and by one of two."""
    return {"cluster": True} | said({count: of_cluster(exports, count) for count in COUNTS})


def of_cluster(exports: Path | None, count: int) -> float:
    """Return the wall seconds of the runs of buckets of one backfill, from the first start to the last end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAMIYO_", "DAGSTER_"))}
    run = [sys.executable, "-W", "ignore", "-m"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)  # PostgreSQL runs as another user if we are root
        command = [*run, "tamiyo.cluster", place, *([exports] if exports else [])]
        cluster = subprocess.Popen(command, env=environment | {"TAMIYO_WORKERS": str(count)}, stdout=subprocess.DEVNULL)
        try:
            lines = _when_up(place, cluster).splitlines()
            environment |= {key: value.strip("'") for key, _, value in (line.partition("=") for line in lines)}
            subprocess.run([*run, "tamiyo", "backfill", "--json"], env=environment, check=True, stdout=subprocess.DEVNULL)
            timed = [*run, "benchmarks.workers", "--runs-of", environment["DAGSTER_HOME"]]
            return float(subprocess.run(timed, env=environment, check=True, capture_output=True, text=True).stdout)
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(120)


def _when_up(place: Path, cluster: "subprocess.Popen[bytes]") -> str:
    until = time.monotonic() + PATIENCE_S
    while not (place / "pids").exists():
        if cluster.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"expected a cluster in {place} that comes up, found status {cluster.poll()}")
        time.sleep(0.5)
    return (place / "environment").read_text()


def runs_of(dagster_home: Path) -> float:
    """Return the wall seconds from the first start to the last end of a bucket's run, as Dagster has them."""
    import dagster as dg

    from lake.writes import WRITES
    from tamiyo_assets.instance import open_instance

    with open_instance(dagster_home) as instance:
        records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        found = [one for one in records if one.dagster_run.tags.get(WRITES, "").startswith("bucket-")]
        if len(found) != BUCKETS:
            raise SystemExit(f"expected {BUCKETS} runs of buckets that succeeded, found {len(found)}")
        return max(one.end_time or 0.0 for one in found) - min(one.start_time or 0.0 for one in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cluster", action="store_true", help="through Dagster and Celery")
    parser.add_argument("--runs-of", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as `make cluster` sets it for its workers
    if chosen.runs_of:
        print(runs_of(chosen.runs_of))
    elif chosen.cluster:
        print(json.dumps(clustered(chosen.exports)))
    else:
        print(json.dumps(compared(chosen.exports or SAMPLE, chosen.rounds)))
