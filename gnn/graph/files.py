"""The files of a graph dataset: written beside, fsynced and renamed; read only when they are what their header says."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnn.encode.build import Featured, FeatureSet
from gnn.graph import layout
from gnn.join.rows import Ints
from lake.durable.publish import publish_dir
from schemas.errors import FeatureError
from schemas.features import GROUPS, NodeType

FORMAT: Final = "tamiyo_graphs"
VERSION: Final = 1
FILES: Final = ("floats.bin", "ints.bin", "counts.bin", "keys.arrow", "names.arrow")
_HEADER: Final = "header.json"


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 (hex) of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Header(BaseModel):
    """`header.json`: what the dataset is, what it was made from, and what its files hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: str
    version: int
    declaration: str = Field(description="SHA-256 of the feature declaration.")
    inputs: dict[str, str] = Field(description="Digest of everything that the graphs were made from, by name.")
    graphs: int = Field(ge=0)
    rows: dict[str, int] = Field(description="Rows per node type and relation.")
    files: dict[str, FileRecord]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the dataset's content, whatever it was made from."""
        parts = {name: record.sha256 for name, record in self.files.items()}
        return hashlib.sha256(json.dumps([self.declaration, parts], sort_keys=True).encode("ascii")).hexdigest()


def read_header(directory: Path, *, inputs: Mapping[str, str] | None = None, verify: bool = False) -> Header:
    """The checked header of a dataset; FeatureError lists everything that is not as expected."""
    try:
        header = Header.model_validate_json((directory / _HEADER).read_bytes())
    except (OSError, ValidationError) as error:
        raise FeatureError(f"{directory}: expected a graph dataset, found {error}; materialize graphs/dataset again") from error
    faults = [
        f"{name}: expected {expected}, found {found}"
        for name, expected, found in (
            ("format", FORMAT, header.format),
            ("version", VERSION, header.version),
            ("declaration", layout.declaration_digest(), header.declaration),
            ("files", sorted(FILES), sorted(header.files)),
        )
        if expected != found
    ]
    for name in sorted({*inputs, *header.inputs}) if inputs is not None else ():
        expected, found = (inputs or {}).get(name), header.inputs.get(name)
        if expected != found:
            faults.append(f"input {name}: expected {expected}, found {found}")
    faults += [fault for name, record in header.files.items() for fault in _file_faults(directory / name, record, verify)]
    if faults:
        raise FeatureError(f"{directory}: " + "; ".join(faults) + "; materialize graphs/dataset again")
    return header


def _file_faults(path: Path, record: FileRecord, verify: bool) -> list[str]:
    if path.name not in FILES or path.is_symlink() or not path.is_file():
        return [f"{path.name}: expected a file of the dataset, found none"]
    if path.stat().st_size != record.size:
        return [f"{path.name}: expected {record.size} bytes, found {path.stat().st_size}"]
    if verify:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != record.sha256:
            return [f"{path.name}: expected SHA-256 {record.sha256}, found {found}"]
    return []


@dataclass
class _Sink:
    """A file that is hashed while it is written."""

    file: BinaryIO
    digest: Any
    size: int = 0

    def write(self, data: bytes | memoryview) -> int:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


