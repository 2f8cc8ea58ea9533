"""Synthetic random batches with the declared layout, for tests of the model and of the batch itself."""

import torch

from gnn.graph.batch import GraphBatch, Triple
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup


def _columns(group: FeatureGroup, rows: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(rows, group.value_width, generator=random)
    masks = torch.randint(0, 2, (rows, len(group.valued)), generator=random).float()
    ids = torch.randint(0, 8, (rows, len(group.categorical)), generator=random)
    return torch.cat([values, masks], 1), ids


def _offsets(counts: list[int]) -> torch.Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def random_batch(num_graphs: int = 3, seed: int = 0, nodes: int = 6, edges: int = 10) -> GraphBatch:
    """`num_graphs` random graphs: 0..`nodes` nodes of a type (1 context, at least 1 layer), 0..`edges` edges of a relation."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=random))

    x, ids, ptr = {}, {}, {}
    for node in NODE_TYPES:
        low = {"layer": 1, "context": 1}.get(node.name, 0)
        counts = [1 if node.name == "context" else draw(low, nodes) for _ in range(num_graphs)]
        ptr[node.name] = _offsets(counts)
        x[node.name], ids[node.name] = _columns(node, sum(counts), random)
    index: dict[Triple, torch.Tensor] = {}
    attr: dict[Triple, torch.Tensor] = {}
    edge_ids: dict[Triple, torch.Tensor] = {}
    edge_ptr: dict[Triple, torch.Tensor] = {}
    for relation in RELATIONS:
        parts = []
        for graph in range(num_graphs):
            first_source, first_target = int(ptr[relation.source][graph]), int(ptr[relation.target][graph])
            sources = int(ptr[relation.source][graph + 1]) - first_source
            targets = int(ptr[relation.target][graph + 1]) - first_target
            pairs = torch.randperm(sources * targets, generator=random)[: draw(0, edges)].sort().values
            width = max(sources, 1)
            parts.append(torch.stack([pairs % width + first_source, pairs // width + first_target]))
        index[relation.triple] = torch.cat(parts, 1)
        edge_ptr[relation.triple] = _offsets([part.shape[1] for part in parts])
        attr[relation.triple], edge_ids[relation.triple] = _columns(relation, index[relation.triple].shape[1], random)
    return GraphBatch(num_graphs, x, ids, ptr, index, attr, edge_ids, edge_ptr)
