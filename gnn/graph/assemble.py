"""A feature set as one GraphBatch: the same arrays, now tensors (shared storage, nothing computed)."""

import numpy as np
import torch

from gnn.encode.build import FeatureSet
from gnn.graph.batch import GraphBatch, Triple
from schemas.features import NODE_TYPES, RELATIONS


def to_batch(features: FeatureSet) -> GraphBatch:
    """All packets of `features`, in order, as one batch on the CPU."""
    tensor = torch.from_numpy
    index: dict[Triple, torch.Tensor] = {}
    for relation in RELATIONS:
        edges = features.edges[relation.short].group.edges
        if edges is not None:
            ends = np.empty((2, len(edges.source)), dtype=np.int64)
            ends[0], ends[1] = edges.source, edges.target
            index[relation.triple] = tensor(ends)
    return GraphBatch(
        num_graphs=features.size,
        x={node.name: tensor(features.nodes[node.name].encoded.x) for node in NODE_TYPES},
        ids={node.name: tensor(features.nodes[node.name].encoded.ids) for node in NODE_TYPES},
        ptr={node.name: tensor(features.nodes[node.name].group.ptr) for node in NODE_TYPES},
        edge_index=index,
        edge_attr={relation.triple: tensor(features.edges[relation.short].encoded.x) for relation in RELATIONS},
        edge_ids={relation.triple: tensor(features.edges[relation.short].encoded.ids) for relation in RELATIONS},
        edge_ptr={relation.triple: tensor(features.edges[relation.short].group.ptr) for relation in RELATIONS},
    )
