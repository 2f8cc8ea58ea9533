"""Record what each training run of a derived stage was made from, for the next increment to compare.

It lies beside the tables of the stage and is written after they are committed, so that a run whose commit was interrupted is
made again. A table that was removed and built anew has another identity, and then nothing of the record counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake.durable.publish import publish_file
from lake.store.table_store import TableStore


@dataclass(frozen=True)
class Increments:
    """The record of one stage: training run -> what it was made from, for the given tables."""

    stage: str
    tables: TableStore
    names: Sequence[str]

    @property
    def path(self) -> Path:
        """The file of the record."""
        return self.tables.home / "digests" / f"{self.stage}.increments.json"

    def load(self) -> dict[str, Any]:
        """Return what each run was made from; {} if that is unknown, damaged, or of tables that are no more."""
        try:
            noted = json.loads(self.path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(noted, dict) or noted.get("tables") != self._identities():
            return {}
        runs = noted.get("runs")
        return runs if isinstance(runs, dict) else {}

    def save(self, runs: Mapping[str, Any]) -> None:
        """Publish what each run was made from."""
        publish_file(self.path, json.dumps({"tables": self._identities(), "runs": runs}).encode())

    def _identities(self) -> list[str | None]:
        commits = (self.tables.commit(name) for name in self.names)
        return [None if commit is None else commit.partition("@")[0] for commit in commits]


def batches_of(runs: Sequence[str], rows: Mapping[str, int], most: int) -> list[list[str]]:
    """Cut runs into batches of at most `most` rows, of at least one run, in order."""
    found: list[list[str]] = []
    size = most + 1
    for run in runs:
        if size + rows.get(run, 0) > most:
            found.append([])
            size = 0
        found[-1].append(run)
        size += rows.get(run, 0)
    return found
