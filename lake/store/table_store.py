"""Read and write Delta tables under `$TAMIYO_HOME/tables/<schema>/<table>`, one atomic commit a write.

Tables are derived state: a damaged table is removed and built again from the exports. App transactions of a commit say which
exports the table holds. Cumulative counts are app transactions too, since these outlive the commit log.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.durable.publish import ensure_dir, lock
from lake.store.commit_log import commit_file, newest_version, transactions_in
from lake.store.failures import named
from lake.store.pruning import SCOPE, files_of, is_bucketed, runs_in
from lake.store.replacing import MOST_NAMED, predicate_of, with_others
from lake.store.storage_format import configuration, conform, file_bytes, layout, stored_schema, with_buckets
from lake.store.validation import checked
from schemas.buckets import BUCKET_COLUMN, BUCKETED
from schemas.contracts import REJECT_SCHEMA, TABLES
from schemas.errors import StorageError

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from deltalake import CommitProperties, DeltaTable

CREATION_LOCK = ".creation.lock"
ABSENT = -1  # pinned version of a table that was never written
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_RETRIES = 100  # of a commit: several steps of one run commit at once
_HISTORY = 50
_FOREIGN_KEYS = frozenset(
    {
        "timestamp",
        "operation",
        "operationParameters",
        "operationMetrics",
        "engineInfo",
        "clientVersion",
        "readVersion",
        "version",
    }
)


def known_schema(name: str) -> pa.Schema | None:
    """Return the Arrow schema of a contract or rejects table; None for a table whose writer decides its schema."""
    if name in TABLES:
        return TABLES[name].arrow_schema
    return REJECT_SCHEMA if name.startswith("rejects.") else None


@dataclass(frozen=True)
class TableStore:
    """All tables of one home. Safe to use from several processes at once."""

    home: Path
    schemas: Mapping[str, pa.Schema] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The directory of all tables."""
        return self.home / "tables"

    def path(self, name: str) -> Path:
        """Return the directory of table `<schema>.<table>`. Raises StorageError for another kind of name."""
        if not _NAME.fullmatch(name):
            raise StorageError(f"table {name!r}: expected a name like `tolaria.system_state`")
        schema, table = name.split(".")
        return self.root / schema / table

    def names(self) -> list[str]:
        """Return the names of all tables that exist, sorted."""
        return sorted(f"{log.parent.parent.name}.{log.parent.name}" for log in self.root.glob("*/*/_delta_log"))

    def is_bucketed(self, name: str) -> bool:
        """Return whether the files of a table are laid out by run bucket."""
        table = self.open(name)
        return table is not None and is_bucketed(table)

    def exists(self, name: str) -> bool:
        """Return whether the table was ever written."""
        return (self.path(name) / "_delta_log").is_dir()

    def open(self, name: str, version: int | None = None) -> "DeltaTable | None":
        """Return the Delta table at its newest or a given version; None if it was never written."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if not self.exists(name):
            return None
        try:
            with named(self.path(name)):
                return DeltaTable(self.path(name), version=version)
        except TableNotFoundError:
            return None

    def version(self, name: str) -> int | None:
        """Return the newest version number; None if the table was never written."""
        newest = self._newest(name)
        if newest is not None:
            return newest
        table = self.open(name)
        return None if table is None else table.version()

    def commit(self, name: str) -> str | None:
        """Return a unique name of the newest commit (a rebuilt table reuses version numbers); None if there is no table."""
        table = self.open(name)
        return None if table is None else f"{table.metadata().id}@{table.version()}"

    def versions(self) -> dict[str, int]:
        """Return the newest version number of every table."""
        return {name: version for name in self.names() if (version := self.version(name)) is not None}

    def schema(self, name: str) -> pa.Schema:
        """Return the Arrow schema of the table. Raises StorageError if it was neither written nor declared."""
        declared = self.schemas.get(name) or known_schema(name)
        if declared is not None:
            return declared
        table = self.open(name)
        if table is None:
            raise StorageError(f"table {name}: expected it under {self.path(name)}, found none; run `tamiyo run`")
        return stored_schema(table)

    def read(
        self,
        name: str,
        *,
        version: int | None = None,
        runs: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        files: Sequence[Path] | None = None,
    ) -> pa.Table:
        """Return rows of one version (None: the newest), of some runs, columns or files (None: all); typed even if empty."""
        table = self.open(name, version)
        schema = self.schema(name) if table is None or known_schema(name) else stored_schema(table)
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        if table is None:
            return schema.empty_table()
        condition = pc.field(SCOPE).isin(pa.array(list(runs), pa.string())) if runs is not None else None
        with named(self.path(name)):
            dataset = self._dataset(name, table, runs, files)
            present = [column for column in schema.names if column in dataset.schema.names]
            rows = dataset.to_table(columns=present, filter=condition)
        return conform(rows, schema)

    def read_each(self, columns: Mapping[str, Sequence[str] | None]) -> dict[str, pa.Table]:
        """Return the newest rows of several tables by name, with the named columns (None: all)."""
        return {name: self.read(name, columns=chosen) for name, chosen in columns.items()}

    def batches(
        self, name: str, *, columns: Sequence[str] | None = None, runs: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of the newest version in batches, of some columns or training runs (None: all)."""
        table = self.open(name)
        if table is None:
            return
        schema = self.schema(name)
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        condition = pc.field(SCOPE).isin(pa.array(list(runs), pa.string())) if runs is not None else None
        with named(self.path(name)):
            dataset = self._dataset(name, table, runs)
            present = [column for column in schema.names if column in dataset.schema.names]
            for batch in dataset.to_batches(columns=present, filter=condition):
                yield from conform(pa.Table.from_batches([batch]), schema).to_batches()

    def check(self, name: str) -> None:
        """Raise StorageError if the log of a table, or the footer of one of its files, can't be read."""
        table = self.open(name)
        if table is None:
            raise StorageError(f"table {self.path(name)}: expected a Delta table, found a log without commits; remove it")
        with named(self.path(name)):
            table.get_add_actions()
        self.count(name)

    def count(self, name: str, version: int | None = None) -> int:
        """Return the number of rows in the table's files."""
        table = self.open(name, version)
        if table is None:
            return 0
        with named(self.path(name)):
            return int(self._dataset(name, table).count_rows())

    def _dataset(
        self, name: str, table: "DeltaTable", runs: Sequence[str] | None = None, files: Sequence[Path] | None = None
    ) -> "ds.Dataset":
        """Return a dataset of the table's files, or of those that may hold rows of `runs`.

        The library's own dataset takes 1 ms per file: it makes an expression of the statistics of each column of each file.
        """
        import pyarrow.dataset as ds

        paths = [str(file) for file in files or (self.path(name) / file for file in files_of(table, runs))]
        return ds.dataset(paths, schema=stored_schema(table), format="parquet")

    def files(self, name: str, version: int | None = None) -> list[Path]:
        """Return the Parquet files of one version."""
        table = self.open(name, version)
        return [] if table is None else sorted(self.path(name) / file for file in files_of(table, None))

    def runs_by_file(self, name: str, files: Collection[str] | None = None) -> dict[str, list[str | None]]:
        """Return training runs by file of the newest version, of `files` or all; None stands for rows that name no run."""
        table = self.open(name)
        if table is None:
            return {}
        with named(self.path(name)):
            return runs_in(table, self.path(name), files_of(table, None) if files is None else files)

    def metadata(self, name: str) -> dict[str, str]:
        """Return the custom metadata of the newest commit that wrote rows; compaction and vacuum write none."""
        table = self.open(name)
        for commit in [] if table is None else table.history(_HISTORY):
            if commit.get("operation") == "WRITE":
                return {key: str(value) for key, value in commit.items() if key not in _FOREIGN_KEYS}
        return {}

    def transaction(self, name: str, key: str) -> int | None:
        """Return the number that the newest commit with transaction `key` gave it; None if there is none."""
        return self.transactions(name, [key])[0]

    def transactions(self, name: str, keys: Sequence[str]) -> list[int | None]:
        """Return `transaction` of several keys; try the newest commit first, 100 times cheaper than opening the table."""
        path = self.path(name)
        version = self._newest(name)
        newest = {} if version is None else transactions_in(path, version)
        if all(key in newest for key in keys):
            return [newest[key] for key in keys]
        table = self.open(name)
        return [None if table is None else table.transaction_version(key) for key in keys]

    def _newest(self, name: str) -> int | None:
        """Return the version that `open` would give; None if that is unknown without opening."""
        return newest_version(self.path(name))

    def write(
        self,
        name: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        runs: Sequence[str] | None = None,
        transactions: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
        append: bool = False,
        count: int = 0,
    ) -> int:
        """Replace the rows of `runs` (None: of the whole table), or append, in one commit; return the new version number.

        `transactions` and `metadata` become part of this commit. Readers see the previous version or this one. `count`: the
        approximate number of rows in a stream. Raises StorageError, and commits nothing, if rows of a derived table break its
        declaration. The ingest checks rows of contract and rejects tables when it stages them.
        """
        from deltalake import CommitProperties, Transaction

        with checked(name, rows, runs) as rows:
            path = self.path(name)
            ensure_dir(path)
            properties = CommitProperties(
                custom_metadata=dict(metadata or {}),
                max_commit_retries=_RETRIES,
                app_transactions=[Transaction(key, number) for key, number in (transactions or {}).items()],
            )
            common: dict[str, Any] = {"count": count, "properties": properties}
            table = self.open(name)
            if table is not None and not append and len(set(runs or ())) > MOST_NAMED:
                rows = with_others(table, path, rows, runs or ())
            if _is_bucketed(name, rows.schema, table):
                rows = with_buckets(rows)
            if table is None:
                # two simultaneous first commits would both define the table
                with lock(self.root / CREATION_LOCK):
                    table = self.open(name)
                    if table is None:
                        made: dict[str, Any] = {"configuration": configuration(rows.schema)}
                        made |= {"partition_by": [BUCKET_COLUMN]} if BUCKET_COLUMN in rows.schema.names else {}
                        return self._commit(path, None, rows, mode="append", **made, **common)
            if runs is None and not append:
                return self._commit(path, table, rows, mode="overwrite", schema_mode="overwrite", **common)
            if append or not runs:
                return self._commit(path, table, rows, mode="append", schema_mode="merge", **common)
            return self._commit(
                path, table, rows, mode="overwrite", schema_mode="merge", predicate=predicate_of(table, runs), **common
            )

    def _commit(
        self,
        path: Path,
        table: "DeltaTable | None",
        rows: pa.Table | pa.RecordBatchReader,
        *,
        count: int,
        properties: "CommitProperties",
        **how: Any,
    ) -> int:
        """Commit to `table`, which is at the new version afterwards; None makes a table at `path`."""
        from deltalake import write_deltalake

        with named(path):
            if SCOPE in rows.schema.names:
                how["target_file_size"] = file_bytes(table, rows.num_rows if isinstance(rows, pa.Table) else count)
            write_deltalake(table or path, rows, commit_properties=properties, writer_properties=layout(rows.schema), **how)
            return 0 if table is None else table.version()

    def held(self) -> "HeldTables":
        """Return these tables for one piece of work: each is opened once, and changes only with this work's own writes."""
        return HeldTables(self.home, self.schemas)

    def at(self, versions: Mapping[str, int]) -> "PinnedTables":
        """Return the tables in `versions` at fixed versions, so that a build reads one state; other tables are current."""
        return PinnedTables(self.home, self.schemas, dict(versions))

    def remove(self, name: str) -> None:
        """Remove a table with all its versions, so that it is built again."""
        shutil.rmtree(self.path(name), ignore_errors=False)


