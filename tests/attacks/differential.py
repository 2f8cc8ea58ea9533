"""The same records in every format, with the same faults in them: what each format makes of them must be the same."""

import datetime as dt
import gzip
import io
import json
import math
import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import binpb, wal

REPORTS = "tamiyo/field_report"
LIMITS = Limits(string_bytes=200)
SECOND = 10**9
UNITS = {"s": SECOND, "ms": 10**6, "us": 10**3, "ns": 1}
YEARS = (1, 1600, 1677, 1960, 2262, 2300, 9999)
OUTCOMES = ("SUCCESS", "NEUTRAL", "REGRESSION", "ABORTED")
NUMBERS = {name: number for number, name in enumerate(OUTCOMES, start=1)}


@dataclass
class World:
    """Field reports as plain values (None: not sent; times as ns since 1970), and how fine their times are.

    `texts`: values of integers that only JSON and Parquet can hold, by row.
    """

    rows: list[dict[str, Any]]
    unit: str
    texts: dict[int, Any] = field(default_factory=dict)


def world(chance: random.Random, count: int = 24) -> World:
    """Records with faults here and there."""
    unit = chance.choice(list(UNITS))
    rows = [_row(chance, number, UNITS[unit]) for number in range(count)]
    for _ in range(chance.randrange(6)):
        _spoil(chance, chance.choice(rows), UNITS[unit])
    found = World(rows, unit)
    if chance.random() < 0.4:
        found.texts = {chance.randrange(count): chance.choice(["n/a", "2.5", 2.5, 2.0**60, math.nan, "", "-1"])}
    return found


def _row(chance: random.Random, number: int, step: int) -> dict[str, Any]:
    return {
        "training_run_id": "r",
        "report_id": f"x{number}",
        "issued_at": chance.randrange(SECOND * 10**9, SECOND * 18 * 10**8) // step * step,
        "outcome": chance.choice([*OUTCOMES, None]),
        "metrics": {chance.choice("abc"): chance.choice([0.0, 0.5, -3.25, 1e-3]) for _ in range(chance.randrange(3))},
        "base_loss": chance.choice([None, 0.0, 0.5, 1.25]),
        "observation_window_epochs": chance.choice([None, 1, 7, 2**32 - 1]),
        "notes": chance.choice([None, "a", "é\u2028 {}\n\t\"'", "\x00\x1b[31m"]),
    }


