"""The warehouse: every declared table is a view, also before anything was sent, and readers never see half of one."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lake.store.table_store import TableStore
from lake.warehouse import SCHEMAS, contract_names, publish
from schemas.contracts import TABLES


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path / "a home's")


def names(connection: duckdb.DuckDBPyConnection) -> set[str]:
    found = connection.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
    return {row[0] for row in found}


def test_every_contract_table_is_a_typed_view_before_anything_was_sent(store: TableStore) -> None:
    with duckdb.connect(str(publish(store.home, store)), read_only=True) as connection:
        assert names(connection) >= {*contract_names(), *TABLES}
        schemas = {row[0] for row in connection.execute("SELECT schema_name FROM information_schema.schemata").fetchall()}
        assert schemas >= set(SCHEMAS)
        for name, table in TABLES.items():
            view = connection.sql(f"SELECT * FROM {name}").to_arrow_table()
            assert view.num_rows == 0
            assert view.column_names == table.arrow_schema.names
        kinds = dict(
            connection.execute(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_schema = 'tolaria' AND table_name = 'system_state'"
            ).fetchall()
        )
        assert kinds["training_metrics"] == "MAP(VARCHAR, FLOAT)"
        assert kinds["timestamp_ns"] == "BIGINT"


def test_views_show_the_current_version_with_maps(store: TableStore) -> None:
    schema = TABLES["tolaria.system_state"].arrow_schema
    row = {"training_run_id": "a", "packet_id": "p", "timestamp_ns": 2**62, "training_metrics": [("loss", 0.5)]}
    store.write("tolaria.system_state", pa.Table.from_pylist([row, row], schema))
    store.write("tolaria.system_state", pa.Table.from_pylist([row], schema))
    publish(store.home, store)
    with duckdb.connect(str(publish(store.home, store)), read_only=True) as connection:
        found = connection.execute("SELECT timestamp_ns, training_metrics['loss'] FROM tolaria.system_state").fetchall()
        columns = connection.sql("SELECT * FROM tolaria.system_state").columns
    assert found == [(2**62, 0.5)]
    assert columns == schema.names  # not the bucket that the files are laid out by
    assert not list(store.home.glob(".warehouse*.tmp*"))


def test_a_reader_keeps_what_it_opened_while_another_is_published(store: TableStore) -> None:
    store.write("features.numbers", pa.table({"value": [1]}))
    path = publish(store.home, store)
    with duckdb.connect(str(path), read_only=True) as reader:
        store.write("features.numbers", pa.table({"value": [2]}))
        publish(store.home, store)
        assert reader.execute("SELECT value FROM features.numbers").fetchall() == [(1,)]
