"""Exports on disk as merged contract tables, without the pipeline around them."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import zstandard
from google.protobuf import json_format

from gnn.join.sources import Sources
from gnn.registry.refresh import Registries, load, refresh
from gnn.registry.rules import observed_keys
from schemas.contracts import FOLDERS, TABLES
from schemas.decode import decode_file
from schemas.decode.shape.merge import merge
from schemas.leyline import leyline_pb2


def recorded_tables(root: Path) -> Sources:
    """Every contract table of an exports root; arrival is the order of the files' names."""
    parts: dict[str, list[pa.Table]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        folder = FOLDERS.get("/".join(path.relative_to(root).parts[:2]))
        if folder is not None:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            for decoded in decode_file(path, folder, file=path.name, digest=digest):
                for name, rows in decoded.tables.items():
                    parts.setdefault(name, []).append(rows)
    return Sources({name: merge(TABLES[name], None, pa.concat_tables(rows)).rows for name, rows in parts.items()})


def recorded_registries(directory: Path, tables: Mapping[str, pa.Table]) -> Registries:
    """Registries as a first refresh makes them."""
    refresh(directory, observed_keys(tables), tables["simic.registry_snapshot"])
    return load(directory)


def serialized_packets(root: Path) -> Iterator[bytes]:
    """The packets of an exports root that has them as compressed JSON lines, each as the bytes of its protobuf message."""
    for path in sorted((root / "tolaria" / "system_state").glob("*.ndjson.zst")):
        for line in zstandard.decompress(path.read_bytes()).splitlines():
            yield json_format.Parse(line, leyline_pb2.SystemStatePacket()).SerializeToString()
