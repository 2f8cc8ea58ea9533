"""Inputs made to break the decoders: each ends in rows and rejects that add up, and its neighbours are all there."""

import json
import math
import time
from pathlib import Path

import pytest

from schemas.leyline import leyline_pb2 as pb
from tests.attacks.mutations import message
from tests.schemas.decoding import binpb, decode, varint, wal

SEEDS, URZA = "kasmina.seed_state", "urza.blueprint"
LONG = "9" * 5000
VALUES = [
    "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, f'"{LONG}"', LONG, "1e999999", "-0", '"--5"', '"-"',
    r'"\u0000"', r'"\ud800"', r'{"\ud800": 1}', "[null]", '{"a": null}', "[]", "{}", "true", "null", '""', '"NaN"', '"1e400"',
    '"٣"', '"0x10"', '" 5 "', '"5.0"', "5.0", "5.5", "-1", "18446744073709551616", '"18446744073709551616"',
]  # fmt: skip
FIELDS = ["x", "metrics", "stage", "seed_id", "timestamp_ns", "capabilities", "monitored_layers", "alpha_schedule", "alpha"]
GRAPHS = [
    r'{"monitors": {"thresholds": {"\ud800": 1}}}', r'{"monitors": {"by_seed_id": {"\ud800": ["a"]}}}', '{"layers": {}}', "[]",
    r'{"monitored_layers": [["\ud800", "a"]]}', r'{"monitored_layers": [["s", "\ud800"], [[], 0]]}',
    r'{"adjacency": {"layer": [["\ud800", "b"], [1e400, 0], [true, 0], ["a"], null]}}', '{"monitors": {"by_seed_id": 5}}',
    '{"monitors": {"by_seed_index": 5, "thresholds": {"a": "x"}}}', '{"layers": [{"layer_id": "a", "depth": 1e300}]}',
    '{"layers": [[], 5, {"layer_id": 5}], "activations": [null]}',
]  # fmt: skip
TOPS = ["exported_at", "resource_tier", "compile_ms", "eager_fallback", "descriptor", "optimizer", "extras"]
TOP_VALUES = [
    *VALUES,
    '"9999-12-31T23:59:59Z"',
    '"2026-13-01T00:00:00Z"',
    '{"tier": "--5"}',
    '{"bsds": {"hazard_band": "--1"}}',
]


def around(bad: str) -> bytes:
    """Sixty good seeds around one bad line."""
    good = [json.dumps({"seed_id": f"s{n}", "training_run_id": "r", "timestamp_ns": 7}) for n in range(60)]
    return "\n".join([*good[:40], bad, *good[40:]]).encode("utf-8", "surrogatepass") + b"\n"


@pytest.mark.parametrize("field", FIELDS)
def test_any_value_of_any_field_costs_no_neighbour(tmp_path: Path, field: str) -> None:
    rest = {"seed_id": '"b"', "training_run_id": '"r"', "timestamp_ns": "8"}
    for value in VALUES:
        line = "{" + ", ".join(f'"{key}": {one}' for key, one in (rest | {field: value}).items()) + "}"
        result = decode(tmp_path, "kasmina/seed_state", "x.ndjson", around(line))
        assert result.balanced()
        assert {row["seed_id"] for row in result.rows(SEEDS)} >= {f"s{n}" for n in range(60)}, value[:40]
        assert sum(result.rows_read.values()) == 61


@pytest.mark.parametrize("field", TOPS)
def test_any_value_in_an_urza_record_costs_no_neighbour(tmp_path: Path, field: str) -> None:
    values = TOP_VALUES + [f'{{"graph_metadata": {graph}}}' for graph in GRAPHS if field == "extras"]
    for value in values:
        lines = ['{"blueprint_id": "a"}', f'{{"blueprint_id": "b", "{field}": {value}}}', '{"blueprint_id": "c"}']
        result = decode(tmp_path, "urza/blueprint", "x.ndjson", "\n".join(lines).encode())
        assert result.balanced()
        assert {row["blueprint_id"] for row in result.rows(URZA)} >= {"a", "c"}, value[:40]


