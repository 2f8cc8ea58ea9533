"""Hold a batch of heterogeneous graphs as plain tensors, which the dataset and the online builder give to the model.

Layouts come from `schemas.features`: `x` holds the value channels of a node type in declared order, then one mask channel
per valued feature; `ids` holds one int64 column per categorical feature (0 missing, capacity-1 unknown). Only the forward
relations are stored; a reverse relation is the same edges with the two rows swapped and the same attributes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from gnn.graph.plan import Directions, MessagePlan, message_plan
from gnn.graph.plan import Triple as Triple
from gnn.graph.segments import Segments
from schemas.artifacts import REGISTRIES
from schemas.errors import FeatureError
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

Plans = dict[Hashable, Any]
"""What follows from a batch's nodes and edges alone, such as message plans, by a key that names its device."""
_Key = TypeVar("_Key")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Csr:
    """Edges of one direction grouped by the node that receives them.

    `indptr` int64 [N + 1] bounds each node's edges; `neighbours` int64 [E] is the sending node of each edge; `order` int64
    [E] is the column of `edge_index` (row of `edge_attr`) of each edge.
    """

    indptr: Tensor
    neighbours: Tensor
    order: Tensor


@dataclass(frozen=True)
class GraphBatch:
    """`num_graphs` graphs, with node numbers that count through the whole batch.

    Keys of `x`, `ids`, `ptr` are node types, those of `edge_*` are forward triples of `schemas.features.RELATIONS`. Every key
    is present; if a type has no rows, its tensor has the right width and 0 rows. `ptr[t]` and `edge_ptr[r]` (int64 [G + 1])
    bound the rows of each graph. Edges of a relation are ordered by graph, target and source. `reverse_order` (int64 [E] per
    relation), if given, orders them by source; the CSR plan needs it (see `csr`) and sorts the edges if it is None.
    `shared`, if given, keeps the plans of all batches of one graph with the same nodes and edges.
    """

    num_graphs: int
    x: dict[str, Tensor]
    ids: dict[str, Tensor]
    ptr: dict[str, Tensor]
    edge_index: dict[Triple, Tensor]
    edge_attr: dict[Triple, Tensor]
    edge_ids: dict[Triple, Tensor]
    edge_ptr: dict[Triple, Tensor]
    reverse_order: dict[Triple, Tensor] | None = None
    shared: Plans | None = field(default=None, repr=False, compare=False)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "GraphBatch":
        return replace(
            self,
            x={k: change(v) for k, v in self.x.items()},
            ids={k: change(v) for k, v in self.ids.items()},
            ptr={k: change(v) for k, v in self.ptr.items()},
            edge_index={k: change(v) for k, v in self.edge_index.items()},
            edge_attr={k: change(v) for k, v in self.edge_attr.items()},
            edge_ids={k: change(v) for k, v in self.edge_ids.items()},
            edge_ptr={k: change(v) for k, v in self.edge_ptr.items()},
            reverse_order=None if self.reverse_order is None else {k: change(v) for k, v in self.reverse_order.items()},
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "GraphBatch":
        """Return the same batch on `device`: this batch itself if it is there."""
        if self.edge_index[RELATIONS[0].triple].device == torch.device(device):
            return self
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "GraphBatch":
        """Return the same batch in page-locked host memory where CUDA is present, else this batch itself."""
        return self._map(Tensor.pin_memory) if torch.cuda.is_available() else self

    def num_nodes(self, node_type: str) -> int:
        """Return the number of nodes of that type in the whole batch."""
        return int(self.x[node_type].shape[0])

    def node_batch(self, node_type: str) -> Tensor:
        """Return the graph number of each node of that type: int64 [N]; computed once per batch."""
        found = self._node_batches.get(node_type)
        if found is None:
            ptr, rows = self.ptr[node_type], self.num_nodes(node_type)
            if self.num_graphs == 1:
                found = ptr.new_zeros(rows)
            else:
                graphs = torch.arange(self.num_graphs, device=ptr.device)
                found = torch.repeat_interleave(graphs, ptr.diff(), output_size=rows)
            self._node_batches[node_type] = found
        return found

    @cached_property
    def _node_batches(self) -> dict[str, Tensor]:
        return {}

    def graphs_of(self, node_type: str) -> Segments:
        """Return the nodes of that type as segments, one for each graph."""
        return self.follows(("graphs", node_type), lambda: Segments(self.node_batch(node_type), self.num_graphs))

    def nodes_at(self, triple: Triple) -> Segments:
        """Return the edges of that relation as segments, one for each node that they come from."""
        return self.follows(("nodes", triple), lambda: Segments(self.edge_index[triple][0], self.num_nodes(triple[0])))

    @cached_property
    def csr(self) -> dict[Triple, Csr]:
        """The CSR plan of every relation and every reverse, keyed by its triple; computed once per batch."""
        plan = {}
        for relation in RELATIONS:
            source, target = self.edge_index[relation.triple]
            stored = None if self.reverse_order is None else self.reverse_order[relation.triple]
            ordered = None if stored is None else torch.arange(len(stored), device=stored.device)
            plan[relation.triple] = _csr(source, target, self.num_nodes(relation.target), ordered)
            plan[relation.reverse] = _csr(target, source, self.num_nodes(relation.source), stored)
        return plan

    @cached_property
    def _plans(self) -> Plans:
        return {} if self.shared is None else self.shared

    def follows(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what `make` makes from the numbers of nodes, the edges and their device; computed once per batch."""
        whole = key, self.edge_index[RELATIONS[0].triple].device
        if whole not in self._plans:
            with torch.inference_mode(False):  # what is kept must also serve training
                self._plans[whole] = make()
        found: _T = self._plans[whole]
        return found

    def plan(self, directions: Directions, *, rows_of_lot: int | None = None) -> MessagePlan:
        """Return the message plan of `directions`; computed once per batch, with the `rows_of_lot` of the first call."""

        def make() -> MessagePlan:
            nodes = {node.name: self.num_nodes(node.name) for node in NODE_TYPES}
            return message_plan(nodes, self.edge_index, directions, reverse_order=self.reverse_order, rows_of_lot=rows_of_lot)

        return self.follows(directions.receivers, make)

    def hetero_data(self) -> "HeteroData":
        """Return a PyG view with each reverse as an edge type of its own; it shares storage with this batch."""
        from torch_geometric.data import HeteroData

        data = HeteroData()
        for node in NODE_TYPES:
            store = data[node.name]
            store.x, store.ids, store.ptr = self.x[node.name], self.ids[node.name], self.ptr[node.name]
            store.batch = self.node_batch(node.name)
            store.num_nodes = self.num_nodes(node.name)
        for relation in RELATIONS:
            forward = self.edge_index[relation.triple]
            for triple, index in ((relation.triple, forward), (relation.reverse, forward.flip(0))):
                data[triple].edge_index = index
                data[triple].edge_attr = self.edge_attr[relation.triple]
                data[triple].edge_ids = self.edge_ids[relation.triple]
        return data

    def validate(self) -> None:
        """Check widths, dtypes, offsets and ranges against the declaration.

        Raises FeatureError, which names every fault.
        """
        faults: list[str] = []
        for node in NODE_TYPES:
            rows = self.num_nodes(node.name)
            faults += _layout_faults(node.name, node, self.x[node.name], self.ids[node.name])
            faults += _offset_faults(f"{node.name}.ptr", self.ptr[node.name], self.num_graphs, rows)
        for relation in RELATIONS:
            faults += self._relation_faults(relation.triple, relation)
        if faults:
            raise FeatureError("graph batch breaks its layout: " + "; ".join(faults) + ". Rebuild it from the dataset.")

    def _relation_faults(self, triple: Triple, group: FeatureGroup) -> list[str]:
        index, name = self.edge_index[triple], "/".join(triple)
        faults = _layout_faults(name, group, self.edge_attr[triple], self.edge_ids[triple])
        if index.dtype != torch.int64 or index.ndim != 2 or index.shape[0] != 2:
            return [*faults, f"{name}: edge_index expected int64 [2, E], found {index.dtype} {list(index.shape)}"]
        if index.shape[1] != self.edge_attr[triple].shape[0]:
            faults.append(f"{name}: {index.shape[1]} edges but {self.edge_attr[triple].shape[0]} rows of edge_attr")
        for row, node in zip(index, (triple[0], triple[2]), strict=True):
            if row.numel() and (int(row.min()) < 0 or int(row.max()) >= self.num_nodes(node)):
                faults.append(f"{name}: an end outside the {self.num_nodes(node)} nodes of {node}")
        return faults + _offset_faults(f"{name}.edge_ptr", self.edge_ptr[triple], self.num_graphs, index.shape[1])


def joined(batches: Sequence[GraphBatch]) -> GraphBatch:
    """Join one or more batches into one batch of all their graphs, in order; the edges are sorted again for a plan."""

    def rows(parts: Sequence[dict[_Key, Tensor]]) -> dict[_Key, Tensor]:
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def offsets(parts: Sequence[dict[_Key, Tensor]]) -> dict[_Key, Tensor]:
        counts = rows([{key: ptr.diff() for key, ptr in part.items()} for part in parts])
        return {key: torch.cat([count.new_zeros(1), count.cumsum(0)]) for key, count in counts.items()}

    def moved(triple: Triple) -> Tensor:
        source, target = ([0, *accumulate(batch.num_nodes(name) for batch in batches)] for name in (triple[0], triple[2]))
        shifts = torch.tensor([source[:-1], target[:-1]], device=batches[0].edge_index[triple].device).unsqueeze(2)
        return torch.cat([batch.edge_index[triple] + shifts[:, place] for place, batch in enumerate(batches)], dim=1)

    return GraphBatch(
        num_graphs=sum(batch.num_graphs for batch in batches),
        x=rows([batch.x for batch in batches]),
        ids=rows([batch.ids for batch in batches]),
        ptr=offsets([batch.ptr for batch in batches]),
        edge_index={triple: moved(triple) for triple in batches[0].edge_index},
        edge_attr=rows([batch.edge_attr for batch in batches]),
        edge_ids=rows([batch.edge_ids for batch in batches]),
        edge_ptr=offsets([batch.edge_ptr for batch in batches]),
    )


class GraphIndex(Protocol):
    """Find graph numbers by packet, and the ids of a graph's nodes."""

    def __len__(self) -> int: ...
    def index_of(self, run: str, packet: str) -> int:
        """Return the number of that packet's graph. Raises KeyError if there is none."""

    def element_ids(self, node_type: str, index: int) -> Sequence[str]:
        """Return the ids of the nodes of that type in graph `index`, in row order."""


class GraphStore(GraphIndex, Protocol):
    """Graphs by number: the graph dataset, or a wrapper that scales its batches."""

    def batch(self, indices: Sequence[int]) -> GraphBatch:
        """Return the graphs at `indices`, in that order, as one batch."""


def _csr(senders: Tensor, receivers: Tensor, rows: int, order: Tensor | None) -> Csr:
    if order is None:
        order = torch.argsort(receivers, stable=True)
    counts = torch.bincount(receivers, minlength=rows)
    return Csr(indptr=torch.cat([counts.new_zeros(1), counts.cumsum(0)]), neighbours=senders[order], order=order)


def _layout_faults(name: str, group: FeatureGroup, values: Tensor, ids: Tensor) -> list[str]:
    faults = []
    for label, tensor, dtype, width in (
        ("values", values, torch.float32, group.width),
        ("ids", ids, torch.int64, len(group.categorical)),
    ):
        if tensor.dtype != dtype or tensor.ndim != 2 or tensor.shape[1] != width or tensor.shape[0] != values.shape[0]:
            faults.append(
                f"{name}: {label} expected {dtype} [{values.shape[0]}, {width}], found {tensor.dtype} {list(tensor.shape)}"
            )
    capacities = torch.tensor([REGISTRIES[str(feature.registry)].capacity for feature in group.categorical], device=ids.device)
    if not faults and bool(((ids < 0) | (ids >= capacities)).any()):
        faults.append(f"{name}: an id outside the capacity of its registry")
    return faults


def _offset_faults(name: str, ptr: Tensor, graphs: int, rows: int) -> list[str]:
    sound = ptr.dtype == torch.int64 and ptr.shape == (graphs + 1,) and int(ptr[0]) == 0 and int(ptr[-1]) == rows
    if sound and bool((ptr.diff() >= 0).all()):
        return []
    return [f"{name}: expected int64 offsets [{graphs + 1}] from 0 to {rows}, found {ptr.dtype} {list(ptr.shape)}"]
