"""One round of messages over all relations and their reverses, on PyG's SAGEConv and GATConv (folded)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, SAGEConv
from torch_geometric.utils import softmax

from gnn.graph.batch import GraphBatch, Triple
from schemas.features import NODE_TYPES, RELATIONS


class FoldedGATConv(GATConv):  # type: ignore[misc]
    """PyG's `GATConv((in, in), out, heads, concat=False, edge_dim=...)` computed with (W x)·a = x·(Wᵀ a).

    The receivers' and the edges' projections become `heads` wide, and the sources are transformed before or after they
    are gathered, whichever side has fewer rows. Parameters and their names are the stock layer's own.
    """

    def forward(self, pair: tuple[Tensor, Tensor], edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """`pair` = (senders [M, in], receivers [N, in]), `edge_index` int64 [2, E], `edge_attr` [E, edge_dim] -> [N, out]."""
        senders, receivers = pair
        source, target = edge_index
        logits = (
            (senders @ self._fold(self.lin_src.weight, self.att_src))[source]
            + (receivers @ self._fold(self.lin_dst.weight, self.att_dst))[target]
            + edge_attr @ self._fold(self.lin_edge.weight, self.att_edge)
        )
        rows = receivers.shape[0]
        weight = softmax(nn.functional.leaky_relu(logits, self.negative_slope), target, num_nodes=rows)
        if rows < senders.shape[0]:
            return self._gather_first(senders, source, target, weight, rows)
        return self._transform_first(senders, source, target, weight, rows)

    def _fold(self, projection: Tensor, attention: Tensor) -> Tensor:
        """[heads * out, in] and [1, heads, out] -> [in, heads]."""
        per_head = projection.view(self.heads, self.out_channels, -1)
        folded: Tensor = (per_head * attention.view(self.heads, self.out_channels, 1)).sum(1).t()
        return folded

    def _gather_first(self, senders: Tensor, source: Tensor, target: Tensor, weight: Tensor, rows: int) -> Tensor:
        weighted = senders[source].unsqueeze(1) * weight.unsqueeze(2)
        gathered = weighted.new_zeros(rows, *weighted.shape[1:]).index_add_(0, target, weighted)
        heads = self.lin_src.weight.view(self.heads, self.out_channels, -1)
        stacked = heads.transpose(0, 1).reshape(self.out_channels, -1)
        mixed: Tensor = gathered.flatten(1) @ stacked.t() / self.heads
        return mixed

    def _transform_first(self, senders: Tensor, source: Tensor, target: Tensor, weight: Tensor, rows: int) -> Tensor:
        states = self.lin_src(senders).view(-1, self.heads, self.out_channels)
        messages = torch.einsum("ehc,eh->ec", states[source], weight) / self.heads
        gathered: Tensor = messages.new_zeros(rows, self.out_channels).index_add_(0, target, messages)
        return gathered


State = dict[str, Tensor]
ALL_TYPES: Final[tuple[str, ...]] = tuple(node.name for node in NODE_TYPES)


@dataclass(frozen=True)
class RoundShape:
    """Widths of a round's input states by node type, its output width, its dropout and the types that it updates."""

    widths: Mapping[str, int]
    out: int
    dropout: float
    receivers: tuple[str, ...] = ALL_TYPES


def directions() -> tuple[Triple, ...]:
    """Every relation and its reverse, in declared order: the 22 message directions."""
    return tuple(triple for relation in RELATIONS for triple in (relation.triple, relation.reverse))


def parameter_key(triple: Triple) -> str:
    """A module name for that triple: `layer__connects__layer`."""
    return "__".join(triple)


