"""From a bundle back to the export files: which table versions a build read, and which exports their rows came from.

The manifest holds what decides the build id: content alone, the same on every machine. Beside it stays, under `builds/`,
what is true on this machine: Delta versions (pinned, so that no vacuum takes their files) and the exports behind them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from lake.exports.ledger import Ledger
from lake.store.tables import TableStore
from schemas.errors import StorageError

BUILDS = "builds"
TRAINED = "trained.json"
EXPORT_DIGEST = "export_digest"
_BUILD_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TableSource:
    """One table that a build read: its Delta version here, and the digests of the exports whose rows it holds."""

    version: int
    exports: tuple[str, ...]


def record(home: Path, tables: TableStore, build_id: str, versions: Mapping[str, int]) -> Path:
    """Pin the table versions that a build read, and keep which exports they came from; the file's path."""
    path = _path(home, build_id)
    tables.pin(build_id, versions)
    sources = {name: asdict(_source(tables, name, version)) for name, version in sorted(versions.items())}
    publish_file(path, (json.dumps({"build_id": build_id, "tables": sources}, indent=1) + "\n").encode("ascii"))
    return path


def _source(tables: TableStore, name: str, version: int) -> TableSource:
    if EXPORT_DIGEST not in tables.schema(name).names:
        return TableSource(version, ())
    rows = tables.read(name, version=version, columns=[EXPORT_DIGEST])
    found = pc.unique(rows.column(EXPORT_DIGEST)).to_pylist()
    return TableSource(version, tuple(sorted(digest for digest in found if digest is not None)))


def load(home: Path, build_id: str) -> dict[str, TableSource]:
    """The tables that a build read; StorageError where it is unknown or its file is damaged."""
    path = _path(home, build_id)
    parsed: Any = read_object(path, StorageError)
    try:
        return {name: TableSource(t["version"], tuple(t["exports"])) for name, t in parsed["tables"].items()}
    except (KeyError, TypeError, AttributeError) as damage:
        raise StorageError(f"{path}: expected the tables of a build, found {damage!r}; `tamiyo run` writes it") from damage


def export_files(home: Path, digests: Iterable[str]) -> dict[str, list[str]]:
    """Export digest -> the files under which it came, from the ledger; one that the ledger does not know has none."""
    names: dict[str, set[str]] = {digest: set() for digest in digests}
    for entry in Ledger(home).entries():
        if entry.digest in names:
            names[entry.digest].add(entry.file)
    return {digest: sorted(files) for digest, files in names.items()}


def manifest_inputs(home: Path, build_id: str) -> dict[str, Any]:
    """The inputs in a bundle's manifest, checked against its build id; StorageError where they do not give it."""
    path = home / "bundles" / build_id / "manifest.json"
    parsed: Any = read_object(path, StorageError)
    inputs = parsed.get("inputs")
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode("ascii")).hexdigest()
    if not isinstance(inputs, dict) or found != build_id:
        raise StorageError(f"{path}: expected the inputs of build {build_id}, found those of {found}; run `tamiyo doctor`")
    return inputs


def chain(home: Path, build_id: str) -> dict[str, Any]:
    """Everything behind a bundle, for `tamiyo lineage`: digests of its parts, versions here, down to export files."""
    sources = load(home, build_id)
    inputs = manifest_inputs(home, build_id)
    files = export_files(home, {digest for source in sources.values() for digest in source.exports})
    tables = {}
    for name, digest in sorted(inputs["tables"].items()):
        source = sources.get(name)
        exports = [{"digest": export, "files": files[export]} for export in source.exports] if source else []
        tables[name] = {"digest": digest, "version": source.version if source else None, "exports": exports}
    return {"build_id": build_id, **inputs, "tables": tables}


def builds(home: Path) -> list[str]:
    """Build ids whose tables are known, sorted."""
    return sorted(path.stem for path in (home / BUILDS).glob("*.json") if _BUILD_ID.fullmatch(path.stem))


def whole_build_id(home: Path, start: str) -> str:
    """Return the id of the published bundle whose id starts with `start`; `start` itself if none does, or several do."""
    bundles = home / "bundles"
    found = [path.name for path in bundles.iterdir() if path.name.startswith(start)] if start and bundles.is_dir() else []
    return found[0] if len(found) == 1 else start


def note_trained(home: Path, build_id: str) -> None:
    """Remember the build of the newest training, also if that found the build published already."""
    publish_file(home / TRAINED, (json.dumps({"build_id": build_id}) + "\n").encode("ascii"))


def last_trained(home: Path) -> str | None:
    """Return the build id of the newest training; None before the first one."""
    path = home / TRAINED
    if not path.exists():
        return None
    build_id = read_object(path, StorageError).get("build_id")
    return build_id if isinstance(build_id, str) else None


def _path(home: Path, build_id: str) -> Path:
    if not _BUILD_ID.fullmatch(build_id):
        raise StorageError(
            f"build {build_id!r}: expected the 64 hex digits of a known build, or the beginning of one alone; "
            "`tamiyo lineage` lists them"
        )
    return home / BUILDS / f"{build_id}.json"
