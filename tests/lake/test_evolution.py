"""One declaration per table: every view of it agrees, and producers and stores of an earlier minor version still load."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contract_reference import page
from schemas.contracts import FOLDERS, TABLES, Column
from schemas.contracts.models import json_schema, pandera_schema
from schemas.contracts.table import Table
from schemas.digest import table_digest
from tamiyo_assets.assets.reports import contract_columns
from tests.schemas.decoding import decode, decode_lines

SEED = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": 1, "alpha": 0.5, "stage": 3}


@pytest.mark.parametrize("table", TABLES.values(), ids=str)
def test_every_view_of_a_table_has_its_columns_and_what_may_be_missing(table: Table) -> None:
    names = table.arrow_schema.names
    shown = {column.name: column for column in contract_columns(table).columns}
    model, schema = pandera_schema(table).columns, json_schema(table)
    assert list(shown) == names == list(model)
    assert list(schema["properties"]) == list(table.names)
    section = page().split(f"## {table.name}\n")[1].split("\n## ")[0]
    for column in table.columns:
        assert shown[column.name].constraints.nullable == model[column.name].nullable == column.nullable
        assert (column.name in schema["required"]) == (not column.nullable)
        assert shown[column.name].type == str(column.type)
        assert f"| `{column.name}` | {column.type} |" in section
        assert column.description in (shown[column.name].description or "")


def test_a_new_column_appears_in_every_view() -> None:
    table = TABLES["tamiyo.command"]
    wider = replace(table, columns=(*table.columns, Column("mood", pa.float32(), "How it felt.", low=0.0, high=1.0)))
    assert "mood" in wider.arrow_schema.names and "mood" in pandera_schema(wider).columns
    assert json_schema(wider)["properties"]["mood"]["maximum"] == 1.0
    assert "mood" in [column.name for column in contract_columns(wider).columns]
    assert "mood_in_range" in {rule.name for rule in wider.rules}


@pytest.mark.parametrize("table", [table for table in TABLES.values() if table.name != "simic.registry_snapshot"], ids=str)
def test_a_producer_that_knows_only_the_key_still_loads(tmp_path: Path, table: Table) -> None:
    folder = next(folder for folder in FOLDERS.values() if table.name in folder.tables and ".parquet" in folder.extensions)
    value = {pa.string(): "a", pa.int64(): 1}
    rows = {name: pa.array([value[table.column[name].type]]) for name in table.key if name not in table.nullable_key}
    sink = io.BytesIO()
    pq.write_table(pa.table(rows), sink)
    result = decode(tmp_path, folder.path, "x.parquet", sink.getvalue())
    assert result.reasons == []
    assert sum(len(found) for found in result.tables.values()) == 1


def older(rows: pa.Table, *missing: str) -> pa.Table:
    return rows.drop_columns(list(missing))


def test_a_store_of_an_earlier_minor_version_is_read_and_goes_on(tmp_path: Path) -> None:
    rows: pa.Table = decode_lines(tmp_path, "kasmina/seed_state", SEED).tables["kasmina.seed_state"]
    tables = TableStore(tmp_path / "home")
    tables.write("kasmina.seed_state", older(rows, "alpha", "policy_version"))
    (found,) = tables.read("kasmina.seed_state").to_pylist()
    assert (found["stage"], found["alpha"], found["policy_version"]) == ("TRAINING", None, None)
    folder = tmp_path / "exports/kasmina/seed_state"
    folder.mkdir(parents=True)
    (folder / "a.ndjson").write_text('{"seed_id": "t", "training_run_id": "r", "timestamp_ns": 2, "alpha": 0.5}\n')
    Ingest(tmp_path / "home", Exports(tmp_path / "exports"), tables).refresh()
    kept: dict[str, Any] = {row["seed_id"]: row["alpha"] for row in tables.read("kasmina.seed_state").to_pylist()}
    assert kept == {"s": None, "t": 0.5}
    assert table_digest(TABLES["kasmina.seed_state"], tables.read("kasmina.seed_state"))
