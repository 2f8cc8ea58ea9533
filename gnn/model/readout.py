"""Readouts: what the heads see of the node states, and how answers of a graph's seeds become the graph's answer."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gnn.graph.batch import GraphBatch, GraphStore
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


MASKED_LOGIT = -1e4  # exact in every precision that serves, bfloat16 included, and far below any real logit


def segment_sum(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sums of the rows of `values` [N, ...] by segment number [N]: [count, ...]."""
    return values.new_zeros((count, *values.shape[1:])).index_add_(0, segments, values)


def segment_mean(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Means of the rows of `values` [N, W] by segment number [N]: [count, W], zero where a segment is empty."""
    sizes = torch.bincount(segments, minlength=count).clamp(min=1)
    return segment_sum(values, segments, count) / sizes.to(values.dtype).unsqueeze(1)


def graph_readout(state: dict[str, Tensor], batch: GraphBatch) -> Tensor:
    """[mean of the layer nodes | the context node] of each graph: [G, 2 * out]."""
    layers = segment_mean(state["layer"], batch.node_batch("layer"), batch.num_graphs)
    context = segment_mean(state["context"], batch.node_batch("context"), batch.num_graphs)
    return torch.cat([layers, context], dim=1)


def seed_readout(state: dict[str, Tensor], batch: GraphBatch) -> Tensor:
    """[the seed node | mean of the layers that it monitors] of each seed: [S, 2 * out]."""
    seeds, layers = batch.edge_index[("seed", "monitors", "layer")]
    monitored = segment_mean(state["layer"][layers], seeds, batch.num_nodes("seed"))
    return torch.cat([state["seed"], monitored], dim=1)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """`logits` with `MASKED_LOGIT` where `mask` (bool, same shape) is false."""
    return logits if mask is None else logits.masked_fill(~mask, MASKED_LOGIT)


def pair_log_weights(scores: Tensor, logits: Tensor) -> Tensor:
    """Joint log weight of each (seed, kernel): score + logit, `MASKED_LOGIT` where the kernel is masked. [S, K]."""
    return torch.where(logits <= MASKED_LOGIT, logits, scores.unsqueeze(1) + logits)


def graph_logsumexp(weights: Tensor, segments: Tensor, count: int) -> Tensor:
    """Log-sum-exp over each graph's seeds, kernel by kernel: [S, K] -> [count, K], `MASKED_LOGIT` where nothing is left."""
    top = weights.new_full((count, weights.shape[1]), MASKED_LOGIT)
    top = top.scatter_reduce(0, segments.unsqueeze(1).expand_as(weights), weights.detach(), "amax", include_self=True)
    sums = segment_sum(torch.exp(weights - top[segments]), segments, count)
    return torch.where(top <= MASKED_LOGIT, top, top + torch.log(sums.clamp(min=1e-30)))


def pair_probabilities(weights: Tensor, segments: Tensor, graph_logits: Tensor) -> Tensor:
    """Share of each (seed, kernel) in its graph's policy: [S, K], zero where masked; sums to one per graph with a choice."""
    total = torch.logsumexp(graph_logits, dim=1)[segments].unsqueeze(1)
    return torch.where(weights <= MASKED_LOGIT, torch.zeros_like(weights), torch.exp(weights - total))
