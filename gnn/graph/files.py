"""Write and read the files of a shard of graphs; a shard is written aside, fsynced and renamed, and read if its header fits.

A shard holds the graphs of some training runs in order of run id: `header.json` (format, sizes, SHA-256 of every other file),
the streams `values.bin`, `marks.bin` and `ints.bin` (see `gnn.graph.layout`), `counts.bin` (rows of every group per graph),
`keys.arrow` (one row per graph), `names.arrow` (element ids, run by run) and `runs.arrow` (one row per run). Its content
depends on the runs alone, not on the steps that built it. Nothing in it is code, and nothing is unpickled.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnn.encode.build import Featured, FeatureSet
from gnn.graph import layout
from gnn.join.rows import Bools, Ints, expand, lengths, offsets
from lake.durable.publish import publish_dir
from schemas.errors import FeatureError
from schemas.features import GROUPS, NODE_TYPES, Kind, NodeType

FORMAT: Final = "tamiyo_graphs"
VERSION: Final = 3
FILES: Final = (*(stream.file for stream in layout.STREAMS), "counts.bin", "keys.arrow", "names.arrow", "runs.arrow")
_HEADER: Final = "header.json"


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 (hex) of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Header(BaseModel):
    """`header.json`: what the shard is, and what its files hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: str
    version: int
    declaration: str = Field(description="SHA-256 of the feature declaration.")
    graphs: int = Field(ge=0)
    rows: dict[str, int] = Field(description="Rows per node type and relation.")
    files: dict[str, FileRecord]

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of the shard's content."""
        parts = {name: record.sha256 for name, record in self.files.items()}
        return hashlib.sha256(json.dumps([self.declaration, parts], sort_keys=True).encode("ascii")).hexdigest()


def read_header(directory: Path, *, verify: bool = False) -> Header:
    """Return the checked header of a shard; `verify` checks every byte of its files.

    Raises FeatureError, which lists everything that is not as expected.
    """
    try:
        header = Header.model_validate_json((directory / _HEADER).read_bytes())
    except (OSError, ValidationError) as error:
        raise FeatureError(
            f"{directory}: expected a shard of graphs, found {error}; materialize graphs/dataset again"
        ) from error
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
    faults += [fault for name, record in header.files.items() for fault in _file_faults(directory / name, record, verify)]
    if faults:
        raise FeatureError(f"{directory}: " + "; ".join(faults) + "; materialize graphs/dataset again")
    return header


def _is_sound(directory: Path) -> bool:
    """Return whether every file of a shard has the size and digest that its header names."""
    try:
        read_header(directory, verify=True)
    except FeatureError:
        return False
    return True


def _file_faults(path: Path, record: FileRecord, verify: bool) -> list[str]:
    if path.name not in FILES or path.is_symlink() or not path.is_file():
        return [f"{path.name}: expected a file of the shard, found none"]
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
    """A file that is hashed as it is written."""

    file: BinaryIO
    digest: Any
    size: int = 0

    def write(self, data: bytes | memoryview) -> int:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


