"""Ingest against the bare readers: `python -m benchmarks.ingest [--packets N] [--rounds N]`.

For the same packets (with metrics and seeds) in each format, CPU and wall seconds of reading with nothing else (DuckDB's typed
`read_json` and `read_parquet`, upb's parsing of each record), and of decoding, validation, rejects, merge and the Delta write.
Rounds are interleaved and the least time of each counts, since a shared machine only ever adds to it. Peak memory is that
of the process.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from google.protobuf import json_format

from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Limits, decode_file
from schemas.decode.framing import read_frames
from schemas.decode.merge import merge
from schemas.leyline import leyline_pb2 as pb

FOLDER = FOLDERS["tolaria/system_state"]
METRICS = (
    "loss",
    "gradient_norm",
    "samples_per_s",
    "hook_latency_ms",
    "latency_budget_ms",
    "loss_ewma",
    "grad_var",
    "optimizer_lr",
)
TYPES = {
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


def packets(count: int) -> Iterator[pb.SystemStatePacket]:
    """Packets of runs of 5,000 steps, with eight metrics and two seeds each."""
    chance = random.Random(0)
    for number in range(count):
        run = f"run-{number // 5000}"
        packet = pb.SystemStatePacket(
            version=1,
            current_epoch=number // 100,
            training_loss=chance.random(),
            validation_loss=chance.random(),
            timestamp_ns=1_795_412_039_000_000_000 + number,
            global_step=number,
            packet_id=f"{run}-step-{number}",
            source_subsystem="tolaria",
            training_run_id=run,
        )
        packet.hardware_context.device_type = "cpu"
        packet.hardware_context.utilization_percent = 100 * chance.random()
        packet.training_metrics.update({name: chance.random() for name in METRICS})
        for seed in range(2):
            state = packet.seed_states.add(seed_id=f"seed-{seed}", stage=3, alpha=0.5, gradient_norm=chance.random())
            state.monitored_layers.extend(["layer-0", "layer-1"])
            state.metrics["alpha_steps"] = seed
        yield packet


def prepare(root: Path, count: int) -> dict[str, Path]:
    """The same packets as .binpb, .ndjson and .parquet."""
    paths = {extension: root / f"packets{extension}" for extension in (".binpb", ".ndjson", ".parquet")}
    with paths[".binpb"].open("wb") as binary, paths[".ndjson"].open("w", encoding="utf-8") as text:
        for packet in packets(count):
            payload, length = packet.SerializeToString(), packet.ByteSize()
            while length >= 0x80:
                binary.write(bytes([length & 0x7F | 0x80]))
                length >>= 7
            binary.write(bytes([length]) + payload)
            text.write(json_format.MessageToJson(packet, indent=None, preserving_proto_field_name=True) + "\n")
    rows = [chunk.tables["tolaria.system_state"] for chunk in decode(paths[".binpb"])]
    pq.write_table(pa.concat_tables(rows), paths[".parquet"])
    return paths


def decode(path: Path) -> Iterator[object]:
    """Decoded chunks of a file."""
    return decode_file(path, FOLDER, file=path.name, digest="benchmark")


def ingest(path: Path) -> None:
    """Decode, validate, merge and write every table of a file."""
    tables: dict[str, list[pa.Table]] = {}
    for chunk in decode(path):
        for name, rows in chunk.tables.items():
            tables.setdefault(name, []).append(rows)
    with tempfile.TemporaryDirectory() as home:
        for name, parts in tables.items():
            write_deltalake(f"{home}/{name}", merge(TABLES[name], None, pa.concat_tables(parts)).rows)


def bare(path: Path) -> None:
    """Read the file with nothing else."""
    if path.suffix == ".binpb":
        for chunk in read_frames(path, ".binpb", Limits(), bool):
            for payload in chunk.raws:
                pb.SystemStatePacket.FromString(payload)
        return
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        source = f"read_json('{path}', columns = {TYPES}, format = 'newline_delimited')"
        chosen = source if path.suffix == ".ndjson" else f"read_parquet('{path}')"
        connection.sql(f"SELECT * FROM {chosen}").to_arrow_table()


def cost(work: Callable[[Path], None], path: Path) -> Cost:
    """What `work` on a file takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(path)
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def measure(count: int, rounds: int) -> dict[str, object]:
    """Ratios by format, and the peak memory of the process in MiB."""
    with tempfile.TemporaryDirectory() as root:
        paths = prepare(Path(root), count)
        found: dict[str, object] = {"packets": count, "rounds": rounds}
        for extension, path in paths.items():
            pairs = [(cost(bare, path), cost(ingest, path)) for _ in range(rounds)]
            found[extension] = {
                "MiB": round(path.stat().st_size / 2**20, 1),
                "bare_cpu_s": round(min(one.cpu for one, _ in pairs), 3),
                "ingest_cpu_s": round(min(one.cpu for _, one in pairs), 3),
                "cpu_ratio": round(min(one.cpu for _, one in pairs) / min(one.cpu for one, _ in pairs), 2),
                "wall_ratio": round(min(one.wall for _, one in pairs) / min(one.wall for one, _ in pairs), 2),
            }
    found["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.packets, options.rounds), indent=1))


if __name__ == "__main__":
    main()
