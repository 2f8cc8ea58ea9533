"""Build TamiyoGNN in stock PyG: HeteroConv over SAGEConv and GATConv, with the weights of ours. The oracle and the baseline."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, HeteroConv, SAGEConv
from torch_geometric.utils import scatter

from gnn.graph.batch import GraphBatch
from gnn.graph.plan import ALL_TYPES, Direction, Directions, Triple
from gnn.model.layers import Attention, MessageRound, Messages, RoundShape, parameter_key
from gnn.model.network import TamiyoGNN
from gnn.model.states import States
from schemas.features import NODE_TYPES, RELATIONS


class _Described(nn.Module):
    """A conv of one direction, plus a linear map of each edge's attributes, averaged."""

    def __init__(self, conv: nn.Module, describe: Tensor) -> None:
        super().__init__()
        self.conv, self.describe = conv, nn.Linear(describe.shape[1], describe.shape[0], bias=False)
        self.describe.weight = nn.Parameter(describe)

    def forward(self, nodes: Tensor | tuple[Tensor, Tensor], edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Return [N of the receiving type, out]; HeteroConv gives one tensor if a type sends to itself."""
        pair = (nodes, nodes) if isinstance(nodes, Tensor) else nodes
        sent = self.conv(pair, edge_index, edge_attr) if isinstance(self.conv, GATConv) else self.conv(pair, edge_index)
        described = scatter(self.describe(edge_attr), edge_index[1], dim_size=pair[1].shape[0], reduce="mean")
        total: Tensor = sent + described
        return total


class StockMessages(nn.Module):
    """The messages of one round by HeteroConv, with the weights of `ours`.

    `also` are directions that `ours` leaves out because nothing reads what they reach; they have weights of their own.
    """

    def __init__(
        self,
        ours: Messages,
        widths: Mapping[str, int],
        edge_widths: Mapping[Triple, int],
        also: Sequence[Direction] = (),
    ) -> None:
        super().__init__()
        convs = {way.triple: _conv(ours, way, widths, edge_widths) for way in ours.directions.each}
        for way in also:
            pair, width = (widths[way.source], widths[way.target]), edge_widths[way.relation]
            convs[way.triple] = _Described(_blank(ours, pair, width), torch.randn(ours.out, width))
        self.hetero = HeteroConv(convs, aggr="mean")

    def forward(self, state: Mapping[str, Tensor], batch: GraphBatch, attributes: Mapping[Triple, Tensor]) -> dict[str, Tensor]:
        """Return {node type: [N, out]} of the receivers."""
        edges, described = {}, {}
        for relation in RELATIONS:
            index = batch.edge_index[relation.triple]
            edges |= {relation.triple: index, relation.reverse: index.flip(0)}
            described |= {relation.triple: attributes[relation.triple], relation.reverse: attributes[relation.triple]}
        found: dict[str, Tensor] = self.hetero(dict(state), edges, edge_attr_dict=described)
        return found


def _conv(ours: Messages, way: Direction, widths: Mapping[str, int], edge_widths: Mapping[Triple, int]) -> nn.Module:
    pair, edge_width = (widths[way.source], widths[way.target]), edge_widths[way.relation]
    weight = ours.send[way.source][way.leaving].t().detach().clone()
    each = [edge_widths[other.relation] for other in ours.directions.reached[way.target]]
    describe = ours.describe[way.target].split(each)[way.arriving].t().detach().clone()
    if not isinstance(ours, Attention):
        sage = _blank(ours, pair, edge_width)
        sage.lin_l.weight = nn.Parameter(weight)
        return _Described(sage, describe)
    gat = _blank(ours, pair, edge_width)
    gat.lin_src.weight = nn.Parameter(weight)
    gat.att_src = nn.Parameter(ours.attend[way.source][way.leaving].detach().clone().unsqueeze(0))
    ways = ours.directions
    receive = ours.receive[way.target].view(ways.arriving[way.target], ours.heads, -1)[way.arriving]
    notice = ours.notice[parameter_key(way.relation)].view(ways.described[way.relation], ours.heads, -1)[way.described]
    # (W x) . e1 is the first row of W times x: any vector is such a product
    for linear, attention, vectors in ((gat.lin_dst, gat.att_dst, receive), (gat.lin_edge, gat.att_edge, notice)):
        with torch.no_grad():
            linear.weight.view(ours.heads, ours.out, -1)[:, 0] = vectors
            attention.zero_()[..., 0] = 1.0
    return _Described(gat, describe)


def _blank(ours: Messages, pair: tuple[int, int], edge_width: int) -> nn.Module:
    """A conv of the same shape."""
    if not isinstance(ours, Attention):
        return SAGEConv(pair, ours.out, aggr="mean", root_weight=False, bias=False)
    return GATConv(pair, ours.out, heads=ours.heads, concat=False, add_self_loops=False, edge_dim=edge_width, bias=False)


class StockRound(nn.Module):
    """A round with its messages by HeteroConv; the modules of single nodes are those of `ours`."""

    def __init__(self, ours: MessageRound, shape: RoundShape, *, pruned: bool) -> None:
        super().__init__()
        self.ours, messages = ours, cast(Messages, ours.messages)
        unread = [way for way in Directions.reaching(ALL_TYPES).each if way.target not in shape.receivers]
        self.messages = StockMessages(messages, shape.widths, shape.edge_widths, () if pruned else unread)

    def forward(self, state: Mapping[str, Tensor], batch: GraphBatch, attributes: Mapping[Triple, Tensor]) -> dict[str, Tensor]:
        """Return new states {node type: [N, out]} of the receivers."""
        sent = self.messages(state, batch, attributes)
        return {name: self._updated(name, state[name], sent.get(name)) for name in self.ours.receivers}

    def _updated(self, name: str, state: Tensor, messages: Tensor | None) -> Tensor:
        total = self.ours.own[name](state)
        total = total if messages is None else total + messages
        fresh = self.ours.dropout(nn.functional.gelu(self.ours.norm[name](total)))
        updated: Tensor = fresh + (self.ours.skip[name](state) if name in self.ours.skip else state)
        return updated


class StockNetwork(TamiyoGNN):
    """The network with every round by HeteroConv."""

    def states(self, batch: GraphBatch) -> States:
        """Node states after the last round, as `TamiyoGNN` has them."""
        state = {node.name: self.encoders[node.name](batch.x[node.name], batch.ids[node.name]) for node in NODE_TYPES}
        attributes = self.attributes(batch)
        for messages in self.rounds:
            state = messages(state, batch, attributes)
        return States(state)


def stock_network(ours: TamiyoGNN, *, pruned: bool = False) -> StockNetwork:
    """Return a network that answers as `ours` does, with every round by HeteroConv.

    Every round has all relations, as stock code has them; if `pruned`, the last one only those that the heads' nodes need.
    """
    twin = StockNetwork(ours.config)
    twin.load_state_dict(ours.state_dict())
    shapes = twin.round_shapes()
    rounds = (cast(MessageRound, each) for each in twin.rounds)
    twin.rounds = nn.ModuleList(StockRound(each, shape, pruned=pruned) for each, shape in zip(rounds, shapes, strict=True))
    return twin
