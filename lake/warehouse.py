"""Build `warehouse.duckdb`, which offers the current tables as SQL views, and put it in place in one step.

`python -m lake.warehouse HOME` publishes it in its own process: in a process that has trained a model, DuckDB's Python types
cause pages of leak warnings at exit.
"""

import sys
from pathlib import Path

import duckdb

from lake.accounting import feeds
from lake.durable.publish import beside, ensure_dir, lock, publish_built, sweep
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.derived.tables import DERIVED

WAREHOUSE = "warehouse.duckdb"
LOCK = ".warehouse.lock"
STORAGE = "v1.5.0"  # so that older clients open it

SCHEMAS = (
    "tolaria",
    "kasmina",
    "urza",
    "urabrask",
    "simic",
    "tezzeret",
    "weatherlight",
    "tamiyo",
    "telemetry",
    "rejects",
    "registries",
    "norms",
    "features",
    "coverage",
    "training",
    "operations",
)


def contract_names() -> list[str]:
    """Return every declared contract and rejects table; each has a view, even if nothing was ever sent."""
    rejects = {folder.reject_table for folder in FOLDERS.values()}
    rejects |= {folder.reject_table_of(name) for folder in FOLDERS.values() for name in feeds(folder)}
    return sorted({*TABLES, *rejects})


def publish(home: Path, tables: TableStore) -> Path:
    """Build the warehouse from the newest table versions and replace the old one; return its path.

    Paths in views are absolute: `tamiyo doctor` rebuilds them after the home was moved.
    """
    path = home / WAREHOUSE
    ensure_dir(home)
    with lock(home / LOCK):
        sweep(home, WAREHOUSE)
        temporary = beside(path)
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar=false")
            connection.execute(f"ATTACH {_text(str(temporary))} AS warehouse (STORAGE_VERSION {_text(STORAGE)})")
            connection.execute("USE warehouse")
            for schema in SCHEMAS:
                connection.execute(f"CREATE SCHEMA {_name(schema)}")
            for name in sorted({*contract_names(), *DERIVED, *tables.names()}):
                connection.execute(view_sql(connection, tables, name))
            connection.execute("USE memory")
            connection.execute("DETACH warehouse")
        publish_built(temporary, path)
    return path


def view_sql(connection: duckdb.DuckDBPyConnection, tables: TableStore, name: str) -> str:
    """Return the SQL statement that makes the view of one table; without rows, the view is typed and empty."""
    schema, table = name.split(".")
    files = tables.files(name)
    if files:
        paths = ", ".join(_text(str(file.resolve())) for file in files)
        source = f"SELECT * FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
    else:
        columns = DERIVED[name] if name in DERIVED and not tables.exists(name) else tables.schema(name)
        empty = connection.from_arrow(columns.empty_table())
        typed = zip(empty.columns, empty.types, strict=True)
        source = f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {_name(column)}' for column, kind in typed)} WHERE false"
    return f"CREATE SCHEMA IF NOT EXISTS {_name(schema)}; CREATE VIEW {_name(schema)}.{_name(table)} AS {source}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


if __name__ == "__main__":
    publish(Path(sys.argv[1]), TableStore(Path(sys.argv[1])))
