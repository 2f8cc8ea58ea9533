"""Record the inputs of each training run in a derived stage, for the next increment to compare.

The record lies beside the tables of the stage, one file per run bucket. It is written after the tables are committed, so that a
run whose commit was interrupted is made again. A rebuilt table has a new identity, which makes the whole record invalid.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lake.durable.publish import publish_file
from lake.store.table_store import TableStore
from schemas.buckets import BUCKETS, bucket_of

ALL_BUCKETS: Final = tuple(range(BUCKETS))


@dataclass(frozen=True)
class Increments:
    """The record of one stage: training run -> its inputs, for the given tables and run buckets."""

    stage: str
    tables: TableStore
    names: Sequence[str]
    buckets: Collection[int] = ALL_BUCKETS

    def path(self, bucket: int) -> Path:
        """Return the file of a bucket's record."""
        return self.tables.home / "digests" / f"{self.stage}.increments" / f"{bucket}.json"

    def load(self) -> dict[str, Any]:
        """Return the inputs of each run; leave out buckets whose record is damaged or belongs to earlier tables."""
        identities, found = self._identities(), dict[str, Any]()
        for bucket in self.buckets:
            found |= self._noted(bucket, identities)
        return found

    def save(self, runs: Mapping[str, Any], changed: Collection[str] | None = None) -> None:
        """Publish the inputs of each run: the records of all buckets, or only those of the `changed` runs."""
        identities = self._identities()
        written = set(self.buckets) if changed is None else {bucket_of(run) for run in changed}
        parts: dict[int, dict[str, Any]] = {bucket: {} for bucket in sorted(written)}
        for run, made in runs.items():
            bucket = bucket_of(run)
            if bucket in parts:
                parts[bucket][run] = made
        for bucket, part in parts.items():
            path = self.path(bucket)
            if part or path.exists():
                publish_file(path, json.dumps({"tables": identities, "runs": part}).encode())

    def _noted(self, bucket: int, identities: Sequence[str | None]) -> dict[str, Any]:
        try:
            noted = json.loads(self.path(bucket).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(noted, dict) or noted.get("tables") != identities:
            return {}
        runs = noted.get("runs")
        return runs if isinstance(runs, dict) else {}

    def _identities(self) -> list[str | None]:
        commits = (self.tables.commit(name) for name in self.names)
        return [None if commit is None else commit.partition("@")[0] for commit in commits]


def by_bucket(runs: Iterable[str]) -> list[str]:
    """Return runs sorted by bucket, then by name: a batch of many then writes to few buckets of tables and records."""
    return sorted(runs, key=lambda run: (bucket_of(run), run))


def batches_of(runs: Sequence[str], rows: Mapping[str, int], most: int) -> list[list[str]]:
    """Cut runs, in order, into batches of at most `most` rows, but at least one run each."""
    found: list[list[str]] = []
    size = most + 1
    for run in runs:
        if size + rows.get(run, 0) > most:
            found.append([])
            size = 0
        found[-1].append(run)
        size += rows.get(run, 0)
    return found
