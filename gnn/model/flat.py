"""Flat features of a candidate site, for the baselines: what a model without topology can know of the same graph."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gnn.graph.batch import GraphBatch, GraphStore
from gnn.model.readout import segment_mean
from gnn.model.targets import Floats, Labels
from schemas.features import node_type

ONE_HOT: Final = 24  # ids at or above share the last indicator
MONITORED_IDS: Final = ("layer_type", "activation_type", "gradient_instability")


def flat_features(store: GraphStore, labels: Labels, batch_graphs: int) -> Floats:
    """One row a label [P, F]: means over the graph's layers, the seed, its monitored layers, the context, the optimizer."""
    graphs = labels.graphs().tolist()
    rows: dict[int, Floats] = {}
    for start in range(0, len(graphs), batch_graphs):
        chunk = graphs[start : start + batch_graphs]
        batch = store.batch(chunk)
        sites, offsets = site_features(batch).double().numpy(), batch.ptr["seed"].tolist()
        rows |= {graph: sites[offsets[i] : offsets[i + 1]] for i, graph in enumerate(chunk)}
    width = next(iter(rows.values())).shape[1] if rows else 0
    picked = [rows[graph][seed] for graph, seed in zip(labels.graph.tolist(), labels.seed.tolist(), strict=True)]
    return np.stack(picked) if picked else np.zeros((0, width))


def site_features(batch: GraphBatch) -> Tensor:
    """One row a seed of the batch: float32 [S, F]."""
    count, graph_of = batch.num_graphs, batch.node_batch("seed")
    seeds, layers = batch.edge_index[("seed", "monitors", "layer")]
    watched = torch.cat([batch.x["layer"], _indicators(batch, "layer", MONITORED_IDS)], 1)[layers]
    sizes = torch.stack([torch.log1p(batch.ptr[t].diff().float()) for t in ("layer", "seed", "parameter")], 1)
    optimizer = torch.cat([batch.x["parameter"], _indicators(batch, "parameter", ("optimizer_family",))], 1)
    whole = [
        segment_mean(batch.x["layer"], batch.node_batch("layer"), count),
        segment_mean(batch.x["context"], batch.node_batch("context"), count),
        segment_mean(optimizer, batch.node_batch("parameter"), count),
        sizes,
    ]
    monitored = segment_mean(watched, seeds, batch.num_nodes("seed"))
    return torch.cat([batch.x["seed"], monitored, torch.cat(whole, 1)[graph_of]], dim=1)


def _indicators(batch: GraphBatch, name: str, features: Sequence[str]) -> Tensor:
    names = [feature.name for feature in node_type(name).categorical]
    ids = torch.stack([batch.ids[name][:, names.index(feature)] for feature in features], 1).clamp(max=ONE_HOT - 1)
    return torch.nn.functional.one_hot(ids, ONE_HOT).flatten(1).float()
