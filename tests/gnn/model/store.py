"""A graph store in memory, and a learnable problem on it: the uplift of a kernel depends on the site's own features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.random_graphs import random_batch
from gnn.graph.batch import GraphBatch
from schemas.derived.training import EXAMPLES
from schemas.features import NODE_TYPES, RELATIONS
from schemas.kernels import KERNELS
from schemas.splits import split_of


def join(graphs: Sequence[GraphBatch]) -> GraphBatch:
    """The given graphs as one batch."""
    x, ids, ptr = {}, {}, {}
    offsets: dict[str, list[int]] = {}
    for node in NODE_TYPES:
        sizes = torch.tensor([0] + [g.num_nodes(node.name) for g in graphs]).cumsum(0)
        offsets[node.name] = sizes.tolist()
        ptr[node.name] = torch.cat([sizes[:1]] + [g.ptr[node.name][1:] + sizes[i] for i, g in enumerate(graphs)])
        x[node.name] = torch.cat([g.x[node.name] for g in graphs])
        ids[node.name] = torch.cat([g.ids[node.name] for g in graphs])
    index, attr, edge_ids, edge_ptr = {}, {}, {}, {}
    for r in RELATIONS:
        t = r.triple
        shift = [torch.tensor([[offsets[r.source][i]], [offsets[r.target][i]]]) for i in range(len(graphs))]
        index[t] = torch.cat([g.edge_index[t] + s for g, s in zip(graphs, shift, strict=True)], 1)
        attr[t] = torch.cat([g.edge_attr[t] for g in graphs])
        edge_ids[t] = torch.cat([g.edge_ids[t] for g in graphs])
        edge_ptr[t] = torch.tensor([0] + [g.edge_attr[t].shape[0] for g in graphs]).cumsum(0)
    return GraphBatch(sum(g.num_graphs for g in graphs), x, ids, ptr, index, attr, edge_ids, edge_ptr)


class MemoryStore:
    """Graphs by number; graph i is packet `p-i` of run `run-i`."""

    def __init__(self, graphs: Sequence[GraphBatch]) -> None:
        self.graphs = list(graphs)

    def __len__(self) -> int:
        return len(self.graphs)

    def index_of(self, run: str, packet: str) -> int:
        number = int(packet.removeprefix("p-"))
        if number >= len(self.graphs) or run != f"run-{number}":
            raise KeyError(packet)
        return number

    def element_ids(self, node_type: str, index: int) -> list[str]:
        return [f"{node_type}-{row}" for row in range(self.graphs[index].num_nodes(node_type))]

    def batch(self, indices: Sequence[int]) -> GraphBatch:
        return join([self.graphs[i] for i in indices])


def problem(graphs: int = 24, kernels: int = 6, noise: float = 0.02, seed: int = 0) -> tuple[MemoryStore, pa.Table]:
    """A store and its examples; u of kernel k at a seed is a fixed linear function of the seed's first channels."""
    generator = np.random.default_rng(seed)
    store = MemoryStore([random_batch(1, seed=seed * 1000 + i) for i in range(graphs)])
    slopes = generator.normal(0, 0.08, size=(len(KERNELS), 3))
    rows: list[dict[str, Any]] = []
    for number, graph in enumerate(store.graphs):
        for place in range(graph.num_nodes("seed")):
            site = graph.x["seed"][place, :3].double().numpy()
            for kernel in generator.choice(8, size=kernels, replace=False):
                u = float(slopes[kernel] @ site)
                seen = u + generator.normal(0, noise, size=2)
                rows.append(_row(number, place, int(kernel), u, seen))
    rows.sort(key=lambda r: (r["training_run_id"], r["packet_id"], r["seed_id"], r["kernel"], r["horizon"]))
    return store, pa.Table.from_pylist(rows, schema=EXAMPLES)


def _row(number: int, place: int, kernel: int, u: float, seen: np.ndarray[Any, Any]) -> dict[str, Any]:
    mean, host = float(seen.mean()), f"host-{number}"
    risk = "high" if mean < -0.25 else "medium" if mean < -0.08 else "low" if mean < -0.02 else "none"
    row = {"training_run_id": f"run-{number}", "packet_id": f"p-{number}", "seed_id": f"seed-{place}", "host": host}
    row |= {"kernel": KERNELS[kernel], "horizon": 100, "u": mean, "u_test": u, "se": 0.02, "replicates": 2}
    row |= {"u_first": float(seen[0]), "u_second": float(seen[1]), "risk_class": risk, "layer_id": f"layer-{place}"}
    row |= {"u_test_first": float(seen[0]), "u_test_second": float(seen[1])}
    row |= {"blending_method": "linear", "weight": 250.0, "split": split_of(host)}
    row["by_method"] = [{"method": "linear", "u": mean}] + [{"method": "cosine", "u": mean - 0.05}] * (kernel == 1)
    return row | {"data_set": "digits", "architecture": "mlp"}
