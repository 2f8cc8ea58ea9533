"""Digest the content of tables: the data versions that Dagster shows, and each training run's own digest.

A digest depends only on the rows, never on files, order or commits. It is kept beside the tables for each Delta version, so
that an unchanged table is not read again.
"""

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lake.durable.file_digest import file_digest
from lake.durable.publish import publish_file
from lake.store.table_store import ABSENT, TableStore
from schemas.contracts import TABLES, Table
from schemas.digest import can_hash, hashed_runs, ordered_digest, part_digests, table_digest

RUN = "training_run_id"
VERSIONS = "operations.versions"
_PUBLISHED = pa.schema([(name, pa.string()) for name in ("table", "training_run", "digest")])


@dataclass(frozen=True)
class RunVersion:
    """One training run's share of a table."""

    digest: str
    rows: int


@dataclass(frozen=True)
class TableVersion:
    """One table: content digest and number of rows, also per training run if rows belong to runs."""

    name: str
    digest: str
    rows: int
    runs: Mapping[str, RunVersion] = field(default_factory=dict)

    def run(self, training_run_id: str) -> RunVersion:
        """Return the run's share; a run without rows has the digest of an empty share."""
        return self.runs.get(training_run_id, RunVersion(hashlib.sha256(b"").hexdigest(), 0))


