"""Parquet exports: the contract table's own columns, under the same rules."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contracts import FOLDERS, TABLES
from tests.schemas.decoding import decode, decode_lines

PACKET: dict[str, Any] = {"packet_id": "p", "training_run_id": "r", "timestamp_ns": 7}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


RECORDS: dict[str, list[dict[str, Any]]] = {
    "tolaria/system_state": [
        PACKET | {"training_metrics": {"b": 1, "a": "NaN"}, "training_loss": "NaN", "layers": [{"layer_id": "l", "loss": 0}]},
        PACKET | {"packet_id": "q", "source_subsystem": "tolaria", "validation_accuracy": 1.0},
    ],
    "kasmina/seed_state": [
        {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 7, "stage": 3, "capabilities": {}, "metrics": {"alpha": 0.5}},
        {"seed_id": "t", "training_run_id": "r", "timestamp_ns": 7, "stage": 99, "alpha": 0, "monitored_layers": ["a"]},
    ],
    "urza/blueprint": [
        {
            "blueprint_id": "b",
            "descriptor": {"risk": 0, "allowed_parameters": {"x": {"min_value": 1}}},
            "eager_fallback": True,
            "extras": {"graph_metadata": {"layers": [{"layer_id": "l"}], "monitored_layers": [["s", 0, 1]]}},
        }
    ],
    "tamiyo/field_report": [
        {
            "training_run_id": "r",
            "report_id": "x",
            "issued_at": "2026-01-01T00:00:00Z",
            "follow_up_actions": [{"action_type": "a"}],
        }
    ],
    "tamiyo/command": [{"command_id": "c", "rollback_payload": {"a": 1}, "annotations": {"k": "v"}}],
    "urabrask/bsds": [{"blueprint_id": "b", "issued_at": "2026-01-01T00:00:00Z", "hazard_band": "LOW"}],
    "tezzeret/kernel": [{"blueprint_id": "b", "status": "COMPILED"}],
    "weatherlight/telemetry": [
        {
            "packet_id": "t",
            "source_subsystem": "weatherlight",
            "metrics": [{"name": "m"}, {"name": "n", "value": "NaN"}],
            "system_health": {"status": 1},
        }
    ],
}


@pytest.mark.parametrize("folder", list(RECORDS))
def test_a_table_written_as_parquet_is_read_back_the_same(tmp_path: Path, folder: str) -> None:
    first = decode_lines(tmp_path, folder, *RECORDS[folder])
    assert first.tables
    for name, rows in first.tables.items():
        if name not in ("tezzeret.kernel", "kasmina.seed_state", "urabrask.bsds") or folder.startswith(name.split(".")[0]):
            again = decode(tmp_path, folder, "x.parquet", parquet(rows))
            assert again.content()[name] == first.content()[name]
            assert again.balanced()


def test_presence_ranges_and_keys_hold_in_parquet_too(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "packet_id": ["p", "q", None, "s"],
            "training_run_id": ["r"] * 4,
            "timestamp_ns": pa.array([1, 2, 3, 2**63 + 1], pa.uint64()),
            "validation_loss": pa.array([0.0, float("inf"), 1.0, 1.0], pa.float64()),
            "colour": [1, 2, 3, 4],
        }
    )
    result = decode(tmp_path, "tolaria/system_state", "x.parquet", parquet(rows))
    found = result.rows("tolaria.system_state")
    assert [(row["packet_id"], row["validation_loss"], row["current_epoch"]) for row in found] == [
        ("p", None, 0),
        ("q", None, 0),
    ]
    assert found[1]["non_finite"] == ["validation_loss"]
    assert result.reasons == ["missing_id", "time_out_of_range"]
    assert result.unknown_fields == {"tolaria.system_state.colour": 4}
    assert result.balanced()


def test_files_that_are_no_table_of_the_folder(tmp_path: Path) -> None:
    strangers = {"a": [1]}, {"packet_id": ["p"], "training_run_id": ["r"], "timestamp_ns": [[1]]}
    for stranger in strangers:
        assert decode(tmp_path, "tolaria/system_state", "x.parquet", parquet(pa.table(stranger))).reasons == ["wrong_columns"]
    for garbage in (b"", b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", parquet(TABLES["tamiyo.command"].empty())[:-9]):
        assert decode(tmp_path, "tamiyo/command", "x.parquet", garbage).reasons == ["unreadable_file"]


ODD = {
    "unsigned": pa.array([1, 2**64 - 1], pa.uint64()),
    "half": pa.array([1.5, None], pa.float64()),
    "bytes": pa.array([b"a", b"\xff"]),
    "decimal": pa.array([Decimal("1.5"), None]),
    "time": pa.array([1, -(2**62)], pa.timestamp("ns")),
    "span": pa.array([1, 2], pa.duration("ns")),
    "words": pa.array(["a", None]).dictionary_encode(),
    "struct": pa.array([{"a": 1}, None]),
    "map": pa.array([[(1, 1)], []], pa.map_(pa.int64(), pa.int64())),
    "lists": pa.array([[1.0], []], pa.large_list(pa.float64())),
}


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("folder", ["tolaria/system_state", "kasmina/seed_state", "urza/blueprint", "weatherlight/telemetry"])
def test_a_column_of_any_type_anywhere_ends_in_rows_or_rejects(tmp_path: Path, folder: str, kind: str) -> None:
    for name in FOLDERS[folder].tables:
        table = TABLES[name]
        keys = {key: pa.array(["a", None] if pa.types.is_string(table.column[key].type) else [1, 2]) for key in table.key}
        for column in (*table.names, "non_finite", "position", "foreign"):
            result = decode(tmp_path, folder, "x.parquet", parquet(pa.table({**keys, column: ODD[kind]})))
            assert result.balanced()
            assert sum(result.rows_read.values()) == 2 or result.reasons == ["wrong_columns"], (name, column)


def test_what_decoders_say_of_every_row_is_there_also_without_its_column(tmp_path: Path) -> None:
    rows = pa.table({"packet_id": ["p"], "training_run_id": ["r"], "timestamp_ns": [1]})
    assert (
        decode(tmp_path, "tolaria/system_state", "x.parquet", parquet(rows)).row("tolaria.system_state")["is_completion"]
        is False
    )
    seeds = pa.table({"seed_id": ["s"], "training_run_id": ["r"], "timestamp_ns": [1]})
    assert decode(tmp_path, "kasmina/seed_state", "x.parquet", parquet(seeds)).row("kasmina.seed_state")["source"] == "export"
    layers = pa.table({"blueprint_id": ["b", "b"], "layer_id": ["l", "m"], "index": [0, 1], "type": ["guard_tensor", None]})
    found = decode(tmp_path, "urza/blueprint", "x.parquet", parquet(layers)).rows("urza.layer")
    assert [row["is_placeholder"] for row in found] == [True, False]


def test_numbers_that_are_not_finite_are_missing_in_derived_columns_too(tmp_path: Path) -> None:
    rows = pa.table({"packet_id": ["p"], "timestamp_ns": [1], "cpu_utilisation": [float("nan")], "status": ["HEALTHY"]})
    found = decode(tmp_path, "weatherlight/telemetry", "x.parquet", parquet(rows)).row("weatherlight.health")
    assert (found["cpu_utilisation"], found["non_finite"], found["status"]) == (None, ["cpu_utilisation"], "HEALTHY")


def test_names_of_values_that_were_not_finite_are_taken_over_row_by_row(tmp_path: Path) -> None:
    names = [[], None, ["validation_loss", "training_loss"], [], ["global_step"], ["training_loss"]]
    count = len(names)
    rows = pa.table(
        {
            "packet_id": list("abcdef"),
            "training_run_id": ["r"] * count,
            "timestamp_ns": range(1, count + 1),
            "training_loss": [0.5] * count,
            "global_step": [7] * count,
            "non_finite": pa.array(names, pa.list_(pa.string())),
        }
    )
    found = decode(tmp_path, "tolaria/system_state", "x.parquet", parquet(rows)).rows("tolaria.system_state")
    assert [row["non_finite"] for row in found] == [sorted(one or []) for one in names]
    assert [row["training_loss"] for row in found] == [0.5, 0.5, None, 0.5, 0.5, None]
    assert [row["global_step"] for row in found] == [7, 7, 7, 7, None, 7]