def _spoil(chance: random.Random, row: dict[str, Any], step: int) -> None:
    """One fault that every format can hold."""
    key = chance.choice(["training_run_id", "report_id", "issued_at", "time", "outcome", "metrics", "base_loss", "notes"])
    if key == "time":
        moment = dt.datetime(chance.choice(YEARS), 6, chance.randrange(1, 28), 12, 30, 15, tzinfo=dt.UTC)
        row["issued_at"] = int((moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()) * SECOND // step * step
    elif key == "outcome":
        row[key] = "99"
    elif key == "metrics":
        row[key] = {"a": chance.choice([math.nan, math.inf, -math.inf]), "b": 0.5}
    elif key == "base_loss":
        row[key] = chance.choice([math.nan, math.inf])
    elif key == "notes":
        row[key] = "n" * 201
    else:
        row[key] = None


def messages(found: World) -> list[bytes]:
    """The records as protobuf."""
    payloads = []
    for row in found.rows:
        report = pb.FieldReport(training_run_id=row["training_run_id"], report_id=row["report_id"], notes=row["notes"])
        if row["issued_at"] is not None:
            report.issued_at.seconds, report.issued_at.nanos = divmod(row["issued_at"], SECOND)
        report.outcome = 0 if row["outcome"] is None else NUMBERS.get(row["outcome"], 99)
        report.metrics.update(row["metrics"])
        if row["base_loss"] is not None:
            report.base_loss = row["base_loss"]
        report.observation_window_epochs = row["observation_window_epochs"] or 0
        payloads.append(report.SerializeToString())
    return payloads


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def iso(ns: int, chance: random.Random) -> str:
    """A time as text, in one of the spellings that mean the same."""
    seconds, fraction = divmod(ns, SECOND)
    zone = chance.choice(["Z", "z", "", "+00:00", "+05:30"])
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    if zone == "+05:30" and 1 < moment.year < 9999:
        moment += dt.timedelta(hours=5, minutes=30)
    elif zone == "+05:30":
        zone = "Z"
    text = f"{moment.year:04d}{moment.strftime('-%m-%dT%H:%M:%S')}" + (f".{fraction:09d}" if fraction else "")
    return text.replace("T", chance.choice("Tt")) + zone


def lines(found: World, chance: random.Random) -> list[bytes]:
    """The records as JSON, one a line."""
    made = []
    for number, row in enumerate(found.rows):
        value = {key: item for key, item in row.items() if item is not None}
        if "issued_at" in value:
            value["issued_at"] = iso(value["issued_at"], chance)
        if "outcome" in value:
            value["outcome"] = chance.choice([f"FIELD_REPORT_OUTCOME_{value['outcome']}", NUMBERS.get(value["outcome"], 99)])
            value["outcome"] = 99 if row["outcome"] == "99" else value["outcome"]
        value["metrics"] = {key: _json_number(item) for key, item in value["metrics"].items()}
        value |= {key: _json_number(value[key]) for key in ("base_loss",) if key in value}
        if number in found.texts:
            value["observation_window_epochs"] = _json_number(found.texts[number])
        camel = {"training_run_id": "trainingRunId", "report_id": "reportId", "issued_at": "issuedAt", "base_loss": "baseLoss"}
        spelled = {camel.get(key, key) if chance.random() < 0.5 else key: item for key, item in value.items()}
        made.append(json.dumps(spelled, ensure_ascii=chance.random() < 0.5).encode() + b"\n")
    return made


def _times(found: World, chance: random.Random) -> tuple[pa.Array, bool]:
    """The times in one of the types that can hold them, and whether they are written as INT96."""
    values = [row["issued_at"] for row in found.rows]
    fits = all(value is None or -(2**63) < value < 2**63 for value in values)
    kinds = ["text", *[unit for unit in UNITS if UNITS[unit] <= UNITS[found.unit] and (unit != "ns" or fits)]]
    kinds += ["int64"] * fits + ["int96"] * (UNITS[found.unit] >= UNITS["us"])
    kind = chance.choice(kinds)
    if kind == "text":
        return pa.array([None if value is None else iso(value, chance) for value in values]), False
    if kind == "int64":
        return pa.array(values, pa.int64()), False
    unit = "us" if kind == "int96" else kind
    zone = None if kind == "int96" else chance.choice([None, "UTC", "+02:00"])
    scaled = [None if value is None else value // UNITS[unit] for value in values]
    return pa.array(scaled, pa.int64()).cast(pa.timestamp(unit, zone)), kind == "int96"


def _windows(found: World) -> pa.Array:
    values = [found.texts.get(number, row["observation_window_epochs"]) for number, row in enumerate(found.rows)]
    if any(isinstance(value, str) for value in values):
        return pa.array([None if value is None else str(value) for value in values])
    if any(isinstance(value, float) for value in values):
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array(values, pa.int64())


def parquet(found: World, chance: random.Random, group: int = 6) -> bytes:
    """The records as a Parquet file."""
    times, int96 = _times(found, chance)
    rows = found.rows
    columns = {
        "training_run_id": pa.array([row["training_run_id"] for row in rows], pa.string()),
        "report_id": pa.array([row["report_id"] for row in rows], pa.string()),
        "issued_at_ns": times,
        "outcome": pa.array([row["outcome"] for row in rows], pa.string()),
        "metrics": pa.array([list(row["metrics"].items()) for row in rows], pa.map_(pa.string(), pa.float64())),
        "base_loss": pa.array([row["base_loss"] for row in rows], pa.float64()),
        "observation_window_epochs": _windows(found),
        "notes": pa.array([row["notes"] for row in rows], pa.string()),
    }
    sink = io.BytesIO()
    how: dict[str, Any] = {"compression": chance.choice(["none", "snappy", "zstd", "gzip"]), "row_group_size": group}
    pq.write_table(pa.table(columns), sink, use_deprecated_int96_timestamps=int96, store_schema=chance.random() < 0.5, **how)
    return sink.getvalue()


def encoded(found: World, chance: random.Random, group: int = 6) -> dict[str, list[bytes]]:
    """The records in every format that can hold them, in the pieces that damage can't cross: records, members, or all."""
    payloads, texts = messages(found), lines(found, chance)
    grouped = [b"".join(texts[first : first + group]) for first in range(0, len(texts), group)]
    made = {
        "x.ndjson": texts,
        "x.ndjson.gz": [gzip.compress(part) for part in grouped],
        "x.ndjson.zst": [zstandard.ZstdCompressor(write_checksum=chance.random() < 0.5).compress(part) for part in grouped],
        "x.parquet": [parquet(found, chance, group)],
    }
    if not found.texts:
        made |= {"x.binpb": [binpb([payload]) for payload in payloads], "x.wal": [wal([payload]) for payload in payloads]}
    return made
