"""Validate rows against their table's declaration before a commit; refuse rows that break it, and name them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from lake.store.pruning import SCOPE
from schemas.contracts import TABLES
from schemas.contracts.reasons import declared_rejects
from schemas.derived.tables import DECLARED
from schemas.errors import RowsRefused, StorageError, TamiyoError
from schemas.table_declaration import DeclaredTable, Part

BATCH_ROWS = 65_536  # rows of a stream that are checked together
NOT_COMMITTED = "None of these rows was committed, the table is as it was"
_NAMED = 3


def declaration(name: str) -> DeclaredTable | None:
    """Return the declaration of a contract, rejects or derived table; None for a table that nobody declared."""
    if name in TABLES:
        return TABLES[name].declared
    return declared_rejects(name) if name.startswith("rejects.") else DECLARED.get(name)


def refuse(
    table: DeclaredTable,
    rows: pa.Table,
    error: type[TamiyoError] = StorageError,
    *,
    runs: Collection[str] | None = None,
    part: Part = "all",
) -> None:
    """Raise `error` if rows break the declaration; it lists each broken rule, how many rows break it, and the first rows.

    `runs`: the training runs whose rows these replace (None: any). `part`: which rules to check.
    """
    from schemas.row_rules import breaches, wrong_columns

    wrong = wrong_columns(table, rows.schema)
    said = {"columns": wrong} if wrong is not None else {one.rule.name: one.text for one in breaches(table, rows, part)}
    if wrong is None and runs is not None:
        said |= _of_other_runs(rows, runs)
    if said:
        raise _error(error, table, said)


def refuse_copies(table: DeclaredTable, rows: pa.Table) -> None:
    """Raise StorageError if rows share a key; only the key columns are needed."""
    from schemas.row_rules import breaches

    said = {breach.rule.name: breach.text for breach in breaches(table, rows, "keys")}
    if said:
        raise _error(StorageError, table, said)


def _error(error: type[TamiyoError], table: DeclaredTable, said: Mapping[str, str]) -> TamiyoError:
    """Return the error for broken rules, given by name; a StorageError also holds the table and the rules."""
    message = (
        f"table {table.name}: {'. '.join(said.values())}. {NOT_COMMITTED}; "
        "what made them is at fault: correct it, then run again"
    )
    return RowsRefused(message, table.name, said) if error is StorageError else error(message)


def _of_other_runs(rows: pa.Table, runs: Collection[str]) -> dict[str, str]:
    """Return the broken rule for rows of runs that are not replaced: these would be in the table twice."""
    column = rows.column(SCOPE)
    other = rows.filter(pc.invert(pc.is_in(column, value_set=pa.array(sorted(runs), pa.string()))))
    if not other.num_rows:
        return {}
    named = ", ".join(str(run) for run in other.column(SCOPE).unique().to_pylist()[:_NAMED])
    said = f"replaced runs: expected rows of the {len(runs)} training runs to replace, found {other.num_rows} rows of {named}"
    return {"replaced_runs": said}


@dataclass
class Validation:
    """Checks rows that are staged in batches, several batches at once. Skips key rules: copies of a key are merged later."""

    table: DeclaredTable
    error: type[TamiyoError]
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch. Raises `error` if it, or a waiting earlier batch, breaks the declaration."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= BATCH_ROWS:
            self.finish()

    def finish(self) -> None:
        """Check the waiting batches."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            refuse(self.table, pa.Table.from_batches(waiting), self.error, part="rows")


@contextmanager
def checked(
    name: str, rows: pa.Table | pa.RecordBatchReader, runs: Collection[str] | None
) -> Iterator[pa.Table | pa.RecordBatchReader]:
    """Check the rows that a block commits to a derived table, in which they replace rows of `runs` (None: any).

    A stream is checked batch by batch as the block reads it, its keys at the end. Rows of other tables are not checked.
    Raises StorageError.
    """
    declared = DECLARED.get(name)
    if declared is None:
        yield rows
    elif isinstance(rows, pa.Table):
        refuse(declared, rows, runs=runs)
        yield rows
    else:
        stream = _Stream(declared, rows, runs)
        try:
            yield stream.reader()
        except StorageError:
            if stream.refused is not None:  # our own error, not that of the library that read the stream
                raise stream.refused from None
            raise


@dataclass
class _Stream:
    """A stream whose batches are checked as they pass. `refused`: why it ended early."""

    table: DeclaredTable
    source: pa.RecordBatchReader
    runs: Collection[str] | None = None
    refused: StorageError | None = None

    def reader(self) -> pa.RecordBatchReader:
        """Return the stream of checked batches."""
        return pa.RecordBatchReader.from_batches(self.source.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        seen = []
        try:
            for batch in self.source:
                rows = pa.Table.from_batches([batch])
                refuse(self.table, rows, runs=self.runs, part="rows")
                seen.append(rows.select(list(dict.fromkeys(name for key in self.table.keys for name in key))))
                yield batch
            if seen:
                refuse_copies(self.table, pa.concat_tables(seen))
        except StorageError as refused:
            self.refused = refused
            raise