@pytest.mark.parametrize("bad", [b"\xc3\x28", b"\xff\xff", b"\xed\xa0\x80"])
def test_text_that_is_no_unicode_costs_no_neighbour(tmp_path: Path, bad: bytes) -> None:
    line = b'{"seed_id": "@@", "training_run_id": "r", "timestamp_ns": 8}'
    data = around(line.decode()).replace(b"@@", bad)
    assert len(decode(tmp_path, "kasmina/seed_state", "x.ndjson", data).rows(SEEDS)) == 60
    mark = b"@" * len(bad)
    seeds = [pb.SeedState(seed_id=name, training_run_id="r", timestamp_ns=1) for name in ("a", mark.decode(), "c")]
    payloads = [seed.SerializeToString().replace(mark, bad) for seed in seeds]
    for name, framed in (("x.binpb", binpb(payloads)), ("x.wal", wal(payloads))):
        result = decode(tmp_path, "kasmina/seed_state", name, framed)
        assert [row["seed_id"] for row in result.rows(SEEDS)] == ["a", "c"]
        assert result.reasons == ["invalid_protobuf"]


@pytest.mark.parametrize("byte", [0, 1, 2, 8, 10, 0x7F, 0x80, 0xFF])
@pytest.mark.parametrize("name", ["x.binpb", "x.wal", "x.ndjson"])
def test_one_byte_again_and_again_ends_soon_and_adds_up(tmp_path: Path, name: str, byte: int) -> None:
    began = time.process_time()
    result = decode(tmp_path, "tolaria/system_state", name, bytes([byte]) * 50_000)
    assert result.balanced()
    assert result.rows("tolaria.system_state") == []
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "line", [b'{"a":' * 50_000, b"[" * 200_000, b'"' * 200_000, b'{"a":"' + b"\\" * 200_000, b"\r" * 200_000, b"\n" * 200_000]
)
@pytest.mark.parametrize("folder", ["tolaria/system_state", "urza/blueprint", "oona/envelope"])
def test_lines_without_an_end_are_at_most_a_reject_each(tmp_path: Path, folder: str, line: bytes) -> None:
    result = decode(tmp_path, folder, "x.ndjson", line)
    assert result.tables == {} and len(result.reasons) <= 1


def test_keys_that_never_repeat_are_counted_and_cost_no_record(tmp_path: Path) -> None:
    lines = [
        {"seed_id": f"s{n}", "training_run_id": "r", "timestamp_ns": 7, f"k{n}": 1, "metrics": {f"m{n}": 1}} for n in range(800)
    ]
    result = decode(tmp_path, "kasmina/seed_state", "x.ndjson", "\n".join(map(json.dumps, lines)).encode())
    assert len(result.rows(SEEDS)) == 800
    assert sum(result.unknown_fields.values()) == 800


def test_a_message_inside_itself_a_thousand_times_is_a_reject(tmp_path: Path) -> None:
    nest = b""
    for _ in range(1000):
        nest = b"\x42" + varint(len(nest)) + nest
    payloads = [message("SystemStatePacket", 0).SerializeToString(), nest, message("SystemStatePacket", 1).SerializeToString()]  # type: ignore[attr-defined]
    result = decode(tmp_path, "tolaria/system_state", "x.binpb", binpb(payloads))
    assert len(result.rows("tolaria.system_state")) == 2 and len(result.reasons) == 1


def test_a_rollback_without_finite_numbers_or_kinds_is_kept(tmp_path: Path) -> None:
    command = pb.AdaptationCommand(command_id="c")
    command.rollback_payload.update(
        {"nan": math.nan, "list": [math.inf, 1, None, {"deep": -math.inf, "text": "x"}], "whole": 2}
    )
    command.rollback_payload.fields["nothing"]
    result = decode(tmp_path, "tamiyo/command", "x.binpb", binpb([command.SerializeToString()]))
    row = result.row("tamiyo.command")
    assert json.loads(row["rollback_payload"]) == {"list": [None, 1, None, {"text": "x"}], "whole": 2, "nothing": None}
    assert row["non_finite"] == ["rollback_payload"]
