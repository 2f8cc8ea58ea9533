"""Record builds in `builds/<build_id>.json`: the table versions that a build read and the exports behind their rows.

That file is also the pin: no vacuum deletes the files of a version that is recorded there. A version that can't be kept is
null. Homes of earlier versions have pins in `pins/<build_id>.json`; these are valid until they are moved into the builds'
records.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from lake.exports.ledger import Ledger
from lake.store.table_store import TableStore
from schemas.errors import StorageError

BUILDS = "builds"
EARLIER_PINS = "pins"
TRAINED = "trained.json"
EXPORT_DIGEST = "export_digest"
_BUILD_ID = re.compile(r"[0-9a-f]{64}")

Sources = Mapping[str, "TableSource"]


@dataclass(frozen=True)
class TableSource:
    """One table that a build read: its Delta version in this home (None: not kept), and digests of the exports it came from."""

    version: int | None
    exports: tuple[str, ...]


def record(
    home: Path, tables: TableStore, build_id: str, versions: Mapping[str, int], graphs: Mapping[str, str] | None = None
) -> Path:
    """Record, and so pin, the table versions and graph shards (bucket -> digest) that a build read; return the file's path.

    The record lists, for each table, the exports that its rows came from.
    """
    sources = {name: TableSource(version, _exports(tables, name, version)) for name, version in versions.items()}
    return _write(home, build_id, sources, graphs or {})


def load(home: Path, build_id: str) -> dict[str, TableSource]:
    """Return the tables that a build read, by name. Raises StorageError if the build is unknown or its file is damaged."""
    path = _path(home, build_id)
    parsed: Any = read_object(path, StorageError)
    try:
        sources = {name: TableSource(t["version"], tuple(t["exports"])) for name, t in parsed["tables"].items()}
    except (KeyError, TypeError, AttributeError) as damage:
        raise StorageError(f"{path}: expected the tables of a build, found {damage!r}; `tamiyo run` writes it") from damage
    wrong = [source.version for source in sources.values() if not isinstance(source.version, int | None)]
    if wrong:
        raise StorageError(f"{path}: expected versions of tables, found {wrong[0]!r}; `tamiyo doctor --repair` removes it")
    return sources


def pinned_graphs(home: Path) -> list[dict[str, str]]:
    """Return the graph shards (bucket -> digest) that each build read. Raises StorageError for a damaged file."""
    return [_graphs(path) for path in _files(home, BUILDS)]


def _graphs(path: Path) -> dict[str, str]:
    found = read_object(path, StorageError).get("graphs", {})
    if not isinstance(found, dict):
        raise StorageError(f"{path}: expected `graphs` by bucket, found {found!r}; `tamiyo doctor --repair` removes it")
    return {str(bucket): str(digest) for bucket, digest in found.items()}


def builds(home: Path) -> list[str]:
    """Return the ids of the recorded builds, sorted."""
    return sorted(path.stem for path in _files(home, BUILDS))


def pins(home: Path) -> dict[str, dict[str, int]]:
    """Return build id -> table -> pinned version. Raises StorageError for a damaged file: then nothing may be deleted."""
    return {path.stem: pinned(path) for path in pin_files(home)}


def pin_files(home: Path) -> list[Path]:
    """Return the files that pin versions, one per build: the pin file of an earlier home version, else the build's record."""
    return list({path.stem: path for folder in (BUILDS, EARLIER_PINS) for path in _files(home, folder)}.values())


def pinned(path: Path) -> dict[str, int]:
    """Return table -> version that one of the `pin_files` pins. Raises StorageError if it is damaged."""
    if path.parent.name == BUILDS:
        sources = load(path.parents[1], path.stem)
        return {name: source.version for name, source in sources.items() if source.version is not None}
    versions = read_object(path, StorageError).get("versions")
    if not isinstance(versions, dict) or not all(isinstance(version, int) for version in versions.values()):
        raise StorageError(f"{path}: expected `versions`, found {versions!r}; `tamiyo doctor --repair` removes it")
    return versions


def release(home: Path, tables: TableStore, names: Collection[str], build_id: str | None = None) -> None:
    """Unpin all versions of tables `names`, for one build or for all. The records still say which exports the builds read."""
    for path in pin_files(home):
        if (build_id is None or path.stem == build_id) and not pinned(path).keys().isdisjoint(names):
            _take_over(home, tables, path)
            kept = {
                name: replace(source, version=None) if name in names else source
                for name, source in load(home, path.stem).items()
            }
            _write(home, path.stem, kept)


def take_over_pins(home: Path, tables: TableStore) -> None:
    """Move pin files of earlier home versions into the records of their builds. Raises StorageError if one is damaged."""
    for path in pin_files(home):
        _take_over(home, tables, path)


