"""Read the graph dataset: every graph of a build in memory-mapped shards, one per run bucket, with random access by batch.

`graphs/<bucket>/<digest>/` is a shard (see `gnn.graph.files`). It never changes: new content goes into a new directory.
`graphs/current.json` names the current shard of each bucket and is replaced as a whole.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from gnn.encode.encoding import LAYOUTS
from gnn.graph import layout
from gnn.graph.batch import GraphBatch, Triple
from gnn.graph.files import Header, ShardPart, read_header
from gnn.join.rows import Ints, expand, offsets
from lake.durable.strict_json import read_object
from schemas.errors import FeatureError
from schemas.features import GROUPS, NODE_TYPES, RELATIONS

GRAPHS: Final = "graphs"
CURRENT: Final = "current.json"
_TYPES: Final = {node.name: place for place, node in enumerate(NODE_TYPES)}
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Shard:
    """The open files of one bucket's graphs: read-only, memory-mapped, cheap to open."""

    def __init__(self, directory: Path, header: Header) -> None:
        """Map the files in `directory`; call `Shard.open` instead, which checks them."""
        self.directory = directory
        self.header = header
        self.counts: Ints = np.asarray(_mapped(directory / "counts.bin", "<i4"), dtype=np.int64).reshape(-1, len(GROUPS))
        self.streams = {stream.file: _mapped(directory / stream.file, stream.dtype) for stream in layout.STREAMS}
        self.first = {stream.file: stream.first(self.counts) for stream in layout.STREAMS}
        self.keys: pa.Table = _arrow(directory / "keys.arrow")
        self.runs: pa.Table = _arrow(directory / "runs.arrow")

    @classmethod
    def open(cls, directory: Path, *, verify: bool = False) -> "Shard":
        """Open a shard; `verify` checks every byte. Raises FeatureError, which lists what differs."""
        return cls(directory, read_header(directory, verify=verify))

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self.counts)

    @cached_property
    def names(self) -> pa.Array:
        """The element ids, run by run."""
        return _arrow(self.directory / "names.arrow").column("name").combine_chunks()

    @cached_property
    def run_ids(self) -> list[str]:
        """The training runs, in order of run id."""
        found: list[str] = self.runs.column("training_run_id").to_pylist()
        return found

    def part(self, first_run: int, last_run: int) -> ShardPart:
        """Return the graphs of runs `first_run`..`last_run` - 1 (numbers in `run_ids`)."""
        graphs = [*self.runs.column("first_graph").to_pylist(), len(self)]
        names = [*self.runs.column("first_name").to_pylist(), len(self.names)]
        begin, end = graphs[first_run], graphs[last_run]
        return ShardPart(
            counts=self.counts[begin:end],
            streams={file: self.streams[file][first[begin] : first[end]] for file, first in self.first.items()},
            keys=self.keys.slice(begin, end - begin),
            names=self.names[names[first_run] : names[last_run]],
            runs=self.runs.slice(first_run, last_run - first_run),
            first_graph=begin,
            first_name=names[first_run],
        )

    def measured(self) -> Ints:
        """Return the number of measured elements per coverage key, by the tensors' masks and ids: int64 [keys]."""
        column = self.runs.column("measured").combine_chunks()
        per_run: Ints = np.asarray(column.flatten(), dtype=np.int64).reshape(self.runs.num_rows, -1)
        return np.asarray(per_run.sum(axis=0))


