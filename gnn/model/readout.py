"""Read out node states for the heads, and combine the outputs of a graph's seeds into outputs of the graph."""

import torch
from torch import Tensor

from gnn.graph.batch import GraphBatch
from gnn.graph.segments import Segments
from gnn.model.site import MONITORS
from gnn.model.states import States

MASKED_LOGIT = -1e4  # exact in every precision that serves, bfloat16 included, and far below any real logit


def graph_readout(state: States, batch: GraphBatch) -> Tensor:
    """Return [mean of the layer nodes | the context node] of each graph: [G, 2 * out]."""
    return torch.cat([batch.graphs_of(name).mean(state[name]) for name in ("layer", "context")], dim=1)


def seed_readout(state: States, batch: GraphBatch) -> Tensor:
    """Return [the seed node | mean of the layers that it monitors] of each seed: [S, 2 * out]."""
    monitored = batch.nodes_at(MONITORS).mean(state["layer"].index_select(0, batch.edge_index[MONITORS][1]))
    return torch.cat([state["seed"], monitored], dim=1)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return `logits` with `MASKED_LOGIT` wherever `mask` (bool, same shape) is false."""
    return logits if mask is None else logits.masked_fill(~mask, MASKED_LOGIT)


def pair_log_weights(scores: Tensor, logits: Tensor) -> Tensor:
    """Return the joint log weight of each (seed, kernel), [S, K]: score + logit, `MASKED_LOGIT` if the kernel is masked."""
    return torch.where(logits <= MASKED_LOGIT, logits, scores.unsqueeze(1) + logits)


def graph_logsumexp(weights: Tensor, seeds: Segments) -> Tensor:
    """Take the log-sum-exp over each graph's seeds, by kernel: [S, K] -> [count, K], `MASKED_LOGIT` if all are masked."""
    top = seeds.highest(weights, MASKED_LOGIT)
    sums = seeds.sum(torch.exp(weights - seeds.spread(top)))
    return torch.where(top <= MASKED_LOGIT, top, top + torch.log(sums.clamp(min=1e-30)))


def pair_probabilities(weights: Tensor, seeds: Segments, graph_logits: Tensor) -> Tensor:
    """Return the share of each (seed, kernel) in its graph's policy: [S, K], zero if masked.

    The shares of a graph sum to one, unless all of its pairs are masked.
    """
    total = seeds.spread(torch.logsumexp(graph_logits, dim=1, keepdim=True))
    return torch.exp(weights - total).masked_fill(weights <= MASKED_LOGIT, 0.0)
