"""The graph dataset: every graph of a build in two memory-mapped streams, with random access by batches.

A directory holds `header.json` (format, layout, inputs, size and SHA-256 of every other file), `floats.bin`, `ints.bin`,
`counts.bin` (rows of every group per graph), `keys.arrow` (one row a graph) and `names.arrow` (element ids). It never
changes: another set of inputs is another directory. Nothing in it is code, and nothing is unpickled.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from gnn.graph import layout
from gnn.graph.batch import GraphBatch, Triple
from gnn.graph.files import Header, read_header, write_dataset
from gnn.join.rows import Ints, expand, offsets
from schemas.errors import FeatureError
from schemas.features import GROUPS, NODE_TYPES, RELATIONS

_TYPES: Final = {node.name: place for place, node in enumerate(NODE_TYPES)}


class GraphDataset:
    """An open dataset: read-only, memory-mapped, cheap to open."""

    def __init__(self, directory: Path, header: Header) -> None:
        """Use `GraphDataset.open`."""
        self.directory = directory
        self.header = header
        self._floats = _mapped(directory / "floats.bin", "<f4")
        self._ints = _mapped(directory / "ints.bin", "<i4")
        self.counts: Ints = np.asarray(_mapped(directory / "counts.bin", "<i4"), dtype=np.int64).reshape(-1, len(GROUPS))
        self._float_first = offsets(layout.sizes(self.counts, layout.FLOAT_GROUP, layout.FLOAT_WIDTH))
        self._int_first = offsets(layout.sizes(self.counts, layout.BLOCK_GROUP, layout.BLOCK_WIDTH))
        self.keys: pa.Table = _arrow(directory / "keys.arrow")
        self._names = _arrow(directory / "names.arrow").column("name").combine_chunks()

    def __reduce__(self) -> tuple[Callable[[Path], "GraphDataset"], tuple[Path]]:
        """Another process opens the same files instead of getting a copy of them."""
        return GraphDataset.open, (self.directory,)

    @classmethod
    def open(cls, directory: Path, *, inputs: Mapping[str, str] | None = None, verify: bool = False) -> "GraphDataset":
        """Open a dataset; `inputs` are the digests that it must have been made from, `verify` reads every byte.

        Raises FeatureError that says what differs: format, declaration, inputs, sizes or digests.
        """
        return cls(directory, read_header(directory, inputs=inputs, verify=verify))

    def __len__(self) -> int:
        """Number of graphs."""
        return len(self.counts)

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        runs, packets = self.keys.column("training_run_id").to_pylist(), self.keys.column("packet_id").to_pylist()
        return {key: place for place, key in enumerate(zip(runs, packets, strict=True))}

    def index_of(self, run: str, packet: str) -> int:
        """Number of that packet's graph (of several times of one id, the newest); KeyError where there is none."""
        return self._places[run, packet]

    def find(self, packet: str, run: str | None = None) -> list[int]:
        """Numbers of the graphs of that packet id, in one run or in all; `newest` is the newest packet of all."""
        if packet == "newest" and len(self):
            return [int(np.argmax(self.keys.column("timestamp_ns").to_numpy()))]
        return [place for (own, name), place in self._places.items() if name == packet and run in (None, own)]

    def element_ids(self, node_type: str, index: int) -> list[str]:
        """Ids of the nodes of that type in graph `index`, in row order; the context's is the packet's id."""
        group = _TYPES[node_type]
        block = next(place for place, b in enumerate(layout.BLOCKS) if b.group == group and b.name == "names")
        counts = self.counts[index : index + 1]
        places = layout.Places(counts, self._int_first[index : index + 1], layout.BLOCK_GROUP, layout.BLOCK_WIDTH)
        start, length = int(places.starts[block, 0]), int(places.lengths[block, 0])
        codes = np.asarray(self._ints[start : start + length], dtype=np.int64)
        return [str(name) for name in self._names.take(pa.array(codes)).to_pylist()]

    def batch(self, indices: Sequence[int] | Ints) -> GraphBatch:
        """Those graphs, in that order, as one batch on the CPU, CSR plan included."""
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise FeatureError(f"{self.directory}: expected graph numbers 0..{len(self) - 1}, found {sorted(set(chosen))[-1]}")
        counts = self.counts[chosen]
        ptr = np.zeros((len(GROUPS), len(chosen) + 1), dtype=np.int64)
        np.cumsum(counts.T, axis=1, out=ptr[:, 1:])
        x = self._gather_floats(chosen, counts, ptr)
        ints = self._gather_ints(chosen, counts, ptr)
        return _assembled(x, ints, ptr)

    def _gather_floats(self, chosen: Ints, counts: Ints, ptr: Ints) -> list[torch.Tensor]:
        places = layout.Places(counts, self._float_first[chosen], layout.FLOAT_GROUP, layout.FLOAT_WIDTH)
        values = torch.from_numpy(self._floats[places.indices()])
        bounds = places.bounds()
        return [
            values[bounds[place] : bounds[place + 1]].view(int(ptr[place, -1]), group.width)
            for place, group in enumerate(GROUPS)
        ]

    def _gather_ints(self, chosen: Ints, counts: Ints, ptr: Ints) -> dict[tuple[int, str], torch.Tensor]:
        """Every integer block but the names, with the graphs' first numbers in the batch added."""
        used = [place for place, block in enumerate(layout.BLOCKS) if block.name != "names"]
        places = layout.Places(counts, self._int_first[chosen], layout.BLOCK_GROUP, layout.BLOCK_WIDTH)
        starts, lengths = places.starts[used], places.lengths[used]
        shift = np.zeros_like(starts)
        for row, place in enumerate(used):
            base = layout.BLOCKS[place].shift
            if base is not None:
                shift[row] = ptr[base, :-1]
        values = self._ints[expand(starts.ravel(), lengths.ravel())].astype(np.int64)
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


def newest_dataset(directory: Path) -> Path | None:
    """The dataset that `<directory>/current` names, or None before the first one."""
    link = directory / "current"
    return link.resolve() if link.exists() else None


__all__ = ["GraphDataset", "newest_dataset", "write_dataset"]