class Versions:
    """Content digests of the tables of one store."""

    def __init__(self, home: Path, tables: TableStore) -> None:
        """Digest `tables`, and remember the digests under `home`."""
        self._directory = home / "digests"
        self._tables = tables
        self._published: pa.Table | None = None

    def of(self, name: str) -> TableVersion:
        """Return the current version of a table.

        After a newer commit, read only the training runs that have rows in new or removed files.
        """
        tables = self._tables.held()
        known, commit = self._noted(name), tables.commit(name)
        if not known or known["commit"] != commit:
            known = _renewed(tables, name, known, commit) | {"commit": commit}
            self._note(name, known)
        runs = {run: RunVersion(digest, rows) for run, (digest, rows) in known["runs"].items()}
        return TableVersion(name, known["digest"], known["rows"], runs)

    def published(self, name: str) -> dict[str, str]:
        """Return training run -> digest of a table's shares, as in `operations.versions` at the first call."""
        if self._published is None:
            columns = ["table", "training_run", "digest"]
            rows = self._tables.read(VERSIONS, columns=columns) if self._tables.exists(VERSIONS) else _PUBLISHED.empty_table()
            self._published = rows.filter(pc.is_valid(rows.column("training_run")))
        rows = self._published.filter(pc.equal(self._published.column("table"), name))
        return dict(zip(rows.column("training_run").to_pylist(), rows.column("digest").to_pylist(), strict=True))

    def changed_runs(self, version: TableVersion) -> list[str]:
        """Return the training runs whose share of the table differs from the last published one, gone runs included; sorted."""
        before, now = self.published(version.name), {run: part.digest for run, part in version.runs.items()}
        return sorted(run for run in {*before, *now} if before.get(run) != now.get(run))

    def at(self, versions: Mapping[str, int]) -> dict[str, str]:
        """Return the content digest of every contract table at the given Delta versions; a table not in `versions` is empty.

        Later commits of others have no effect.
        """
        pinned = self._tables.at({name: versions.get(name, ABSENT) for name in TABLES})
        found = {}
        for name in TABLES:
            if pinned.version(name) == self._tables.version(name):
                found[name] = self.of(name).digest
            else:
                found[name] = _describe(name, pinned.read(name))["digest"]
        return found

    def changed(self, name: str) -> list[str]:
        """Return the files of the current commit whose bytes differ from those noted. Raises StorageError if one is gone."""
        known = self._noted(name)
        if known.get("commit") != self._tables.commit(name):
            return []
        noted: dict[str, str] = known.get("files", {})
        paths = {str(path.relative_to(self._tables.path(name))): path for path in self._tables.files(name)}
        return [file for file, path in paths.items() if file in noted and file_digest(path) != noted[file]]

    def _noted(self, name: str) -> dict[str, Any]:
        """Return what is remembered of a table; {} if that is damaged, since the table can be read again."""
        try:
            noted = json.loads((self._directory / f"{name}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _note(self, name: str, known: Mapping[str, Any]) -> None:
        publish_file(self._directory / f"{name}.json", json.dumps(known).encode())

    def write(self, name: str, rows: pa.Table) -> TableVersion:
        """Replace a derived table by `rows`; write only the runs (or the table) whose content differs.

        Without a difference there is no commit, so that a second run changes nothing.
        """
        ordered, noted = ordered_digest(rows), self._noted(name)
        if noted.get("ordered") == ordered and noted.get("commit") == self._tables.commit(name):
            return self.of(name)
        self._replace(name, rows, _describe(name, rows))
        version = self.of(name)
        self._note(name, self._noted(name) | {"ordered": ordered})
        return version

    def _replace(self, name: str, rows: pa.Table, fresh: Mapping[str, Any]) -> None:
        """Commit those of `rows` that the table lacks; `fresh` holds the digests of `rows`."""
        runs: dict[str, tuple[str, int]] = fresh["runs"]
        if self._tables.version(name) is None or not runs:
            if self._tables.version(name) is None or self.of(name).digest != fresh["digest"]:
                self._tables.write(name, rows)
            return
        known = self.of(name).runs
        changed = [r for r in {*runs, *known} if r not in runs or r not in known or known[r].digest != runs[r][0]]
        if changed:
            kept = rows.filter(pc.is_in(rows.column(RUN), value_set=pa.array(changed, pa.string())))
            self._tables.write(name, kept, runs=changed)


def _renewed(tables: TableStore, name: str, known: Mapping[str, Any], commit: str | None) -> dict[str, Any]:
    """Return what to remember of a table; `known` is what is remembered from an earlier commit."""
    paths = {str(path.relative_to(tables.path(name))): path for path in tables.files(name)}
    columns = str(tables.schema(name).remove_metadata()) if commit else ""
    # digests of rows with other columns are not valid for this version
    same = known.get("columns") == columns and _identity(known["commit"]) == _identity(commit)
    noted: dict[str, str] = known["files"] if same else {}
    files = {file: noted.get(file) or file_digest(path) for file, path in paths.items()}
    if same and files == noted:
        return {**known}
    touched = _touched(tables, name, known, paths.keys()) if same else None
    if touched is not None:
        rows = tables.read(name, runs=sorted(touched))
        kept = {run: part for run, part in known["runs"].items() if run not in touched}
        described = _of_runs(kept | _runs(name, rows))
    else:
        described = _describe(name, tables.read(name))
    held = {file: runs for file, runs in (known["held"] if same else {}).items() if file in paths}
    if described["runs"]:
        held |= tables.runs_by_file(name, paths.keys() - held.keys())
    return described | {"files": files, "held": held, "columns": columns}


def _touched(tables: TableStore, name: str, known: Mapping[str, Any], files: Set[str]) -> set[str] | None:
    """Return the training runs with rows in new or removed files; None if rows do not belong to runs."""
    held: dict[str, list[str | None]] = known["held"]
    if not known["runs"] or held.keys() != known["files"].keys():
        return None
    new = tables.runs_by_file(name, files - held.keys())
    touched = {run for runs in (*new.values(), *(held[file] for file in held.keys() - files)) for run in runs}
    return None if None in touched else {run for run in touched if run is not None}


def _identity(commit: str | None) -> str:
    """Return the part of a commit's name that stays the same until the table is rebuilt."""
    return (commit or "").partition("@")[0]


def _describe(name: str, rows: pa.Table) -> dict[str, Any]:
    if not _belongs_to_runs(name, rows):
        return {"digest": _digest(name, rows), "rows": rows.num_rows, "runs": {}}
    return _of_runs(_runs(name, rows))


def _runs(name: str, rows: pa.Table) -> dict[str, tuple[str, int]]:
    """Return the digest and number of rows of each training run."""
    if name not in TABLES and can_hash(rows.schema):
        return hashed_runs(rows, RUN)
    return part_digests(_key(name, rows), rows, RUN)


def _of_runs(runs: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(sorted((run, d) for run, (d, _) in runs.items())).encode()).hexdigest()
    return {"digest": digest, "rows": sum(rows for _, rows in runs.values()), "runs": dict(runs)}


def _belongs_to_runs(name: str, rows: pa.Table) -> bool:
    """Return whether rows belong to training runs: by declaration, or for a derived table if each row names its run."""
    if name in TABLES:
        return TABLES[name].scope is not None
    return RUN in rows.column_names and rows.column(RUN).null_count == 0


def _digest(name: str, rows: pa.Table) -> str:
    return table_digest(_key(name, rows), rows)


def _key(name: str, rows: pa.Table) -> Table | tuple[str, ...]:
    return TABLES.get(name) or _ordering(rows)


def _ordering(rows: pa.Table) -> tuple[str, ...]:
    """Return the columns by which a derived table's rows are sorted: names and numbers, never nested columns."""
    return tuple(f.name for f in rows.schema if pa.types.is_string(f.type) or pa.types.is_integer(f.type))
