"""Commit one table: merge staged rows with the stored rows of the same runs, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lake.accounting import Counted, Tally, counted_in, tally
from lake.ingest.staging import Staged, Staging, key_hashes
from lake.store.pruning import SCOPE
from lake.store.table_store import TableStore
from lake.store.validation import refuse_copies
from schemas.contracts import TABLES, Folder, Table
from schemas.decode.shape.merge import merge

GROUP_ROWS = 200_000  # staged rows that are merged at once, with as many stored ones


@dataclass(frozen=True)
class Commit:
    """What one commit records besides its rows: the exports that it holds, and the counts that it adds.

    `counted`: for a rejects table, the counts of records in the folder's exports.
    """

    name: str
    transactions: Mapping[str, int]
    tally: Tally
    counted: tuple[Folder, Counted] | None = None


def commit_rejects(tables: TableStore, staging: Staging, order: Commit) -> int:
    """Append staged rejects; return the new version number."""
    staged = staging.take(order.name)
    transactions = dict(order.transactions)
    if order.counted is not None:
        folder, counted = order.counted
        transactions |= counted_in(tables, folder).plus(counted).transactions(folder)
    return tables.write(order.name, staged.reader(), append=True, transactions=transactions)


def commit_rows(tables: TableStore, staging: Staging, order: Commit) -> tuple[int, set[str]]:
    """Merge staged rows into their contract table; return the new version number and the training runs touched."""
    staged = staging.take(order.name)
    table = TABLES[order.name]
    runs = staged.runs() if table.scope else {}
    if staged.rows == 0:
        return _write(tables, order, staged, 0, append=True), set()
    append = _disjoint(tables, table, staged, runs)
    if append and staged.hashes().n_unique() == staged.rows:
        return _write(tables, order, staged, 0, append=True), set(runs)
    parts = list(_runs(runs)) if runs else list(_buckets(table, staged.rows))
    merged = staging.fresh(order.name)
    duplicates = 0
    for part in parts:
        new = staged.select(part)
        old = None if append else part.stored(tables, table)
        rows = merge(table, old, new).rows
        merged.add(rows)
        duplicates += new.num_rows + (old.num_rows if old is not None else 0) - rows.num_rows
        del new, old, rows
        pa.default_memory_pool().release_unused()
    merged.validate()
    merged.close()
    if merged.hashes().n_unique() != merged.rows:
        refuse_copies(table.declared, pa.Table.from_batches([batch.select(list(table.key)) for batch in merged.batches()]))
    return _write(tables, order, merged, duplicates, runs=sorted(runs) if runs else None, append=append), set(runs)


@dataclass(frozen=True)
class _Runs:
    """The rows of some training runs."""

    names: tuple[str, ...]

    @property
    def runs(self) -> frozenset[str]:
        """The runs."""
        return frozenset(self.names)

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which rows of a batch belong to the runs."""
        return pc.is_in(batch.column(SCOPE), pa.array(self.names, pa.string()))

    def stored(self, tables: TableStore, table: Table) -> pa.Table:
        """Return the stored rows of the runs."""
        return tables.read(table.name, runs=self.names)


@dataclass(frozen=True)
class _Bucket:
    """The rows whose first key column falls into one of `count` buckets."""

    column: str
    number: int
    count: int
    runs: None = None

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which rows of a batch fall into the bucket."""
        if self.count == 1:
            return pa.repeat(pa.scalar(True), batch.num_rows)
        values = pl.Series(batch.column(self.column).to_pylist(), dtype=pl.String, strict=False)
        return (values.hash(seed=0) % self.count == self.number).to_arrow()

    def stored(self, tables: TableStore, table: Table) -> pa.Table:
        """Return the stored rows of the bucket."""
        found = [batch.filter(self.holds(batch)) for batch in tables.batches(table.name)]
        return pa.Table.from_batches(found, schema=table.arrow_schema)


def _write(
    tables: TableStore, order: Commit, rows: Staged, duplicates: int, *, runs: Sequence[str] | None = None, append: bool = False
) -> int:
    said = tally(tables, order.name).plus(order.tally).plus(Tally(duplicates=duplicates))
    transactions = {**order.transactions, **said.transactions()}
    return tables.write(
        order.name,
        rows.reader(),
        runs=runs,
        append=append,
        transactions=transactions,
        metadata=said.metadata(),
        count=rows.rows,
    )


def _runs(runs: Mapping[str, int]) -> Iterator[_Runs]:
    """Yield runs in groups of at most `GROUP_ROWS` staged rows, but at least one run each."""
    group: list[str] = []
    size = 0
    for run in sorted(runs):
        if group and size + runs[run] > GROUP_ROWS:
            yield _Runs(tuple(group))
            group, size = [], 0
        group.append(run)
        size += runs[run]
    if group:
        yield _Runs(tuple(group))


def _buckets(table: Table, rows: int) -> Iterator[_Bucket]:
    """Yield as many buckets as leave about `GROUP_ROWS` staged rows in each."""
    count = -(-rows // GROUP_ROWS)
    for number in range(count):
        yield _Bucket(table.key[0], number, count)


def _disjoint(tables: TableStore, table: Table, staged: Staged, runs: Mapping[str, int]) -> bool:
    """Return whether no staged key can be stored already, so that rows can be appended without a rewrite."""
    hashes = staged.hashes()
    for batch in tables.batches(table.name, columns=table.key, runs=sorted(runs) if runs else None):
        if key_hashes(batch, table.key).is_in(hashes.implode()).any():
            return False
    return True