class DatasetWriter:
    """Writes graphs block by block; what is kept in memory is one block, the keys and the element names."""

    def __init__(self, destination: Path, inputs: Mapping[str, str]) -> None:
        """Begin the dataset that will be `destination`, a new directory."""
        self._destination = destination
        self._inputs = dict(inputs)
        self._workplace = destination.parent / f".{destination.name}.{secrets.token_hex(6)}.tmp"
        self._workplace.mkdir(parents=True)
        self._sinks = {name: _Sink((self._workplace / name).open("wb"), hashlib.sha256()) for name in FILES}
        self._keys: list[pa.Table] = []
        self._names: dict[str, int] = {}
        self._rows = np.zeros(len(GROUPS), dtype=np.int64)
        self._graphs = 0

    def add(self, features: FeatureSet) -> None:
        """Append the graphs of `features`, in order."""
        counts = np.stack([np.diff(featured.group.ptr) for featured in features.groups], axis=1)
        floats = _streamed(counts, layout.FLOAT_GROUP, layout.FLOAT_WIDTH, [f.encoded.x for f in features.groups], "<f4")
        self._sinks["floats.bin"].write(_raw(floats))
        parts = [self._integers(features, features.groups[block.group], block) for block in layout.BLOCKS]
        ints = _streamed(counts, layout.BLOCK_GROUP, layout.BLOCK_WIDTH, parts, "<i4")
        self._sinks["ints.bin"].write(_raw(ints))
        self._sinks["counts.bin"].write(_raw(np.ascontiguousarray(counts, dtype="<i4")))
        self._keys.append(features.keys())
        self._rows += counts.sum(axis=0)
        self._graphs += features.size

    def _integers(self, features: FeatureSet, featured: Featured, block: layout.Block) -> Ints:
        """One integer block of all graphs; numbers of nodes and edges count from each graph's first."""
        edges, declaration = featured.group.edges, featured.declaration
        if block.name == "ids":
            return featured.encoded.ids
        if isinstance(declaration, NodeType) or edges is None:
            return self._name_codes(featured)
        if block.name == "order":
            return _local(np.lexsort((edges.source, edges.packet)), edges.packet, edges.ptr)
        end, node_type = (edges.source, declaration.source) if block.name == "source" else (edges.target, declaration.target)
        return _local(end, edges.packet, features.nodes[node_type].group.ptr)

    def _name_codes(self, featured: Featured) -> Ints:
        """Codes of element ids in `names.arrow`, given out in order of appearance."""
        labels = featured.group.names
        if labels is None or (len(labels.codes) and labels.codes.min() < 0):
            raise FeatureError(f"{featured.declaration.family}: expected an id for every element; check its key column")
        used, first = np.unique(labels.codes, return_index=True)
        codes = np.zeros(len(labels.words) + 1, dtype=np.int64)
        for code in used[np.argsort(first)].tolist():
            codes[code] = self._names.setdefault(labels.words[code], len(self._names))
        return codes[labels.codes]

    def finish(self) -> Header:
        """Publish the dataset: all of it or nothing."""
        self._write_arrow("keys.arrow", pa.concat_tables(self._keys) if self._keys else _NO_KEYS.empty_table())
        self._write_arrow("names.arrow", pa.table({"name": pa.array(list(self._names), pa.string())}))
        for sink in self._sinks.values():
            sink.file.close()
        header = Header(
            format=FORMAT,
            version=VERSION,
            declaration=layout.declaration_digest(),
            inputs=self._inputs,
            graphs=self._graphs,
            rows={group.family: int(rows) for group, rows in zip(GROUPS, self._rows, strict=True)},
            files={n: FileRecord(size=s.size, sha256=s.digest.hexdigest()) for n, s in self._sinks.items()},
        )
        (self._workplace / _HEADER).write_text(header.model_dump_json(indent=1) + "\n", encoding="utf-8")
        publish_dir(self._workplace, self._destination)
        return header

    def _write_arrow(self, name: str, table: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        self._sinks[name].write(memoryview(buffer.getvalue()))

    def abandon(self) -> None:
        """Remove what was written so far; nothing once it is published."""
        for sink in self._sinks.values():
            sink.file.close()
        shutil.rmtree(self._workplace, ignore_errors=True)


_NO_KEYS: Final = pa.schema(
    [("training_run_id", pa.string()), ("packet_id", pa.string()), ("timestamp_ns", pa.int64()), ("blueprint_id", pa.string())]
)


def _raw(array: Any) -> bytes | memoryview:
    """The bytes of an array, not copied unless it is empty."""
    return array.data.cast("B") if array.size else b""


def _local(numbers: Ints, packet: Ints, ptr: Ints) -> Ints:
    """Numbers that run through the block, counted from the first of each packet's own."""
    return numbers - ptr[packet]


def _streamed(counts: Ints, group: Ints, width: Ints, parts: list[Any], dtype: str) -> Any:
    """The parts (arrays over all graphs) as one stream, graph by graph."""
    sizes = layout.sizes(counts, group, width)
    places = layout.Places(counts, np.cumsum(sizes) - sizes, group, width)
    stream = np.empty(int(sizes.sum()), dtype=dtype)
    stream[places.indices()] = np.concatenate([np.zeros(0, dtype=dtype), *(part.ravel() for part in parts)])
    return stream


def write_dataset(destination: Path, features: Iterable[FeatureSet] | FeatureSet, inputs: Mapping[str, str]) -> Header:
    """Write the graphs of one feature set, or of a stream of them, as the new directory `destination`.

    `inputs`: digest of everything that they were made from, by name (tables, registries, norms). StorageError where the
    directory exists already.
    """
    writer = DatasetWriter(destination, inputs)
    try:
        for block in [features] if isinstance(features, FeatureSet) else features:
            writer.add(block)
        return writer.finish()
    finally:
        writer.abandon()