def _take_over(home: Path, tables: TableStore, path: Path) -> None:
    """Move one pin file into the record of its build; a version that it does not pin becomes null."""
    if path.parent.name == BUILDS:
        return
    versions = pinned(path)
    if _path(home, path.stem).exists():
        known = load(home, path.stem)
        exports = {name: source.exports for name, source in known.items()}
    else:
        exports = {name: _readable_exports(tables, name, version) for name, version in versions.items()}
    names = {**exports, **versions}
    _write(home, path.stem, {name: TableSource(versions.get(name), exports.get(name, ())) for name in names})


def _write(home: Path, build_id: str, sources: Sources, graphs: Mapping[str, str] | None = None) -> Path:
    """Publish the record of a build, from then on its only pin; `graphs=None` keeps the shards already recorded."""
    path = _path(home, build_id)
    if graphs is None:
        graphs = _graphs(path) if path.exists() else {}
    content: dict[str, Any] = {"build_id": build_id, "graphs": dict(sorted(graphs.items(), key=lambda item: int(item[0])))}
    content |= {"tables": {name: asdict(source) for name, source in sorted(sources.items())}}
    publish_file(path, (json.dumps(content, indent=1) + "\n").encode("ascii"))
    (home / EARLIER_PINS / path.name).unlink(missing_ok=True)
    return path


def _exports(tables: TableStore, name: str, version: int) -> tuple[str, ...]:
    """Return the digests of the exports that rows of a table's version came from; () for a derived table."""
    if EXPORT_DIGEST not in tables.schema(name).names:
        return ()
    digests = pc.unique(tables.read(name, version=version, columns=[EXPORT_DIGEST]).column(EXPORT_DIGEST)).to_pylist()
    return tuple(sorted(digest for digest in digests if digest is not None))


def _readable_exports(tables: TableStore, name: str, version: int) -> tuple[str, ...]:
    """Return the result of `_exports`, or () if the version can't be read."""
    try:
        return _exports(tables, name, version)
    except StorageError:
        return ()


def export_files(home: Path, digests: Iterable[str]) -> dict[str, list[str]]:
    """Return export digest -> the files under which it arrived, by the ledger; [] if the ledger does not know it."""
    names: dict[str, set[str]] = {digest: set() for digest in digests}
    for entry in Ledger(home).entries():
        if entry.digest in names:
            names[entry.digest].add(entry.file)
    return {digest: sorted(files) for digest, files in names.items()}


def manifest_inputs(home: Path, build_id: str) -> dict[str, Any]:
    """Return the inputs in a bundle's manifest. Raises StorageError if the build id does not follow from them."""
    path = home / "bundles" / build_id / "manifest.json"
    parsed: Any = read_object(path, StorageError)
    inputs = parsed.get("inputs")
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode("ascii")).hexdigest()
    if not isinstance(inputs, dict) or found != build_id:
        raise StorageError(f"{path}: expected the inputs of build {build_id}, found those of {found}; run `tamiyo doctor`")
    return inputs


def chain(home: Path, build_id: str) -> dict[str, Any]:
    """Return the lineage of a bundle, for `tamiyo lineage`: its parts' digests, the table versions, and the export files."""
    sources = load(home, build_id)
    inputs = manifest_inputs(home, build_id)
    files = export_files(home, {digest for source in sources.values() for digest in source.exports})
    tables = {}
    for name, digest in sorted(inputs["tables"].items()):
        source = sources.get(name)
        exports = [{"digest": export, "files": files[export]} for export in source.exports] if source else []
        tables[name] = {"digest": digest, "version": source.version if source else None, "exports": exports}
    return {"build_id": build_id, **inputs, "tables": tables}


def whole_build_id(home: Path, start: str) -> str:
    """Return the one published build id that begins with `start`; return `start` itself if none or several do."""
    bundles = home / "bundles"
    found = [path.name for path in bundles.iterdir() if path.name.startswith(start)] if start and bundles.is_dir() else []
    return found[0] if len(found) == 1 else start


def note_trained(home: Path, build_id: str) -> None:
    """Remember the build of the newest training, even if that build was already published."""
    publish_file(home / TRAINED, (json.dumps({"build_id": build_id}) + "\n").encode("ascii"))


def last_trained(home: Path) -> str | None:
    """Return the build id of the newest training; None before the first one."""
    path = home / TRAINED
    if not path.exists():
        return None
    build_id = read_object(path, StorageError).get("build_id")
    return build_id if isinstance(build_id, str) else None


def _files(home: Path, folder: str) -> list[Path]:
    return sorted(path for path in (home / folder).glob("*.json") if _BUILD_ID.fullmatch(path.stem))


def _path(home: Path, build_id: str) -> Path:
    if not _BUILD_ID.fullmatch(build_id):
        raise StorageError(
            f"build {build_id!r}: expected the 64 hex digits of a known build, or the beginning of one alone; "
            "`tamiyo lineage` lists them"
        )
    return home / BUILDS / f"{build_id}.json"
