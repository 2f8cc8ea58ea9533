"""From one dropped Kasmina file to finished coverage checks, with a webserver and daemon as `make ui` starts them.

    python -m benchmarks.rebuild --rounds 5

Builds a home from a copy of the committed sample (with a model that trains in seconds), starts `dagster dev` on it, drops one
file of seed states of a new training run a round, and prints the median of the seconds until the last coverage check was
evaluated, and of the CPU seconds that the run's process had used by then. Also prints what one rebuild adds to the event log
(median of all, of the first and of the last quarter), and what is left of the log once retention keeps `--keep` runs.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import dagster as dg
import psutil

from lake.writes import PID
from tamiyo_assets.instance import open_instance
from tamiyo_assets.retention import prune

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKS = {"mandatory_coverage", "family_coverage", "coverage_conservation", "graphs_have_elements"}
TRAINING = "retrain_after = '1d'\n[training]\nepochs = 1\nsteps = 2\nbootstrap = 20\nboosting = false\nno_messages = false\n"
LIMIT_SECONDS = 600.0


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """A command with all its children, while the body runs."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def drop(exports: Path, number: int) -> None:
    """One file of 20 seed states of a new training run, complete when it has its name."""
    path = exports / "kasmina/seed_state" / f"late-{number}.ndjson"
    seed = {"training_run_id": f"late-{number}", "stage": "SEED_STAGE_DORMANT", "alpha": 0.5}
    lines = (json.dumps(seed | {"seed_id": f"seed-{n}", "timestamp_ns": str(10 + n)}) + "\n" for n in range(20))
    path.with_suffix(".tmp").write_text("".join(lines))
    path.with_suffix(".tmp").rename(path)


def newest(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun | None:
    """The newest run of a job."""
    runs = instance.get_runs(filters=dg.RunsFilter(job_name=job), limit=1)
    return runs[0] if runs else None


def ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """The run, once it has ended well."""
    limit = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < limit:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.is_finished:
            if not run.is_success:
                raise RuntimeError(f"run {run_id} ended as {run.status.value}")
            return run
        time.sleep(0.2)
    raise TimeoutError(f"run {run_id} had not ended after {LIMIT_SECONDS} s")


def evaluated(instance: dg.DagsterInstance, run_id: str) -> list[float]:
    """When the coverage checks of a run were evaluated, as far as they were."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [(event.timestamp, event.dagster_event) for event in events]
    return [at for at, event in found if event and event.asset_check_evaluation_data.check_name in CHECKS]


def one_round(instance: dg.DagsterInstance, exports: Path, number: int) -> dict[str, float]:
    """Drop a file and follow what becomes of it."""
    before = newest(instance, "rebuild")
    dropped = time.time()
    drop(exports, number)
    limit = time.monotonic() + LIMIT_SECONDS
    while (run := newest(instance, "rebuild")) == before or run is None or PID not in run.tags:
        if time.monotonic() > limit:
            raise TimeoutError(f"no rebuild began within {LIMIT_SECONDS} s of a drop")
        time.sleep(0.05)
    process = psutil.Process(int(run.tags[PID]))
    began = time.time()
    while len(times := evaluated(instance, run.run_id)) < len(CHECKS):
        cpu = sum(process.cpu_times()[:4])
        time.sleep(0.05)
    ended(instance, run.run_id)
    return {"begun": began - dropped, "checked": max(times) - dropped, "cpu": cpu}


def event_log_bytes(dagster_home: Path) -> int:
    """Bytes of the databases of events."""
    return sum(path.stat().st_size for path in (dagster_home / "history" / "runs").glob("*.db"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=int, default=2, help="runs that retention keeps at the end (default: 2)")
    options = parser.parse_args()
    rounds = options.rounds
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        home, exports, dagster_home = root / "home", root / "exports", root / "home" / "dagster"
        shutil.copytree(REPOSITORY / "recorder" / "sample", exports)
        home.mkdir()
        (home / "pipeline.toml").write_text(TRAINING)
        env = os.environ | {"TAMIYO_HOME": str(home), "TAMIYO_EXPORTS": str(exports), "DAGSTER_HOME": str(dagster_home)}
        env |= {"OMP_NUM_THREADS": "1"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = str(Path(sys.executable).with_name("dagster"))
        command = [program, "dev", "--workspace", "workspace.yaml", "--port", str(port)]
        with open_instance(dagster_home) as instance, running(command, env, root / "dev.log"):
            while (first := newest(instance, "everything")) is None:
                time.sleep(0.5)
            ended(instance, first.run_id)
            found, sizes = [], [event_log_bytes(dagster_home)]
            for number in range(rounds):
                found.append(one_round(instance, exports, number))
                sizes.append(event_log_bytes(dagster_home))
                print(json.dumps({name: round(value, 2) for name, value in found[-1].items()}), flush=True)
            pruned = prune(instance, most=options.keep)
            left = event_log_bytes(dagster_home)
        median = {f"{name}, seconds": round(statistics.median(one[name] for one in found), 2) for name in found[0]}
        added, quarter = [after - before for before, after in pairwise(sizes)], max(1, rounds // 4)
        log = {
            "a rebuild": int(statistics.median(added)),
            "a rebuild, first quarter": int(statistics.median(added[:quarter])),
            "a rebuild, last quarter": int(statistics.median(added[-quarter:])),
            "all": sizes[-1],
            "after retention": left,
            "runs kept": pruned.kept,
        }
        command_line = f"python -m benchmarks.rebuild --rounds {rounds} --keep {options.keep}"
        print(json.dumps({"command": command_line, **median, "event log, bytes": log}))


if __name__ == "__main__":
    main()
