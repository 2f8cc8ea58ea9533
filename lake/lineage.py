"""From a bundle back to the export files: which table versions a build read, and which exports their rows came from.

The manifest holds what decides the build id: content alone, the same on every machine. The record of the build beside it holds
what is true on this machine: Delta versions, and the exports behind them.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lake.builds import load
from lake.durable.strict_json import read_object
from lake.exports.ledger import Ledger
from schemas.errors import StorageError


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
