"""Every bound of `Limits` stops what exceeds it with an error of its own, by configuration, and costs no memory."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import binpb, decode, packed

SEEDS = "kasmina/seed_state"
SEED = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 7}
LINE = json.dumps(SEED | {"policy_version": "x" * 100, "monitored_layers": ["a"] * 9})
GROUP = pa.table({"seed_id": ["s", "t"], "training_run_id": ["r", "r"], "timestamp_ns": [1, 1]})


def parquet(rows: pa.Table, **how: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, store_schema=False, **how)
    return sink.getvalue()


def texts(column: str, *, dictionary: bool) -> bytes:
    """16,384 rows that hold the same long text, in less than 200 KB."""
    count = 16_384
    text = "x" * (100_000 if dictionary else 20_000)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))
    if column == "monitored_layers":
        words = pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), words)
    rows = {"seed_id": [f"s{n}" for n in range(count)], "training_run_id": ["r"] * count, "timestamp_ns": [1] * count}
    return parquet(pa.table(rows | {column: words}), compression="zstd", use_dictionary=dictionary)


CASES: dict[str, tuple[str, str, bytes]] = {
    "record_bytes": (SEEDS, "x.ndjson", packed([LINE], ".ndjson")),
    "file_bytes": (SEEDS, "x.ndjson", packed([LINE], ".ndjson")),
    "unpacked_bytes": (SEEDS, "x.ndjson.gz", packed([LINE] * 9, ".ndjson.gz")),
    "compression_ratio": (SEEDS, "x.ndjson.zst", packed([LINE, " " * 9_000_000], ".ndjson.zst")),
    "string_bytes": (SEEDS, "x.ndjson", packed([LINE], ".ndjson")),
    "nesting": (SEEDS, "x.ndjson", packed([json.dumps(SEED | {"x": [[[[[1]]]]]})], ".ndjson")),
    "elements": (SEEDS, "x.ndjson", packed([LINE], ".ndjson")),
    "json_file_bytes": ("simic/registry_snapshot", "seed_registry.json", b'{"a": 1, "bcdef": 2}'),
    "parquet_row_group_rows": (SEEDS, "x.parquet", parquet(GROUP)),
}
SMALL = {"unpacked_bytes": 300, "compression_ratio": 2, "nesting": 3, "elements": 5, "parquet_row_group_rows": 1}


@pytest.mark.parametrize("limit", CASES)
def test_each_limit_has_an_error_that_names_it(tmp_path: Path, limit: str) -> None:
    folder, name, data = CASES[limit]
    assert "limit_exceeded" not in decode(tmp_path, folder, name, data, Limits(compression_ratio=10**6)).reasons
    result = decode(tmp_path, folder, name, data, Limits(**{limit: SMALL.get(limit, 10)}))
    messages = [row["message"] for rows in result.rejects.values() for row in rows if row["reason"] == "limit_exceeded"]
    assert messages and all(f"{limit}:" in message for message in messages)
    assert result.balanced()


def test_every_limit_is_tested_here() -> None:
    chunks = {"chunk_records", "chunk_bytes", "resync_bytes"}
    assert Limits.model_fields.keys() == CASES.keys() | chunks


def test_damage_is_searched_for_records_no_further_than_its_limit(tmp_path: Path) -> None:
    good = binpb([pb.SeedState(seed_id=f"s{n}", training_run_id="r", timestamp_ns=1).SerializeToString() for n in range(9)])
    data = good + b"\xff" * 500 + good
    assert len(decode(tmp_path, SEEDS, "x.binpb", data).rows("kasmina.seed_state")) == 18
    result = decode(tmp_path, SEEDS, "x.binpb", data, Limits(resync_bytes=100))
    assert (len(result.rows("kasmina.seed_state")), result.reasons) == (9, ["bad_framing"])


_CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from tests.schemas.decoding import decode
result = decode(Path(sys.argv[1]).parent, "kasmina/seed_state", "bomb.parquet", Path(sys.argv[1]).read_bytes())
print(result.rejects["rejects.kasmina_seed_state"][0]["message"])
"""


@pytest.mark.parametrize(
    ("column", "dictionary", "limit"),
    [
        ("policy_version", True, "chunk_bytes"),
        ("monitored_layers", True, "chunk_bytes"),
        ("policy_version", False, "compression_ratio"),
    ],
)
def test_a_parquet_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, repository: Path, column: str, dictionary: bool, limit: str
) -> None:
    data = texts(column, dictionary=dictionary)
    assert len(data) < 200_000
    path = tmp_path / "bomb.parquet"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{limit}: expected" in done.stdout