class MessageRound(nn.Module):
    """Mean over the relations' messages plus the node's own linear path, LayerNorm, GELU, dropout, residual.

    `own` keeps the state of a node without messages; `skip` is the residual, a linear where the width changes. The mean
    runs over the relations that are declared for the receiving type, so that an absent relation counts as zero and a
    graph's answer does not depend on what else is in its batch. Only the `receivers` are updated and returned.
    """

    def __init__(self, shape: RoundShape, conv: Callable[[Triple], nn.Module] | None) -> None:
        super().__init__()
        widths, out = shape.widths, shape.out
        self.own = nn.ModuleDict({name: nn.Linear(widths[name], out) for name in shape.receivers})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(out) for name in shape.receivers})
        changed = [name for name in shape.receivers if widths[name] != out]
        self.skip = nn.ModuleDict({name: nn.Linear(widths[name], out, bias=False) for name in changed})
        used = [t for t in directions() if t[2] in shape.receivers] if conv is not None else []
        self.convs = nn.ModuleDict({parameter_key(t): conv(t) for t in used} if conv is not None else {})
        self.incoming = {name: [t for t in used if t[2] == name] for name in shape.receivers}
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, state: State, batch: GraphBatch, attributes: Mapping[Triple, Tensor]) -> State:
        """New states {node type: [N, out]} of the receivers."""
        return {name: self._update(name, state, batch, attributes) for name in self.incoming}

    def _update(self, name: str, state: State, batch: GraphBatch, attributes: Mapping[Triple, Tensor]) -> Tensor:
        total = self.own[name](state[name])
        messages = [self.message(t, state, batch, attributes) for t in self.incoming[name] if _edges(batch, t).shape[1]]
        if messages:
            total = total + torch.stack(messages).sum(0) / len(self.incoming[name])
        fresh = self.dropout(nn.functional.gelu(self.norm[name](total)))
        residual = self.skip[name](state[name]) if name in self.skip else state[name]
        updated: Tensor = fresh + residual
        return updated

    def message(self, triple: Triple, state: State, batch: GraphBatch, attributes: Mapping[Triple, Tensor]) -> Tensor:
        """What that direction sends to its receivers: [N of the receiving type, out]."""
        pair = (state[triple[0]], state[triple[2]])
        conv = self.convs[parameter_key(triple)]
        if isinstance(conv, GATConv):
            sent: Tensor = conv(pair, _edges(batch, triple), edge_attr=attributes[forward_of(triple)])
        else:
            sent = conv(pair, _edges(batch, triple))
        return sent


def forward_of(triple: Triple) -> Triple:
    """The declared relation behind that direction."""
    source, name, target = triple
    return (target, name.removeprefix("rev_"), source) if name.startswith("rev_") else triple


def _edges(batch: GraphBatch, triple: Triple) -> Tensor:
    forward = forward_of(triple)
    index = batch.edge_index[forward]
    return index if forward == triple else index.flip(0)


def sage_round(shape: RoundShape) -> MessageRound:
    """GraphSAGE with mean aggregation; its root path is the round's `own`, one product a node type."""

    def conv(triple: Triple) -> nn.Module:
        pair = (shape.widths[triple[0]], shape.widths[triple[2]])
        mean: nn.Module = SAGEConv(pair, shape.out, aggr="mean", root_weight=False, bias=False)
        return mean

    return MessageRound(shape, conv)


def gat_round(shape: RoundShape, *, heads: int, edge_widths: Mapping[Triple, int]) -> MessageRound:
    """GAT with edge attributes, heads averaged, no self loops and no lazy dimensions."""

    def conv(triple: Triple) -> nn.Module:
        pair = (shape.widths[triple[0]], shape.widths[triple[2]])
        edge_dim = edge_widths[forward_of(triple)]
        options = {"heads": heads, "concat": False, "add_self_loops": False, "edge_dim": edge_dim, "bias": False}
        folded: nn.Module = FoldedGATConv(pair, shape.out, **options)
        return folded

    return MessageRound(shape, conv)


def own_round(shape: RoundShape) -> MessageRound:
    """The same round without any message: the ablation that shows what topology gives."""
    return MessageRound(shape, None)