class GraphDataset:
    """Shards as one sequence of graphs, bucket after bucket."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Join open shards; call `GraphDataset.open` or `.of` instead, which open them."""
        self.shards = tuple(shards)
        self._first = offsets(np.array([len(shard) for shard in self.shards], dtype=np.int64))
        self.keys: pa.Table = pa.concat_tables([_NO_KEYS, *(shard.keys for shard in self.shards)])

    def __reduce__(self) -> tuple[Callable[[Sequence[Path]], "GraphDataset"], tuple[list[Path]]]:
        """Pickle the directories alone, so that another process opens the same files instead of receiving a copy."""
        return GraphDataset.of, ([shard.directory for shard in self.shards],)

    @classmethod
    def of(cls, directories: Sequence[Path], *, verify: bool = False) -> "GraphDataset":
        """Open shards in the given order; `verify` checks every byte. Raises FeatureError if one is damaged."""
        return cls([Shard.open(directory, verify=verify) for directory in directories])

    @classmethod
    def open(cls, home: Path, pin: Mapping[str, str] | None = None, *, verify: bool = False) -> "GraphDataset":
        """Open the shards that `graphs/current.json` of a home names, or those of `pin`, a build's bucket -> digest."""
        chosen = current_shards(home) if pin is None else pin
        return cls.of([home / GRAPHS / bucket / chosen[bucket] for bucket in sorted(chosen, key=int)], verify=verify)

    def __len__(self) -> int:
        """Return the number of graphs."""
        return int(self._first[-1])

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        runs, packets = self.keys.column("training_run_id").to_pylist(), self.keys.column("packet_id").to_pylist()
        return {key: place for place, key in enumerate(zip(runs, packets, strict=True))}

    def index_of(self, run: str, packet: str) -> int:
        """Return the number of that packet's graph; if the id occurs at several times, the newest one's.

        Raises KeyError if there is none.
        """
        return self._places[run, packet]

    def find(self, packet: str, run: str | None = None) -> list[int]:
        """Return the graph numbers of that packet id, in one run or in all; the id `newest` stands for the newest packet."""
        if packet == "newest" and len(self):
            return [int(np.argmax(self.keys.column("timestamp_ns").to_numpy()))]
        return [place for (own, name), place in self._places.items() if name == packet and run in (None, own)]

    def element_ids(self, node_type: str, index: int) -> list[str]:
        """Return the ids of the nodes of that type in graph `index`, in row order; a context node's id is the packet's."""
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        shard, own = self.shards[number], slice(index - int(self._first[number]), index - int(self._first[number]) + 1)
        group = _TYPES[node_type]
        block = next(place for place, b in enumerate(layout.BLOCKS) if b.group == group and b.name == "names")
        start = int(layout.INTS.starts(shard.counts[own], shard.first[layout.INTS.file][own])[0, block])
        codes = shard.streams[layout.INTS.file][start : start + int(shard.counts[own, group][0])].astype(np.int64)
        return [str(name) for name in shard.names.take(pa.array(codes)).to_pylist()]

    def batch(self, indices: Sequence[int] | Ints) -> GraphBatch:
        """Return the graphs at `indices`, in that order, as one batch on the CPU, with `reverse_order`.

        `log_z` channels are not scaled.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise FeatureError(f"graph dataset: expected graph numbers 0..{len(self) - 1}, found {sorted(set(chosen))[-1]}")
        owner = np.searchsorted(self._first, chosen, side="right") - 1
        local = chosen - self._first[owner]
        counts = np.zeros((len(chosen), len(GROUPS)), dtype=np.int64)
        owned = [(self.shards[number], np.flatnonzero(owner == number)) for number in np.unique(owner).tolist()]
        for shard, own in owned:
            counts[own] = shard.counts[local[own]]
        ptr = np.zeros((len(GROUPS), len(chosen) + 1), dtype=np.int64)
        np.cumsum(counts.T, axis=1, out=ptr[:, 1:])
        pieces = [(shard, own, local[own]) for shard, own in owned]
        return _assembled(_channels(pieces, counts, ptr), _integers(pieces, counts, ptr), ptr)


_Pieces = list[tuple[Shard, Ints, Ints]]  # a shard, places in the batch, and graph numbers in the shard
_NO_KEYS: Final = pa.schema(
    [("training_run_id", pa.string()), ("packet_id", pa.string()), ("timestamp_ns", pa.int64()), ("blueprint_id", pa.string())]
).empty_table()


def current_shards(home: Path) -> dict[str, str]:
    """Return bucket -> digest of its current shard; {} if nothing is published. Raises FeatureError if the file is damaged."""
    path = home / GRAPHS / CURRENT
    if not path.exists():
        return {}
    found = read_object(path, FeatureError)
    wrong = {b: d for b, d in found.items() if not b.isdecimal() or not isinstance(d, str) or not _DIGEST.fullmatch(d)}
    if wrong:
        raise FeatureError(f"{path}: expected bucket numbers and digests, found {wrong}; materialize graphs/dataset again")
    return {bucket: str(digest) for bucket, digest in found.items()}


def _gathered(pieces: _Pieces, parts: list[int], lengths: Ints, stream: layout.Stream) -> NDArray[Any]:
    """Return the values of `parts` of a stream, part by part, graph by graph; `lengths` int64 [parts, G] are their sizes."""
    starts = np.cumsum(lengths.ravel()).reshape(lengths.shape) - lengths
    found = np.empty(int(lengths.sum()), dtype=stream.dtype)
    for shard, own, local in pieces:
        at = stream.starts(shard.counts[local], shard.first[stream.file][local])[:, parts].T
        picked = shard.streams[stream.file][expand(at.ravel(), lengths[:, own].ravel())]
        if len(pieces) == 1:
            return picked
        found[expand(starts[:, own].ravel(), lengths[:, own].ravel())] = picked
    return found


def _channels(pieces: _Pieces, counts: Ints, ptr: Ints) -> list[torch.Tensor]:
    """Return `x` or `edge_attr` of each group: float32 [N, width]."""
    everything, found = list(range(len(GROUPS))), []
    lengths = [stream.lengths(counts).T for stream in (layout.VALUES, layout.MARKS)]
    values = _gathered(pieces, everything, lengths[0], layout.VALUES)
    marks = np.unpackbits(_gathered(pieces, everything, lengths[1], layout.MARKS))
    at, marks_at = (offsets(each.sum(axis=1)).tolist() for each in lengths)
    for place, group in enumerate(GROUPS):
        own, size = LAYOUTS[group.family], int(ptr[place, -1])
        numbers = values[at[place] : at[place + 1]].reshape(size, own.value_width)
        bits = marks[8 * marks_at[place] : 8 * marks_at[place + 1]].reshape(size, own.mark_width)
        found.append(torch.from_numpy(own.channels(numbers, bits)))
    return found


def _integers(pieces: _Pieces, counts: Ints, ptr: Ints) -> dict[tuple[int, str], torch.Tensor]:
    """Return every integer block except the names, with each graph's first number in the batch added."""
    used = [place for place, block in enumerate(layout.BLOCKS) if block.name != "names"]
    lengths = layout.INTS.lengths(counts)[:, used].T
    shift = np.zeros_like(lengths)
    for row, place in enumerate(used):
        base = layout.INTS.shift[place]
        if base is not None:
            shift[row] = ptr[base, :-1]
    values = _gathered(pieces, used, lengths, layout.INTS).astype(np.int64)
    values += np.repeat(shift.ravel(), lengths.ravel())
    whole, bounds = torch.from_numpy(values), offsets(lengths.sum(axis=1))
    found = {}
    for row, place in enumerate(used):
        block = layout.BLOCKS[place]
        part = whole[bounds[row] : bounds[row + 1]]
        found[block.group, block.name] = part.view(int(ptr[block.group, -1]), block.width) if block.name == "ids" else part
    return found


def _assembled(x: list[torch.Tensor], ints: dict[tuple[int, str], torch.Tensor], ptr: Ints) -> GraphBatch:
    offsets_of = torch.from_numpy(ptr)
    nodes, edges = len(NODE_TYPES), range(len(NODE_TYPES), len(GROUPS))
    triples: list[Triple] = [relation.triple for relation in RELATIONS]
    return GraphBatch(
        num_graphs=ptr.shape[1] - 1,
        x={node.name: x[place] for place, node in enumerate(NODE_TYPES)},
        ids={node.name: ints[place, "ids"] for place, node in enumerate(NODE_TYPES)},
        ptr={node.name: offsets_of[place] for place, node in enumerate(NODE_TYPES)},
        edge_index={t: torch.stack([ints[p, "source"], ints[p, "target"]]) for t, p in zip(triples, edges, strict=True)},
        edge_attr=dict(zip(triples, x[nodes:], strict=True)),
        edge_ids={t: ints[p, "ids"] for t, p in zip(triples, edges, strict=True)},
        edge_ptr={t: offsets_of[p] for t, p in zip(triples, edges, strict=True)},
        reverse_order={t: ints[p, "order"] for t, p in zip(triples, edges, strict=True)},
    )


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()
