"""Make random graph batches for the model's tests: any sizes, empty types and relations included."""

import torch

from gnn.graph.batch import GraphBatch
from schemas.artifacts import REGISTRIES
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup

SIZES = {"layer": 5, "seed": 3, "activation": 4, "parameter": 2, "blueprint": 2, "context": 1}


def _values(group: FeatureGroup, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(rows, group.width, generator=generator)
    highs = [REGISTRIES[str(f.registry)].capacity for f in group.categorical]
    columns = [torch.randint(0, high, (rows,), generator=generator) for high in highs]
    return values, torch.stack(columns, 1) if columns else torch.zeros(rows, 0, dtype=torch.int64)


def random_batch(
    graphs: int = 2,
    seed: int = 0,
    sizes: dict[str, int] | None = None,
    edges: int = 6,
    without: tuple[str, ...] = (),
) -> GraphBatch:
    """`graphs` graphs of the given node counts and `edges` edges a relation, none in the relations named `without`."""
    generator = torch.Generator().manual_seed(seed)
    count = SIZES | (sizes or {})
    x, ids, ptr = {}, {}, {}
    for node in NODE_TYPES:
        x[node.name], ids[node.name] = _values(node, graphs * count[node.name], generator)
        ptr[node.name] = torch.arange(graphs + 1) * count[node.name]
    edge_index, edge_attr, edge_ids, edge_ptr = {}, {}, {}, {}
    for relation in RELATIONS:
        possible = count[relation.source] and count[relation.target] and relation.short not in without
        each = edges if possible else 0
        parts = []
        for graph in range(graphs):
            rows = [
                torch.randint(0, max(count[end], 1), (each,), generator=generator) + graph * count[end]
                for end in (relation.source, relation.target)
            ]
            parts.append(torch.stack(rows))
        edge_index[relation.triple] = torch.cat(parts, 1)
        edge_attr[relation.triple], edge_ids[relation.triple] = _values(relation, graphs * each, generator)
        edge_ptr[relation.triple] = torch.arange(graphs + 1) * each
    return GraphBatch(graphs, x, ids, ptr, edge_index, edge_attr, edge_ids, edge_ptr)
