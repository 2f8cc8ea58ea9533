"""Which files of a table may hold rows of some training runs, by the statistics in its log alone."""

from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable

SCOPE = "training_run_id"
_PREFIX = 32  # characters of a run's name that are compared with a file's statistics


def files_of(table: DeltaTable, runs: Sequence[str] | None) -> list[str]:
    """Names of the files whose statistics do not rule out rows of `runs`; of all files where `runs` is None."""
    actions = pa.table(table.get_add_actions(flatten=True))
    names = actions.schema.names
    files: list[str] = actions.column("path").to_pylist()
    if runs is None or f"min.{SCOPE}" not in names or f"max.{SCOPE}" not in names:
        return files
    # statistics of long texts may be cut off
    wanted = sorted({run[:_PREFIX] for run in runs})
    bounds = zip(actions.column(f"min.{SCOPE}").to_pylist(), actions.column(f"max.{SCOPE}").to_pylist(), strict=True)
    return [file for file, (low, high) in zip(files, bounds, strict=True) if _may_hold(low, high, wanted)]


def _may_hold(low: str | None, high: str | None, wanted: Sequence[str]) -> bool:
    """Whether any of the sorted names lies within the bounds; None: no bound is known."""
    if low is None or high is None:
        return True
    place = bisect_left(wanted, low[:_PREFIX])
    return place < len(wanted) and wanted[place] <= high[:_PREFIX]