@dataclass(frozen=True)
class PinnedTables(TableStore):
    """Tables at fixed versions: a build reads one state, whatever is committed meanwhile. Writing is refused."""

    pinned: Mapping[str, int] = field(default_factory=dict)

    def open(self, name: str, version: int | None = None) -> "DeltaTable | None":
        """Return the table at its pinned or the given version; None if it is pinned as never written."""
        wanted = self.pinned.get(name) if version is None else version
        return None if wanted == ABSENT else super().open(name, wanted)

    def _newest(self, name: str) -> int | None:
        """Return the pinned version, None if pinned as never written; the newest version of a table that is not pinned."""
        version = self.pinned.get(name)
        return super()._newest(name) if version is None else (None if version == ABSENT else version)

    def held(self) -> "HeldTables":
        """Raise StorageError: pinned tables can't be held."""
        raise StorageError("a pinned set of tables: expected to be read as it is; hold the store itself")

    def write(self, name: str, rows: pa.Table | pa.RecordBatchReader, **how: Any) -> int:
        """Raise StorageError: pinned tables can't be written."""
        raise StorageError(f"table {name}: expected no write to a pinned set of tables; write to the store itself")


@dataclass(frozen=True)
class HeldTables(TableStore):
    """Tables that are opened once, then follow their own commits: opening reads all commits since the last checkpoint.

    A holder that writes must hold the writers' lock. Only compaction may commit meanwhile; `renew` reads its commits.
    """

    _tables: dict[str, "DeltaTable"] = field(default_factory=dict, repr=False, compare=False)

    def open(self, name: str, version: int | None = None) -> "DeltaTable | None":
        """Return the table as this holder opened, renewed or last wrote it, or at a given version."""
        if version is not None:
            return super().open(name, version)
        if name not in self._tables:
            table = super().open(name)
            if table is None:
                return None
            self._tables[name] = table
        return self._tables[name]

    def _newest(self, name: str) -> int | None:
        """Return the version of the held table."""
        return self._tables[name].version() if name in self._tables else super()._newest(name)

    def renew(self, name: str) -> None:
        """Read the commits made to a table since it was opened."""
        table = self._tables.get(name)
        if table is not None and Path(commit_file(self.path(name), table.version() + 1)).exists():
            with named(self.path(name)):
                table.update_incremental()


def _is_bucketed(name: str, schema: pa.Schema, table: "DeltaTable | None") -> bool:
    """Return whether a table is laid out in run buckets: it holds training runs and was not made without buckets."""
    if table is not None:
        return is_bucketed(table)
    return SCOPE in schema.names and (name in TABLES or name.partition(".")[0] in BUCKETED)