class ShardWriter:
    """Writes the graphs of training runs in order of run id, newly encoded or copied from another shard."""

    def __init__(self, parent: Path) -> None:
        """Begin a shard that will become a new directory in `parent`."""
        self._parent = parent
        self._workplace = parent / f".{secrets.token_hex(6)}.tmp"
        self._workplace.mkdir(parents=True)
        self._sinks = {name: _Sink((self._workplace / name).open("wb"), hashlib.sha256()) for name in FILES}
        self._keys: list[pa.Table] = []
        self._names: list[pa.Array] = []
        self._runs: list[pa.Table] = []
        self._rows = np.zeros(len(GROUPS), dtype=np.int64)
        self._graphs = self._named = 0

    def add(self, features: FeatureSet) -> None:
        """Append the graphs of `features`, whose run ids must sort after all that were added before."""
        counts = np.stack([np.diff(featured.group.ptr) for featured in features.groups], axis=1)
        names = RunNames(features, self._named)
        parts: dict[layout.Stream, list[Any]] = {
            layout.VALUES: [featured.encoded.values for featured in features.groups],
            layout.MARKS: [_packed(featured.encoded.marks) for featured in features.groups],
            layout.INTS: [self._integers(features.groups[block.group], block, names) for block in layout.BLOCKS],
        }
        states = features.joined.states
        runs = pa.table([states.runs, states.run_ptr[:-1] + self._graphs, names.first, list(_measured(features))], schema=RUNS)
        streams = {stream.file: _streamed(counts, stream, own) for stream, own in parts.items()}
        self._append(counts, streams, features.keys(), names.words, runs)

    def copy(self, part: "ShardPart") -> None:
        """Append runs of another shard unchanged; their run ids must sort after all that were added before."""
        shift, streams = self._named - part.first_name, dict(part.streams)
        if shift:
            first, lengths = layout.INTS.first(part.counts)[:-1], layout.INTS.lengths(part.counts)
            names = [place for place, block in enumerate(layout.BLOCKS) if block.name == "names"]
            ints = streams[layout.INTS.file] = np.array(streams[layout.INTS.file])
            ints[expand(layout.INTS.starts(part.counts, first)[:, names].ravel(), lengths[:, names].ravel())] += shift
        first_graph, first_name = (part.runs.column(name).to_numpy() for name in ("first_graph", "first_name"))
        moved = [part.runs.column("training_run_id"), first_graph - part.first_graph + self._graphs, first_name + shift]
        runs = pa.table([*moved, part.runs.column("measured")], schema=RUNS)
        self._append(part.counts, {file: [values] for file, values in streams.items()}, part.keys, part.names, runs)

    def _append(
        self, counts: Ints, streams: Mapping[str, Iterable[Any]], keys: pa.Table, names: pa.Array, runs: pa.Table
    ) -> None:
        for file, pieces in streams.items():
            for piece in pieces:
                self._sinks[file].write(_raw(piece))
        self._sinks["counts.bin"].write(_raw(np.ascontiguousarray(counts, dtype="<i4")))
        self._keys.append(keys)
        self._names.append(names)
        self._runs.append(runs)
        self._rows += counts.sum(axis=0)
        self._graphs += len(counts)
        self._named += len(names)

    def _integers(self, featured: Featured, block: layout.Block, names: "RunNames") -> Ints:
        """Return one integer block of all graphs; node and edge numbers count through them."""
        edges, declaration = featured.group.edges, featured.declaration
        if block.name == "ids":
            return featured.encoded.ids
        if isinstance(declaration, NodeType) or edges is None:
            return names.codes[declaration.family]
        if block.name == "order":
            # node numbers count through the packets, so this is the order by packet and source
            return np.argsort(edges.source, kind="stable")
        return edges.source if block.name == "source" else edges.target

    def finish(self) -> tuple[Path, Header]:
        """Publish the shard as the directory named by its digest, in one step; a sound one that already exists stays."""
        self._write_arrow("keys.arrow", pa.concat_tables([_NO_KEYS.empty_table(), *self._keys]))
        names = pa.concat_arrays([pa.array([], pa.string()), *self._names])
        self._write_arrow("names.arrow", pa.table({"name": names}))
        self._write_arrow("runs.arrow", pa.concat_tables([RUNS.empty_table(), *self._runs]))
        for sink in self._sinks.values():
            sink.file.close()
        header = Header(
            format=FORMAT,
            version=VERSION,
            declaration=layout.declaration_digest(),
            graphs=self._graphs,
            rows={group.family: int(rows) for group, rows in zip(GROUPS, self._rows, strict=True)},
            files={n: FileRecord(size=s.size, sha256=s.digest.hexdigest()) for n, s in self._sinks.items()},
        )
        (self._workplace / _HEADER).write_text(header.model_dump_json(indent=1) + "\n", encoding="utf-8")
        destination = self._parent / header.digest
        if destination.exists() and not _is_sound(destination):
            shutil.rmtree(destination)
        if not destination.exists():
            publish_dir(self._workplace, destination)
        return destination, header

    def _write_arrow(self, name: str, table: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        self._sinks[name].write(memoryview(buffer.getvalue()))

    def abandon(self) -> None:
        """Remove the files that were written but not published."""
        for sink in self._sinks.values():
            sink.file.close()
        shutil.rmtree(self._workplace, ignore_errors=True)


RUNS: Final = pa.schema(
    [
        ("training_run_id", pa.string()),
        ("first_graph", pa.int64()),
        ("first_name", pa.int64()),
        ("measured", pa.list_(pa.int64())),  # elements that are measured by the tensors' masks and ids, per coverage key
    ]
)
_NO_KEYS: Final = pa.schema(
    [("training_run_id", pa.string()), ("packet_id", pa.string()), ("timestamp_ns", pa.int64()), ("blueprint_id", pa.string())]
)


_TOGETHER: Final = 64  # graphs that are laid out at once, so that they stay in the CPU cache


def _raw(array: Any) -> bytes | memoryview:
    """Return the bytes of an array, without a copy."""
    return array.data.cast("B") if array.size else b""


def _packed(marks: Bools) -> NDArray[np.uint8]:
    """Return the marks of each row, eight to a byte: uint8 [N, bytes] from bool [N, 8 * bytes]."""
    return np.packbits(marks.ravel()).reshape(len(marks), marks.shape[1] // 8)


def _streamed(counts: Ints, stream: layout.Stream, parts: list[Any]) -> Iterator[Any]:
    """Yield the parts (arrays over all graphs) as one stream, graph by graph: one piece per run of graphs of equal shape.

    Node and edge numbers, which count through all graphs in `parts`, count from 0 in each graph of the stream.
    """
    ptr = np.zeros((len(counts) + 1, counts.shape[1]), dtype=np.int64)
    np.cumsum(counts, axis=0, out=ptr[1:])
    fresh = np.flatnonzero((counts[1:] != counts[:-1]).any(axis=1)) + 1
    for begin, end in pairwise([0, *fresh.tolist(), len(counts)] if len(counts) else [0]):
        sizes = counts[begin, stream.group] * stream.width
        for first in range(begin, end, _TOGETHER):
            last = min(first + _TOGETHER, end)
            piece = np.empty((last - first, int(sizes.sum())), dtype=stream.dtype)
            bounds = (ptr[first, stream.group].tolist(), ptr[last, stream.group].tolist(), offsets(sizes).tolist())
            for part, shift, length, top, bottom, place in zip(parts, stream.shift, sizes.tolist(), *bounds, strict=False):
                if length:
                    own = part[top:bottom].reshape(last - first, length)
                    piece[:, place : place + length] = own if shift is None else own - ptr[first:last, shift, None]
            yield piece


def write_shard(parent: Path, features: Iterable[FeatureSet] | FeatureSet) -> Path:
    """Write the graphs of feature sets, in order of run id, as a new shard in `parent`, and return its directory."""
    writer = ShardWriter(parent)
    try:
        for block in [features] if isinstance(features, FeatureSet) else features:
            writer.add(block)
        return writer.finish()[0]
    finally:
        writer.abandon()


class RunNames:
    """Element ids of a feature set, run by run, then by node type in declared order, sorted within each type.

    `words` holds all ids. `codes` int64 [N] by node type are places in `words`, counted from `start`; `first` int64 [R] is
    the first place of each run.
    """

    def __init__(self, features: FeatureSet, start: int) -> None:
        """Collect the ids of `features`. Raises FeatureError if an element has no id."""
        states = features.joined.states
        runs, found = len(states.runs), []
        counts = np.zeros((runs, len(NODE_TYPES)), dtype=np.int64)
        for place, node in enumerate(NODE_TYPES):
            group = features.nodes[node.name].group
            labels = group.names
            if labels is None or (group.size and labels.codes.min() < 0):
                raise FeatureError(f"{node.family}: expected an id for every element; check its key column")
            span = len(labels.words) + 1
            keys, inverse = _distinct(states.run[group.packet] * span + labels.ranks())
            counts[:, place] = np.bincount(keys // span, minlength=runs)
            found.append((keys // span, np.array(sorted(labels.words), dtype=object)[keys % span], inverse))
        first = offsets(counts.ravel())[:-1].reshape(runs, -1)
        words = np.empty(int(counts.sum()), dtype=object)
        self.codes: dict[str, Ints] = {}
        for place, (run, texts, inverse) in enumerate(found):
            within = np.arange(len(run)) - np.searchsorted(run, run)
            at = first[run, place] + within
            words[at] = texts
            self.codes[NODE_TYPES[place].family] = (at + start)[inverse]
        self.words = pa.array(words, pa.string())
        self.first: Ints = first[:, 0] + start if runs else np.zeros(0, dtype=np.int64)


def _distinct(numbers: Ints) -> tuple[Ints, Ints]:
    """Return the distinct numbers, sorted, and the place of each number among them; only the distinct ones are sorted."""
    coded = pa.array(numbers).dictionary_encode()
    found = coded.dictionary.to_numpy()
    order = np.argsort(found)
    return found[order], np.argsort(order)[coded.indices.to_numpy()]


@dataclass(frozen=True)
class ShardPart:
    """Consecutive runs of a shard: their part of each file, and the numbers of their first graph and name."""

    counts: Ints
    streams: Mapping[str, NDArray[Any]]
    keys: pa.Table
    names: pa.Array
    runs: pa.Table
    first_graph: int
    first_name: int


def _measured(features: FeatureSet) -> NDArray[Any]:
    """Count the elements per run and coverage key that are measured by their mask channel or id: int64 [R, keys]."""
    found, run_ptr = [], features.joined.states.run_ptr
    for featured in features.groups:
        group, encoded, ptr = featured.declaration, featured.encoded, featured.group.ptr[run_ptr]
        ids = np.zeros((len(encoded.ids), -(-encoded.ids.shape[1] // 8) * 8), dtype=np.bool_)
        ids[:, : encoded.ids.shape[1]] = encoded.ids != 0
        skipped = encoded.layout.first_mask // 8 * 8
        masks = _sums(encoded.marks[:, skipped:], ptr)[encoded.layout.first_mask - skipped :]
        sums = [iter(masks), iter(_sums(ids, ptr))]
        found += [next(sums[feature.kind is Kind.CATEGORICAL]) for feature in group.features]
    return np.stack(found, axis=1)


def _sums(marks: Bools, ptr: Ints) -> Ints:
    """Count the marked elements of each run: int64 [8 * n, R] from bool [N, 8 * n]."""
    total = np.zeros((marks.shape[1], len(ptr) - 1), dtype=np.int64)
    filled = np.flatnonzero(lengths(ptr))
    if len(filled) and len(total):
        # eight columns are summed at once, as the bytes of one number, which can't overflow within 255 rows
        pieces = -(-lengths(ptr)[filled] // 255)
        first = expand(np.zeros_like(pieces), pieces) * 255 + ptr[filled].repeat(pieces)
        partial = np.add.reduceat(marks.view(np.uint64), first, axis=0).view(np.uint8)
        total[:, filled] = np.add.reduceat(partial, offsets(pieces)[:-1], axis=0, dtype=np.int64).T
    return total
