"""One round of messages over all relations and their reverses, on PyG's SAGEConv and GATConv (folded)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, SAGEConv

from gnn.graph.batch import GraphBatch, Triple
from gnn.model.attention import FoldedGATConv
from schemas.features import NODE_TYPES, RELATIONS

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
