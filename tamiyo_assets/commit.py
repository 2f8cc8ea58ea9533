"""One commit of one table: staged rows merged with the stored ones of the same runs, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from schemas.decode.merge import merge

from schemas.contracts import TABLES, Table
from tamiyo_assets.accounting import Tally, tally
from tamiyo_assets.resources.tables import SCOPE, TableStore
from tamiyo_assets.staging import Staged, Staging

GROUP_ROWS = 500_000  # staged rows that are merged at once


@dataclass(frozen=True)
class Commit:
    """What one commit says besides its rows: the exports that it holds, and the counts that it adds."""

    name: str
    transactions: Mapping[str, int]
    tally: Tally


def commit_rejects(tables: TableStore, staging: Staging, order: Commit) -> int:
    """Append staged rejects; the new version number."""
    staged = staging.take(order.name)
    return tables.write(order.name, staged.reader(), append=True, transactions=order.transactions)


def commit_rows(tables: TableStore, staging: Staging, order: Commit) -> tuple[int, set[str]]:
    """Merge staged rows of a contract table into it; the new version number and the training runs touched."""
    staged = staging.take(order.name)
    table = TABLES[order.name]
    runs = staged.counts(SCOPE) if table.scope else {}
    if staged.rows == 0 or (not runs and _disjoint(tables, table, staged)):
        return _append(tables, staged, order), set()
    groups: list[list[str]] = list(_groups(runs)) if runs else [[]]
    merged = staging.fresh(order.name)
    duplicates = 0
    for group in groups:
        rows, repeated = _merged(tables, table, staged, group)
        merged.add(rows)
        duplicates += repeated
    merged.close()
    version = _write(tables, order, merged, duplicates, runs=sorted(runs) if runs else None)
    return version, set(runs)


def _append(tables: TableStore, staged: Staged, order: Commit) -> int:
    """Add rows none of whose keys is stored; what is left to merge are copies among themselves."""
    if staged.rows == 0:
        return _write(tables, order, staged, 0, append=True)
    rows = merge(TABLES[order.name], None, staged.select()).rows
    said = tally(tables, order.name).plus(order.tally).plus(Tally(duplicates=staged.rows - rows.num_rows))
    return _finish(tables, order, rows, said, append=True)


def _write(
    tables: TableStore,
    order: Commit,
    rows: Staged,
    duplicates: int,
    *,
    runs: Sequence[str] | None = None,
    append: bool = False,
) -> int:
    said = tally(tables, order.name).plus(order.tally).plus(Tally(duplicates=duplicates))
    return _finish(tables, order, rows.reader(), said, runs=runs, append=append)


def _finish(
    tables: TableStore,
    order: Commit,
    rows: pa.Table | pa.RecordBatchReader,
    said: Tally,
    *,
    runs: Sequence[str] | None = None,
    append: bool = False,
) -> int:
    transactions = {**order.transactions, **said.transactions()}
    return tables.write(order.name, rows, runs=runs, append=append, transactions=transactions, metadata=said.metadata())


def _merged(tables: TableStore, table: Table, staged: Staged, group: Sequence[str]) -> tuple[pa.Table, int]:
    """Winners among stored and staged rows of some runs (of all without any), and how many rows they beat."""
    new = staged.select(SCOPE, group) if group else staged.select()
    old = tables.read(table.name, runs=group or None)
    rows = merge(table, old, new).rows
    return rows, old.num_rows + new.num_rows - rows.num_rows


def _groups(runs: Mapping[str, int]) -> Iterator[list[str]]:
    """Runs in groups of at most `GROUP_ROWS` staged rows, of at least one run."""
    group: list[str] = []
    size = 0
    for run in sorted(runs):
        if group and size + runs[run] > GROUP_ROWS:
            yield group
            group, size = [], 0
        group.append(run)
        size += runs[run]
    if group:
        yield group


def _disjoint(tables: TableStore, table: Table, staged: Staged) -> bool:
    """Whether no staged row has a stored key, so that rows can be appended without a rewrite."""
    keys = list(table.key)
    new = pl.from_arrow(staged.select().select(keys))
    old = pl.from_arrow(tables.read(table.name, columns=keys))
    if not isinstance(new, pl.DataFrame) or not isinstance(old, pl.DataFrame) or old.is_empty():
        return True
    return new.join(old, on=keys, how="semi", nulls_equal=True).is_empty()
