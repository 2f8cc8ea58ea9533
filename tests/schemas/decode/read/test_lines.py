"""Text exports: compression, its damage and its bombs, long lines, odd line ends."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from google.protobuf import json_format

from schemas.contracts import FOLDERS
from schemas.decode import Limits, decode_file
from schemas.errors import ContractError
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import binpb, decode, packed, wal

FOLDER = "kasmina/seed_state"
SEEDS = "kasmina.seed_state"


def line(number: int, note: str = "") -> str:
    return json.dumps({"seed_id": f"s{number}", "training_run_id": "r", "timestamp_ns": 7, "policy_version": note})


@pytest.mark.parametrize("extension", [".ndjson", ".ndjson.gz", ".ndjson.zst"])
def test_every_packing_gives_the_lines(tmp_path: Path, extension: str) -> None:
    result = decode(tmp_path, FOLDER, f"x{extension}", packed([line(n) for n in range(5)], extension))
    assert [row["position"] for row in result.rows(SEEDS)] == [1, 2, 3, 4, 5]


def test_windows_line_ends_a_bom_blank_lines_and_no_last_newline(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + f"{line(0)}\r\n\r\n  \n{line(1)}".encode()
    result = decode(tmp_path, FOLDER, "x.ndjson", data)
    assert [(row["seed_id"], row["position"]) for row in result.rows(SEEDS)] == [("s0", 1), ("s1", 4)]


@pytest.mark.parametrize("extension", [".ndjson.gz", ".ndjson.zst"])
def test_damaged_compression_keeps_what_was_unpacked_and_says_so(tmp_path: Path, extension: str) -> None:
    data = packed([line(n, "x" * n) for n in range(2000)], extension)
    result = decode(tmp_path, FOLDER, f"x{extension}", data[: len(data) // 2])
    assert "unreadable_file" in result.reasons or len(result.rows(SEEDS)) > 0
    assert result.balanced()
    garbage = decode(tmp_path, FOLDER, f"y{extension}", b"not compressed at all")
    assert garbage.reasons == ["unreadable_file"]


def test_several_members_or_frames_are_one_file(tmp_path: Path) -> None:
    members = b"".join(gzip.compress(f"{line(n)}\n".encode()) for n in range(3))
    assert len(decode(tmp_path, FOLDER, "x.ndjson.gz", members).rows(SEEDS)) == 3
    frames = b"".join(zstandard.ZstdCompressor().compress(f"{line(n)}\n".encode()) for n in range(3))
    assert len(decode(tmp_path, FOLDER, "x.ndjson.zst", frames).rows(SEEDS)) == 3


@pytest.mark.parametrize("extension", [".ndjson.gz", ".ndjson.zst"])
def test_a_decompression_bomb_stops_at_its_limit(tmp_path: Path, extension: str) -> None:
    data = packed([line(0), " " * (64 * 1024 * 1024), line(1)], extension)
    result = decode(tmp_path, FOLDER, f"x{extension}", data)
    assert result.reasons == ["limit_exceeded"]
    assert "compression_ratio" in result.rejects["rejects.kasmina_seed_state"][0]["message"]
    assert [row["seed_id"] for row in result.rows(SEEDS)] == ["s0"]
    small = decode(tmp_path, FOLDER, f"x{extension}", data, Limits(unpacked_bytes=1000, compression_ratio=10**9))
    assert "unpacked_bytes" in small.rejects["rejects.kasmina_seed_state"][0]["message"]


def test_a_line_beyond_the_limit_costs_only_itself(tmp_path: Path) -> None:
    for length in (2000, 9 * 1024 * 1024):
        data = packed([line(0), line(1, "x" * length), line(2)], ".ndjson")
        result = decode(tmp_path, FOLDER, "x.ndjson", data, Limits(record_bytes=1000))
        assert [(row["seed_id"], row["position"]) for row in result.rows(SEEDS)] == [("s0", 1), ("s2", 3)]
        assert result.reasons == ["limit_exceeded"]
    unended = decode(tmp_path, FOLDER, "x.ndjson", line(1, "x" * 2000).encode(), Limits(record_bytes=1000))
    assert unended.reasons == ["limit_exceeded"]


def test_too_deep_a_record_is_a_reject(tmp_path: Path) -> None:
    deep = '{"seed_id": "s", "x": ' + "[" * 70 + "]" * 70 + "}"
    wide = '{"seed_id": "t", "training_run_id": "r", "timestamp_ns": 7, "x": [' + ",".join(["[]"] * 70) + "]}"
    result = decode(tmp_path, FOLDER, "x.ndjson", packed([deep, wide], ".ndjson"))
    assert (result.reasons, len(result.rows(SEEDS))) == (["limit_exceeded"], 1)


def test_a_foreign_extension_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    with pytest.raises(ContractError, match=r"x\.csv"):
        list(decode_file(path, FOLDERS[FOLDER], file="x.csv", digest="d"))


def test_strings_and_counts_have_limits_of_their_own_in_every_format(tmp_path: Path) -> None:
    long = pb.SeedState(seed_id="long", training_run_id="r", timestamp_ns=1, policy_version="x" * 50)
    many = pb.SeedState(seed_id="many", training_run_id="r", timestamp_ns=1, monitored_layers=["a"] * 50)
    wide = pb.SeedState(seed_id="wide", training_run_id="r", timestamp_ns=1, metrics={f"m{n}": 1 for n in range(50)})
    good = pb.SeedState(seed_id="good", training_run_id="r", timestamp_ns=1)
    found = [good, long, many, wide]
    data = {
        "x.binpb": binpb([one.SerializeToString() for one in found]),
        "x.ndjson": packed([json_format.MessageToJson(one, indent=None) for one in found], ".ndjson"),
    }
    for name, content in data.items():
        result = decode(tmp_path, FOLDER, name, content, Limits(string_bytes=40, elements=40))
        assert [row["seed_id"] for row in result.rows(SEEDS)] == ["good"]
        messages = [row["message"] for row in result.rejects["rejects.kasmina_seed_state"]]
        assert [message.split(":")[0] for message in messages] == ["string_bytes", "elements", "elements"]
    packet = pb.SystemStatePacket(
        packet_id="p", training_run_id="r", timestamp_ns=1, layers=[pb.LayerTelemetry(layer_id="l")] * 50
    )
    result = decode(tmp_path, "tolaria/system_state", "x.wal", wal([packet.SerializeToString()]), Limits(elements=40))
    assert (result.reasons, result.rows("tolaria.layer_telemetry")) == (["limit_exceeded"], [])
    graph = {"blueprint_id": "b", "extras": {"graph_metadata": {"layers": [{"layer_id": f"l{n}"} for n in range(50)]}}}
    urza = decode(tmp_path, "urza/blueprint", "x.ndjson", packed([json.dumps(graph)], ".ndjson"), Limits(elements=40))
    assert urza.reasons == ["limit_exceeded"]
