"""Find the files of a table that hold rows of given training runs, from the statistics in its log."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.buckets import BUCKET_COLUMN, bucket_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

SCOPE = "training_run_id"
_PREFIX = 32  # characters of a run's name that are compared with a file's statistics


def files_of(table: "DeltaTable", runs: Sequence[str] | None) -> list[str]:
    """Return the names of files whose statistics do not rule out rows of `runs` (None: of all files)."""
    bounds = _bounds(table)
    if runs is None:
        return list(bounds)
    if is_bucketed(table):
        folders = {f"{BUCKET_COLUMN}={bucket}" for bucket in {bucket_of(run) for run in runs}}
        bounds = {file: bound for file, bound in bounds.items() if file.partition("/")[0] in folders}
    # statistics may hold only the beginning of long texts
    wanted = sorted({run[:_PREFIX] for run in runs})
    return [file for file, (low, high) in bounds.items() if _may_hold(low, high, wanted)]


def is_bucketed(table: "DeltaTable") -> bool:
    """Return whether the files of a table are laid out by run bucket."""
    return table.metadata().partition_columns == [BUCKET_COLUMN]


def runs_in(table: "DeltaTable", folder: Path, files: Collection[str]) -> dict[str, list[str | None]]:
    """Return the training runs by file, for those of `files` (in `folder`) that belong to the table.

    None stands for rows that name no run. A file is not read if its statistics show that it holds a single run.
    """
    bounds = _bounds(table)
    return {file: _runs_in(folder / file, *bounds[file]) for file in files if file in bounds}


def _runs_in(path: Path, low: str | None, high: str | None) -> list[str | None]:
    if low is not None and low == high and len(low) < _PREFIX:
        return [low]
    import pyarrow.parquet as pq

    found: list[str | None] = pq.read_table(path, columns=[SCOPE]).column(SCOPE).unique().to_pylist()
    return found


def _bounds(table: "DeltaTable") -> dict[str, tuple[str | None, str | None]]:
    """Return the least and greatest training run by file; None if the log does not say or rows name no run."""
    actions = pa.table(table.get_add_actions(flatten=True))
    wanted = [f"{which}.{SCOPE}" for which in ("min", "max", "null_count")]
    if not set(wanted) <= set(actions.schema.names):
        return dict.fromkeys(actions.column("path").to_pylist(), (None, None))
    columns = (actions.column(column).to_pylist() for column in ("path", *wanted))
    return {file: (None, None) if nulls != 0 else (low, high) for file, low, high, nulls in zip(*columns, strict=True)}


def _may_hold(low: str | None, high: str | None, wanted: Sequence[str]) -> bool:
    """Return whether any of the sorted names lies within the bounds; None: no bound is known."""
    if low is None or high is None:
        return True
    place = bisect_left(wanted, low[:_PREFIX])
    return place < len(wanted) and wanted[place] <= high[:_PREFIX]
