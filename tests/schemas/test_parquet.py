"""Parquet exports: the contract table's own columns, under the same rules."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contracts import TABLES
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
        {"packet_id": "t", "source_subsystem": "weatherlight", "metrics": [{"name": "m"}], "system_health": {"status": 1}}
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
    assert result.reasons == ["integer_too_large", "missing_id"]
    assert result.unknown_fields == {"tolaria.system_state.colour": 4}
    assert result.balanced()


def test_files_that_are_no_table_of_the_folder(tmp_path: Path) -> None:
    strangers = {"a": [1]}, {"packet_id": ["p"], "training_run_id": ["r"], "timestamp_ns": ["soon"]}
    for stranger in strangers:
        assert decode(tmp_path, "tolaria/system_state", "x.parquet", parquet(pa.table(stranger))).reasons == ["wrong_columns"]
    for garbage in (b"", b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", parquet(TABLES["tamiyo.command"].empty())[:-9]):
        assert decode(tmp_path, "tamiyo/command", "x.parquet", garbage).reasons == ["unreadable_file"]
