"""The fast path of JSON gives what the careful path gives: rows, rejects and drift, also for odd records."""

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.decode import dispatch
from schemas.decode.message.text import TextDecoder
from tests.property.messages import messages
from tests.schemas.decoding import Result, decode

FOLDERS = {
    "SystemStatePacket": "tolaria/system_state",
    "SeedState": "kasmina/seed_state",
    "TelemetryPacket": "tezzeret/telemetry",
    "AdaptationCommand": "tamiyo/command",
    "FieldReport": "tamiyo/field_report",
    "BSDSFailed": "urabrask/bsds_failure",
}
ODD: list[Any] = [None, 0, 1, -1, 1.5, 5.0, 2**63, 2**64, 10**40, 1e300, 3.40282347e38, 1e-300, True, False, "", "x", "5", "-5"]
ODD += ["0x10", "1e3", " 7", "+7", "NaN", "Infinity", "nan", "TRAINING", "SEED_STAGE_TRAINING", "3", [], {}, [None], [1], ["a"]]
ODD += [[{}], {"a": None}, {"a": 1}, {"a": "b"}, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00", "2026-01-01 00:00:00Z"]
ODD += ["2026-01-01", "9999-01-01T00:00:00Z", "é", "\u0000", "\ud800", float("nan")]


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in items for found in [(*path, key), *spots(child, (*path, key))]]


@st.composite
def odd_lines(draw: st.DrawFn, name: str) -> str:
    """A line of JSON of a message, perhaps with a value replaced, a key renamed or added, or its text damaged."""
    message = draw(messages(name))
    value = json.loads(json_format.MessageToJson(message, preserving_proto_field_name=draw(st.booleans())))
    for _ in range(draw(st.integers(0, 2))):
        found = spots(value)
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        holder = value
        for key in path:
            holder = holder[key]
        if isinstance(holder, dict) and draw(st.booleans()):
            holder[draw(st.sampled_from(["colour", "packetId", "seed_id", "blueprint_id", "metrics", "rollback_payload"]))] = (
                deepcopy(draw(st.sampled_from(ODD)))
            )
        else:
            holder[last] = deepcopy(draw(st.sampled_from(ODD)))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    damage = draw(st.sampled_from(["", "", "", "cut", "comma", "twice", "space"]))
    if damage == "cut":
        return text[: len(text) // 2]
    return {"comma": text[:-1] + ",}", "twice": text + text, "space": f" {text}\t"}.get(damage, text)


def read(root: Path, folder: str, data: bytes, fast: bool) -> Result:
    with patch.object(dispatch, "TextDecoder", lambda found: TextDecoder(found, fast=fast)):
        return decode(root, folder, "x.ndjson", data)


@pytest.mark.parametrize("name", list(FOLDERS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fast_and_careful_agree(name: str, data: st.DataObject) -> None:
    lines = data.draw(st.lists(odd_lines(name), min_size=1, max_size=6))
    text = b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines)
    with tempfile.TemporaryDirectory() as root:
        fast, careful = (read(Path(root), FOLDERS[name], text, flag) for flag in (True, False))
    assert fast.content() == careful.content()
    assert {name: sorted((r["position"], r["reason"]) for r in rows) for name, rows in fast.rejects.items()} == {
        name: sorted((r["position"], r["reason"]) for r in rows) for name, rows in careful.rejects.items()
    }
    assert fast.unknown_fields == careful.unknown_fields
    assert fast.rows_read == careful.rows_read
    assert fast.balanced()


def test_a_long_file_with_odd_lines_here_and_there(tmp_path: Path) -> None:
    seeds = [
        {"seed_id": f"s{n}", "training_run_id": "r", "timestamp_ns": str(n + 1), "metrics": {"alpha": n}} for n in range(3000)
    ]
    seeds[7]["metrics"] = {"alpha": "NaN"}
    seeds[1500]["alpha"] = "x"
    seeds[2000]["stage"] = "NEW"
    seeds[2500] |= {"colour": {"deep": [1]}}
    seeds[2999] |= {"alpha": 10**400}
    lines = [json.dumps(seed) for seed in seeds]
    lines[1000] = "not json"
    text = "".join(f"{line}\n" for line in lines).encode()
    fast, careful = (read(tmp_path, "kasmina/seed_state", text, flag) for flag in (True, False))
    assert fast.content() == careful.content()
    assert len(fast.rows("kasmina.seed_state")) == 2996
    assert fast.reasons == careful.reasons == ["bad_value", "bad_value", "invalid_json", "unknown_enum_name"]
    assert fast.unknown_fields == careful.unknown_fields == {"SeedState.colour": 1}


def test_a_null_where_none_may_stand_is_not_taken_for_an_absent_key(tmp_path: Path) -> None:
    usual = {"training_run_id": "r", "mood": 1, "alpha": 0.5, "metrics": {"alpha": 1, "loss": 2}, "monitored_layers": ["l"]}
    seeds: list[dict[str, Any]] = [usual | {"seed_id": f"s{n}", "timestamp_ns": n + 1} for n in range(500)]
    seeds[3]["metrics"] = {"alpha": 1}
    seeds[5]["metrics"] = {"alpha": None, "loss": 2}
    seeds[7]["mood"] = None
    seeds[8] |= {"alpha": None, "metrics": None}
    seeds[9]["monitored_layers"] = [None]
    del seeds[11]["mood"]
    text = "".join(f"{json.dumps(seed)}\n" for seed in seeds).encode()
    fast, careful = (read(tmp_path, "kasmina/seed_state", text, flag) for flag in (True, False))
    assert fast.content() == careful.content()
    assert fast.reasons == careful.reasons == ["bad_value", "bad_value"]
    assert fast.unknown_fields == careful.unknown_fields


def test_a_record_with_a_million_names_is_read_in_bounded_memory(tmp_path: Path) -> None:
    seed = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 1}
    wide = [seed | {"timestamp_ns": n + 1, "metrics": {f"m{n}-{m}": m for m in range(300)}} for n in range(100)]
    text = "".join(f"{json.dumps(record)}\n" for record in wide).encode()
    assert len(read(tmp_path, "kasmina/seed_state", text, True).rows("kasmina.seed_state")) == 100
