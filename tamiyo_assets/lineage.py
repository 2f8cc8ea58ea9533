"""What a bundle was made of: table versions, registries, norms, code and configuration, and the build id that names it.

The build id hashes content alone, so the same exports give the same id on every machine; Delta version numbers and export
digests are kept beside it, to pin the one and to answer where rows came from with the other.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from gnn.features.norms import Norms
from gnn.features.registries import Registries
from gnn.publish import publish_file
from gnn.strict_json import read_object
from schemas.errors import StorageError
from tamiyo_assets.ledger import Ledger
from tamiyo_assets.resources.tables import ABSENT, TableStore

BUILDS = "builds"
CODE = ("schemas", "gnn")  # what decides, besides the inputs, what a bundle is
_BUILD_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TableInput:
    """One table of a build: its Delta version here, its content digest, and the exports whose rows it keeps."""

    version: int
    digest: str
    exports: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedInput:
    """One registry, or the norms: version here and content digest."""

    version: int
    digest: str


@dataclass(frozen=True)
class BuildInputs:
    """Everything that a build was made from."""

    tables: Mapping[str, TableInput]
    registries: Mapping[str, PublishedInput]
    norms: PublishedInput
    code_version: str
    configuration: Mapping[str, Any]

    @property
    def build_id(self) -> str:
        """SHA-256 (hex) over data versions, code version and configuration; the same on every machine."""
        content = {
            "tables": {name: table.digest for name, table in self.tables.items()},
            "registries": {name: registry.digest for name, registry in self.registries.items()},
            "norms": self.norms.digest,
            "code_version": self.code_version,
            "configuration": self.configuration,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def versions(self) -> dict[str, int]:
        """Delta version by table."""
        return {name: table.version for name, table in self.tables.items()}


def code_version(root: Path | None = None) -> str:
    """SHA-256 (hex) over the names and bytes of the sources that decide what a bundle is."""
    base = Path(__file__).resolve().parents[1] if root is None else root
    digest = hashlib.sha256()
    for package in CODE:
        for path in sorted((base / package).rglob("*.py")):
            digest.update(path.relative_to(base).as_posix().encode("utf-8") + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build_inputs(
    tables: TableStore,
    digests: Mapping[str, str],
    registries: Registries,
    norms: Norms,
    configuration: Mapping[str, Any],
) -> BuildInputs:
    """The inputs of a build from the tables named in `digests` (content digest by table name).

    StorageError where one of them was never written.
    """
    return BuildInputs(
        tables={name: _table(tables, name, digest) for name, digest in sorted(digests.items())},
        registries={name: PublishedInput(r.version, r.digest) for name, r in sorted(registries.items())},
        norms=PublishedInput(norms.version, norms.digest),
        code_version=code_version(),
        configuration=configuration,
    )


def _table(tables: TableStore, name: str, digest: str) -> TableInput:
    version = tables.version(name)
    if version is None:
        # declared, and nothing was ever sent: part of the content, with nothing to pin
        return TableInput(ABSENT, digest)
    column = "export_digest"
    if column not in tables.schema(name).names:
        return TableInput(version, digest)
    found = pc.unique(tables.read(name, version=version, columns=[column]).column(column)).to_pylist()
    return TableInput(version, digest, tuple(sorted(value for value in found if value is not None)))


def record(home: Path, tables: TableStore, inputs: BuildInputs) -> Path:
    """Keep the inputs under their build id, and pin the table versions; the file's path."""
    path = _path(home, inputs.build_id)
    tables.pin(inputs.build_id, {name: number for name, number in inputs.versions().items() if number != ABSENT})
    content = {"build_id": inputs.build_id, **asdict(inputs)}
    publish_file(path, (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii"))
    return path


def load(home: Path, build_id: str) -> BuildInputs:
    """The inputs of a build; StorageError where they are unknown, damaged or of another build."""
    path = _path(home, build_id)
    parsed: Any = read_object(path, StorageError)
    try:
        inputs = BuildInputs(
            {name: TableInput(t["version"], t["digest"], tuple(t["exports"])) for name, t in parsed["tables"].items()},
            {name: PublishedInput(**registry) for name, registry in parsed["registries"].items()},
            PublishedInput(**parsed["norms"]),
            parsed["code_version"],
            parsed["configuration"],
        )
    except (KeyError, TypeError, AttributeError) as damage:
        raise StorageError(f"{path}: expected the inputs of a build, found {damage!r}; run `tamiyo run` again") from damage
    if inputs.build_id != build_id:
        raise StorageError(f"{path}: expected the inputs of {build_id}, found those of {inputs.build_id}; they were changed")
    return inputs


def export_files(home: Path, digests: Iterable[str]) -> dict[str, list[str]]:
    """Export digest -> the files under which it came, from the ledger; one that no ledger knows has none."""
    names: dict[str, set[str]] = {digest: set() for digest in digests}
    for entry in Ledger(home).entries():
        if entry.digest in names:
            names[entry.digest].add(entry.file)
    return {digest: sorted(files) for digest, files in names.items()}


def chain(home: Path, build_id: str) -> dict[str, Any]:
    """The whole chain behind a bundle, for `tamiyo lineage`: parts with versions and digests, down to export files."""
    inputs = load(home, build_id)
    files = export_files(home, {digest for table in inputs.tables.values() for digest in table.exports})
    tables = {
        name: {
            "version": table.version,
            "digest": table.digest,
            "exports": [{"digest": digest, "files": files[digest]} for digest in table.exports],
        }
        for name, table in inputs.tables.items()
    }
    return {"build_id": build_id, **asdict(inputs), "tables": tables}


def builds(home: Path) -> list[str]:
    """Build ids whose inputs are kept, sorted."""
    return sorted(path.stem for path in (home / BUILDS).glob("*.json") if _BUILD_ID.fullmatch(path.stem))


def _path(home: Path, build_id: str) -> Path:
    if not _BUILD_ID.fullmatch(build_id):
        raise StorageError(f"build {build_id!r}: expected 64 hex digits; `tamiyo lineage` without one lists what is known")
    return home / BUILDS / f"{build_id}.json"
