"""Laws of decoding: every format of the same messages gives the same rows, and those of a naive reader."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contracts import FOLDERS, TABLES, Column, Presence
from schemas.decode.shape.columns import INT64_MAX
from tests.property.messages import messages
from tests.schemas.decoding import Result, binpb, decode, packed, wal

MESSAGES = {
    "SystemStatePacket": "tolaria/system_state",
    "SeedState": "kasmina/seed_state",
    "BSDS": "urabrask/bsds",
    "BSDSFailed": "urabrask/bsds_failure",
    "KernelCatalogUpdate": "tezzeret/kernel",
    "TelemetryPacket": "weatherlight/telemetry",
    "AdaptationCommand": "tamiyo/command",
    "FieldReport": "tamiyo/field_report",
}


def as_json(message: Any, snake: bool) -> str:
    return json_format.MessageToJson(message, indent=None, preserving_proto_field_name=snake)


def in_every_format(root: Path, folder: str, found: list[Any]) -> dict[str, Result]:
    payloads = [message.SerializeToString(deterministic=True) for message in found]
    snake, camel = ([as_json(message, spelling) for message in found] for spelling in (True, False))
    return {
        "binpb": decode(root, folder, "x.binpb", binpb(payloads)),
        "wal": decode(root, folder, "x.wal", wal(payloads)),
        "snake": decode(root, folder, "x.ndjson", packed(snake, ".ndjson")),
        "camel": decode(root, folder, "y.ndjson", packed(camel, ".ndjson")),
        "gz": decode(root, folder, "x.ndjson.gz", packed(snake, ".ndjson.gz")),
        "zst": decode(root, folder, "x.ndjson.zst", packed(camel, ".ndjson.zst")),
    }


@pytest.mark.parametrize("name", list(MESSAGES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_format_gives_the_same_rows(name: str, data: st.DataObject) -> None:
    found = data.draw(st.lists(messages(name), max_size=4))
    found = [message for row, message in enumerate(found) if message.ByteSize() or not row or found[row - 1].ByteSize()]
    with tempfile.TemporaryDirectory() as root:
        results = in_every_format(Path(root), MESSAGES[name], found)
    for form, result in results.items():
        assert result.balanced(), form
        assert result.content() == results["binpb"].content(), form
        assert result.reasons == results["binpb"].reasons, form


@pytest.mark.parametrize(
    "name", ["SystemStatePacket", "SeedState", "BSDS", "KernelCatalogUpdate", "AdaptationCommand", "FieldReport"]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_are_those_of_a_naive_reader(name: str, data: st.DataObject) -> None:
    found = data.draw(st.lists(messages(name), max_size=4))
    folder = MESSAGES[name]
    with tempfile.TemporaryDirectory() as root:
        result = decode(Path(root), folder, "x.binpb", binpb([message.SerializeToString() for message in found]))
    table = TABLES[FOLDERS[folder].tables[0]]
    expected = [row for row in (naive_row(message, table) for message in found) if row is not None]
    rows = result.rows(table.name)
    assert len(rows) == len(expected)
    for row, want in zip(rows, expected, strict=True):
        assert {key: row[key] for key in want} == want


def naive_row(message: Any, table: Any) -> dict[str, Any] | None:
    """The row of a message read field by field in Python; None where it is a reject. Fallbacks to the map are left out."""
    row: dict[str, Any] = {}
    non_finite: list[str] = []
    fallbacks = {"alpha", "risk_tolerance", "alpha_schedule_total_steps", "alpha_schedule_temperature"}
    for column in table.columns:
        if column.presence is Presence.DERIVED:
            continue
        value = naive_value(message, column, non_finite)
        if value == "too large" or (column.low is not None and value is not None and not column.low <= value <= column.high):
            return None
        row[column.name] = value
    if any(row.get(name) in (None, "") for name in table.key if name in row and name not in table.nullable_key):
        return None
    kept = {name: value for name, value in row.items() if not (table.name == "kasmina.seed_state" and name in fallbacks)}
    return kept | {"non_finite": sorted(non_finite)}


def naive_value(message: Any, column: Column, non_finite: list[str]) -> Any:
    *parents, name = column.field_path.split(".")
    for parent in parents:
        if not message.HasField(parent):
            return None
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
        return value.ToNanoseconds()
    if field.is_repeated:
        return naive_collection(value, field, column, non_finite)
    if column.enum_spec is not None:
        return column.enum_spec.text(value)
    if isinstance(value, float) and not math.isfinite(value):
        non_finite.append(column.name)
        return None
    if isinstance(value, int) and value > INT64_MAX:
        return "too large"
    return None if column.presence is Presence.IMPLICIT and not value else value


def naive_collection(value: Any, field: Any, column: Column, non_finite: list[str]) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        found = {}
        for key in sorted(value, key=lambda one: one.encode()):
            if isinstance(value[key], float) and not np.isfinite(value[key]):
                non_finite.append(f"{column.name}.{key}")
            else:
                found[key] = value[key]
        return found or None
    if field.message_type is not None:
        return [{one.name: getattr(item, one.name) for one in field.message_type.fields} for item in value] or None
    return list(value) if value or column.presence is not Presence.IMPLICIT else None
