"""Make export files of any size for `benchmarks.ingest`: packets with eight metrics and two seeds each, in every format.

One packet is the pattern of all; a block of packets is a matrix of its bytes, in which the measured numbers are overwritten by
random ones. The identifying fields are written before it, so that no two packets are the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format

from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.leyline import leyline_pb2 as pb

FOLDER: Final = FOLDERS["tolaria/system_state"]
STEPS: Final = 5_000  # packets of one training run
METRICS: Final = (
    "loss",
    "gradient_norm",
    "samples_per_s",
    "hook_latency_ms",
    "latency_budget_ms",
    "loss_ewma",
    "grad_var",
    "optimizer_lr",
)
_BLOCK: Final = 20_000
_GROUP: Final = 250_000  # rows of a row group
_FIRST_NS: Final = 1_795_412_039_000_000_000
Bytes = npt.NDArray[np.uint8]


def _mark(number: int) -> float:
    """The number that stands for random number `number` in the pattern: ten characters, and unlike any other as float32."""
    return float(f"0.1{number:02d}45671")


def _pattern() -> tuple[pb.SystemStatePacket, int]:
    """The packet without its identifying fields, and how many random numbers it holds."""
    marks = iter(range(100))
    packet = pb.SystemStatePacket(
        version=1, source_subsystem="tolaria", training_loss=_mark(next(marks)), validation_loss=_mark(next(marks))
    )
    packet.hardware_context.device_type = "cpu"
    packet.hardware_context.utilization_percent = _mark(next(marks))
    packet.training_metrics.update({name: _mark(next(marks)) for name in METRICS})
    for seed in range(2):
        state = packet.seed_states.add(seed_id=f"seed-{seed}", stage=3, alpha=0.5, gradient_norm=_mark(next(marks)))
        state.monitored_layers.extend(["layer-0", "layer-1"])
        state.metrics["alpha_steps"] = seed
    return packet, next(marks)


def _as_json(packet: pb.SystemStatePacket) -> bytes:
    """The pattern as JSON without its opening brace."""
    return json.dumps(json_format.MessageToDict(packet, preserving_proto_field_name=True))[1:].encode()


def _blocks(count: int, pattern: bytes, marks: list[bytes], values: Any) -> Iterator[tuple[int, memoryview, int]]:
    """(number of the first packet, bytes of the block, bytes of a packet) with random numbers in the place of the marks."""
    chance = np.random.default_rng(0)
    places = [pattern.index(mark) for mark in marks]
    for first in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - first)
        matrix: Bytes = np.tile(np.frombuffer(pattern, np.uint8), (rows, 1))
        for place, mark in zip(places, marks, strict=True):
            matrix[:, place : place + len(mark)] = values(chance.integers(10_000_000, 100_000_000, rows), len(mark))
        yield first, memoryview(matrix.tobytes()), len(pattern)


def _floats(numbers: npt.NDArray[np.int64], _: int) -> Bytes:
    return (numbers / 1e8).astype("<f4").view(np.uint8).reshape(-1, 4)


def _texts(numbers: npt.NDArray[np.int64], width: int) -> Bytes:
    """`0.` and the eight digits of each number."""
    digits = numbers[:, None] // 10 ** np.arange(width - 3, -1, -1)[None, :] % 10 + ord("0")
    return np.hstack([np.tile(np.frombuffer(b"0.", np.uint8), (len(numbers), 1)), digits.astype(np.uint8)])


def _head(number: int) -> dict[str, Any]:
    """The identifying fields of a packet."""
    run = f"run-{number // STEPS:04d}"
    return {
        "current_epoch": number // 100,
        "timestamp_ns": _FIRST_NS + number,
        "global_step": number,
        "packet_id": f"{run}-step-{number}",
        "training_run_id": run,
    }


def write_binpb(path: Path, count: int) -> None:
    """`count` packets, each with its length before it."""
    packet, marks = _pattern()
    places = [np.float32(_mark(number)).tobytes() for number in range(marks)]
    with path.open("wb") as stream:
        for start, block, size in _blocks(count, packet.SerializeToString(), places, _floats):
            for row in range(len(block) // size):
                head = pb.SystemStatePacket(**_head(start + row)).SerializeToString()
                length = len(head) + size
                stream.write(bytes((length & 0x7F | 0x80, length >> 7)) + head + block[row * size : (row + 1) * size])


def write_ndjson(path: Path, count: int) -> None:
    """The same packets as JSON, one a line, 64-bit integers as strings as protobuf's JSON has them."""
    packet, marks = _pattern()
    places = [f"{_mark(number):.8f}".encode() for number in range(marks)]
    with path.open("wb") as stream:
        for start, block, size in _blocks(count, _as_json(packet), places, _texts):
            for row in range(len(block) // size):
                head = _head(start + row)
                texts = {name: str(head[name]) for name in ("timestamp_ns", "global_step")}
                stream.write(json.dumps(head | texts)[:-1].encode() + b", " + block[row * size : (row + 1) * size] + b"\n")


def write_parquet(path: Path, packets: Path) -> None:
    """The contract rows of `packets`, an export of `write_binpb`, in row groups of 250,000."""
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    for chunk in decode_file(packets, FOLDER, file=packets.name, digest="benchmark"):
        waiting.append(chunk.tables["tolaria.system_state"])
        writer = writer or pq.ParquetWriter(path, waiting[0].schema)
        if sum(rows.num_rows for rows in waiting) >= _GROUP:
            writer.write_table(pa.concat_tables(waiting))
            waiting = []
    if writer is not None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
        writer.close()


def write(root: Path, extension: str, count: int) -> Path:
    """Return the export of `count` packets in one format; it is made only if it is not there already."""
    path = root / f"packets-{count}{extension}"
    if path.exists():
        return path
    if extension == ".ndjson":
        write_ndjson(path, count)
    elif extension == ".binpb":
        write_binpb(path, count)
    else:
        write_parquet(path, write(root, ".binpb", count))
    return path
