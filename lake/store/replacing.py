"""Replace the rows of training runs in one commit: which rows it removes, and which it writes again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from lake.store.pruning import SCOPE, files_of, is_bucketed
from lake.store.storage_format import conform, stored_schema
from schemas.buckets import BUCKET_COLUMN, bucket_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

# training runs that a condition may name: the library walks the list recursively, and at 30,000 names its stack overflows,
# which ends the process; each name costs 0.1 ms
MOST_NAMED: Final = 1_000


@dataclass(frozen=True)
class Stretch:
    """Runs of one bucket (None: of a table without buckets), sorted, and all others between the first and the last of them."""

    bucket: int | None
    runs: tuple[str, ...]

    @property
    def predicate(self) -> str:
        """The SQL condition that selects its rows."""
        of_bucket = "" if self.bucket is None else f"{BUCKET_COLUMN} = {self.bucket} AND "
        return f"({of_bucket}{SCOPE} >= {_quoted(self.runs[0])} AND {SCOPE} <= {_quoted(self.runs[-1])})"

    def files(self, files: Iterable[str]) -> list[str]:
        """Return those of a table's files that may hold its rows."""
        return [file for file in files if self.bucket is None or file.partition("/")[0] == f"{BUCKET_COLUMN}={self.bucket}"]


def stretches_of(table: "DeltaTable", runs: Iterable[str]) -> list[Stretch]:
    """Return the stretches from the first to the last of `runs`, one per bucket."""
    bucketed = is_bucketed(table)
    found: dict[int | None, list[str]] = {}
    for run in sorted(set(runs)):
        found.setdefault(bucket_of(run) if bucketed else None, []).append(run)
    return [Stretch(bucket, tuple(names)) for bucket, names in found.items()]


def predicate_of(table: "DeltaTable", runs: Sequence[str]) -> str:
    """Return the SQL condition that selects rows of `runs`; of more than `MOST_NAMED`, those of their stretches."""
    if len(set(runs)) > MOST_NAMED:
        return " OR ".join(stretch.predicate for stretch in stretches_of(table, runs))
    of_runs = f"{SCOPE} IN ({', '.join(_quoted(run) for run in sorted(set(runs)))})"
    if not is_bucketed(table):
        return of_runs
    buckets = ", ".join(str(bucket) for bucket in sorted({bucket_of(run) for run in runs}))
    return f"{BUCKET_COLUMN} IN ({buckets}) AND {of_runs}"


def _quoted(run: str) -> str:
    return "'" + run.replace("'", "''") + "'"


def with_others(
    table: "DeltaTable", folder: Path, rows: pa.Table | pa.RecordBatchReader, runs: Sequence[str]
) -> pa.RecordBatchReader:
    """Return the rows, then the stored rows of other runs in the stretches of `runs`: all that these will hold.

    `folder`: where the files of `table` lie.
    """
    import pyarrow.dataset as ds

    stored, files = stored_schema(table), files_of(table, None)
    schema = pa.schema([*rows.schema, *(one for one in stored if one.name not in rows.schema.names)])
    parts = [rows.to_batches() if isinstance(rows, pa.Table) else rows]
    for stretch in stretches_of(table, runs):
        paths = [str(folder / file) for file in stretch.files(files)]
        within = (pc.field(SCOPE) >= stretch.runs[0]) & (pc.field(SCOPE) <= stretch.runs[-1])
        others = within & ~pc.field(SCOPE).isin(pa.array(stretch.runs, pa.string()))
        parts.append(ds.dataset(paths, schema=stored, format="parquet").to_batches(filter=others))
    batches = (conform(pa.Table.from_batches([batch]), schema).to_batches() for batch in chain.from_iterable(parts))
    return pa.RecordBatchReader.from_batches(schema, chain.from_iterable(batches))
