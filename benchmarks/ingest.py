"""Ingest against the bare readers: `python -m benchmarks.ingest [--packets N] [--rounds N] [--large N]`.

For the same packets (with eight metrics and two seeds each) in each format, CPU and wall seconds of reading on one thread with
nothing else (DuckDB's typed `read_json` and `read_parquet` into Arrow; framing and upb's parsing of each record), and of the
whole of `Ingest.refresh` into an empty home: hashing, ledger, decoding, validation, rejects, staging, merge and the Delta
commits of every table. Both in this process, in turn; ratios are of the medians. CPU seconds are those of all threads: an
ingest stages beside decoding and writes two tables at once, so that it takes less time than CPU. Peak memory is that of
refreshes in processes of their own, of which each reads one file, of N packets and of `--large` packets.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import duckdb

from benchmarks.packets import FOLDER, write
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.decode import Limits, decode_file
from schemas.decode.read.framing import read_frames
from schemas.leyline import leyline_pb2 as pb

EXTENSIONS: Final = (".binpb", ".ndjson", ".parquet")
TYPES: Final = {
    "version": "UINTEGER",
    "current_epoch": "UINTEGER",
    "training_loss": "FLOAT",
    "validation_loss": "FLOAT",
    "timestamp_ns": "UBIGINT",
    "global_step": "UBIGINT",
    "packet_id": "VARCHAR",
    "source_subsystem": "VARCHAR",
    "training_run_id": "VARCHAR",
    "hardware_context": "STRUCT(device_type VARCHAR, utilization_percent FLOAT)",
    "training_metrics": "MAP(VARCHAR, FLOAT)",
    "seed_states": "STRUCT(seed_id VARCHAR, stage VARCHAR, gradient_norm FLOAT, alpha FLOAT, metrics MAP(VARCHAR, FLOAT), "
    "age_epochs UINTEGER, monitored_layers VARCHAR[])[]",
}


@dataclass(frozen=True)
class Cost:
    """CPU and wall seconds."""

    cpu: float
    wall: float


def bare(path: Path) -> None:
    """Read the file with nothing else."""
    if path.suffix == ".binpb":
        for chunk in read_frames(path, ".binpb", Limits(), bool):
            for payload in chunk.raws:
                pb.SystemStatePacket.FromString(payload)
        return
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET threads = 1")
        source = f"read_json('{path}', columns = {TYPES}, format = 'newline_delimited')"
        chosen = source if path.suffix == ".ndjson" else f"read_parquet('{path}')"
        connection.sql(f"SELECT * FROM {chosen}").to_arrow_table()


def decode(path: Path) -> None:
    """Decode and validate the file, and drop the rows."""
    for _ in decode_file(path, FOLDER, file=path.name, digest="benchmark"):
        pass


def refresh(path: Path) -> None:
    """Bring an empty home up to date with an exports root that holds the file alone."""
    with tempfile.TemporaryDirectory(dir=path.parent) as root:
        folder = Path(root, "exports", FOLDER.path)
        folder.mkdir(parents=True)
        (folder / path.name).hardlink_to(path)
        home = Path(root, "home")
        Ingest(home, Exports(Path(root, "exports")), TableStore(home)).refresh()


def cost(work: Callable[[Path], None], path: Path) -> Cost:
    """Return what `work` on a file costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(path)
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def compare(path: Path, rounds: int) -> dict[str, Any]:
    """Median costs of the bare reader, of decoding alone and of the whole refresh, in turn, and their ratios."""
    works = {"bare": bare, "decode": decode, "ingest": refresh}
    costs = [{name: cost(work, path) for name, work in works.items()} for _ in range(rounds)]
    cpu = {name: median(one[name].cpu for one in costs) for name in works}
    wall = {name: median(one[name].wall for one in costs) for name in works}
    return {
        "MiB": round(path.stat().st_size / 2**20, 1),
        "cpu_s": {name: round(value, 2) for name, value in cpu.items()},
        "wall_s": {name: round(value, 2) for name, value in wall.items()},
        "cpu_ratio": round(cpu["ingest"] / cpu["bare"], 2),
        "wall_ratio": round(wall["ingest"] / wall["bare"], 2),
    }


def peak(path: Path) -> int:
    """Peak resident memory (MiB) of a process that ingests the file and does nothing else."""
    found = subprocess.run([sys.executable, "-m", "benchmarks.ingest", "--only", path], check=True, capture_output=True)
    return int(found.stdout)


def resident_peak() -> int:
    """Return this process's peak resident memory in MiB, of its own pages since it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


def measure(count: int, large: int, rounds: int) -> dict[str, Any]:
    """Return costs and peak memory by format; the files are made beforehand and removed afterwards."""
    found: dict[str, Any] = {"packets": count, "rounds": rounds, "large": large}
    root = Path(tempfile.mkdtemp())
    try:
        for extension in EXTENSIONS:
            path = write(root, extension, count)
            found[extension] = compare(path, rounds) | {"peak_MiB": peak(path)}
            if large:
                path = write(root, extension, large)
                found[extension] |= {"large_peak_MiB": peak(path)}
                if extension == ".ndjson":
                    path.unlink()
    finally:
        shutil.rmtree(root)
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=0, help="packets of a second file, for peak memory only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=Path, help="ingest this file and print the peak memory in MiB")
    options = parser.parse_args()
    if options.only is not None:
        refresh(options.only)
        print(resident_peak())
        return
    print(json.dumps(measure(options.packets, options.large, options.rounds), indent=1))


if __name__ == "__main__":
    main()
