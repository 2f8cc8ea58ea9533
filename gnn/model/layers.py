"""Pass one round of messages over all relations and their reverses: GraphSAGE or GAT, each with the edges' attributes.

A round computes PyG's HeteroConv(mean) over SAGEConv or GATConv, plus, in each direction, a linear map of the mean of the
edges' attributes. Its sums are in another order, so it agrees up to rounding: means of attributes are taken once per batch,
attention vectors are folded into the weights ((x W) · a = x · (W a)), and each direction is multiplied on the side, senders
or receivers, that has fewer rows (see `gnn.graph.plan`).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.graph.batch import GraphBatch
from gnn.graph.plan import ALL_TYPES, Direction, Directions, Lot, MessagePlan, Triple
from gnn.model.states import States

Attributes = Mapping[Triple, Tensor]
Pieces = Mapping[tuple[str, int], Tensor]  # (source, first place among the directions that leave it): [directions, in, out]
Totals = Mapping[str, Tensor]
SLOPE: Final = 0.2  # negative slope of the leaky ReLU before the softmax, as in GATConv


@dataclass(frozen=True)
class Described:
    """Attributes of edges {relation: [E, w]}, and their means by receiver {node type: [N, sum of w]}.

    The means of a type are in order of the directions that reach it, each divided by the number of these directions.
    """

    attributes: Attributes
    means: Mapping[str, Tensor]

    @classmethod
    def of(cls, batch: GraphBatch, attributes: Attributes) -> "Described":
        """Take the means of the attributes of `batch`, zero if a node has no edge."""
        directions = Directions.reaching(ALL_TYPES)
        plan = batch.plan(directions)
        width = max(part.shape[1] for part in attributes.values())
        table = torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in attributes.values()])
        mean = _bag(table, plan.numbers[2], plan.begins, plan.share)
        means = {}
        for name, ways in directions.reached.items():
            rows, found = batch.num_nodes(name), []
            for way in ways:
                width, slots = attributes[way.relation].shape[1], plan.arranged.slots_of.get(way.triple)
                found.append(table.new_zeros(rows, width) if slots is None else mean[slots, :width])
            means[name] = torch.cat(found, dim=1)
        return cls(attributes, means)


@dataclass(frozen=True)
class RoundShape:
    """The shape of a round: widths of input states by node type, of edge attributes by relation and of the output.

    It also has the dropout and the node types that are updated.
    """

    widths: Mapping[str, int]
    edge_widths: Mapping[Triple, int]
    out: int
    dropout: float
    receivers: tuple[str, ...] = ALL_TYPES


class MessageRound(nn.Module):
    """Mean over the directions' messages plus the node's own linear path, LayerNorm, GELU, dropout, residual.

    `own` keeps the state of a node without messages; `skip` is the residual, a linear map if the width changes. The mean is
    over the directions declared for the receiving type, so an absent relation counts as zero and a graph's output does not
    depend on the rest of its batch. Only the `receivers` are updated and returned.
    """

    def __init__(self, shape: RoundShape, messages: "Messages | None") -> None:
        super().__init__()
        widths, out = shape.widths, shape.out
        self.receivers = shape.receivers
        self.own = nn.ModuleDict({name: nn.Linear(widths[name], out) for name in shape.receivers})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(out) for name in shape.receivers})
        changed = [name for name in shape.receivers if widths[name] != out]
        self.skip = nn.ModuleDict({name: nn.Linear(widths[name], out, bias=False) for name in changed})
        self.messages = messages
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, states: States, batch: GraphBatch, described: Described | None) -> States:
        """Return new states of the receivers; `described` may be None if there are no messages."""
        totals = {name: self.own[name](states[name]) for name in self.receivers}
        if self.messages is not None and described is not None:
            self.messages(states, batch, described, totals)
        # one GELU, because each call has a fixed cost; `pop`, because 100,000 nodes must fit into 1.5 GB
        normed = torch.cat([self.norm[name](totals.pop(name)) for name in self.receivers])
        fresh = functional.gelu(normed).split([len(states[name]) for name in self.receivers])
        del normed
        parts = dict(zip(self.receivers, fresh, strict=True))
        return States({name: self._residual(name, states[name], part) for name, part in parts.items()})

    def _residual(self, name: str, state: Tensor, fresh: Tensor) -> Tensor:
        if self.training:
            fresh = self.dropout(fresh)
        if name in self.skip:
            return torch.addmm(fresh, state, cast(nn.Linear, self.skip[name]).weight.t())
        return fresh + state


@dataclass(frozen=True)
class Bags:
    """The edges of a lot: rows of a table [E], where each slot's edges begin [slots + 1], and their weights [E, heads]."""

    rows: Tensor
    offsets: Tensor
    shares: Tensor


class Messages(nn.Module):
    """The mean over directions of GraphSAGE messages: mean(senders) · W + mean(attributes) · D.

    `send` {node type: [leaving, in, heads * out]} stacks the W of the directions that leave a type, in order of `leaving`;
    `describe` {node type: [sum of edge widths, out]} the D of the directions that reach a type, in order of `arriving`.
    """

    def __init__(self, shape: RoundShape, heads: int = 1) -> None:
        super().__init__()
        self.heads, self.out, self.directions = heads, shape.out, Directions.reaching(shape.receivers)
        leaving = {name: count for name, count in self.directions.leaving.items() if count}
        described = {triple: count for triple, count in self.directions.described.items() if count}
        send = _xavier({name: (n * heads, shape.out, shape.widths[name]) for name, n in leaving.items()})
        each = _xavier({relation: (n, shape.out, shape.edge_widths[relation]) for relation, n in described.items()})
        stacked = {name: stack.view(leaving[name], -1, stack.shape[2]).transpose(1, 2) for name, stack in send.items()}
        reached = self.directions.reached
        joined = {t: torch.cat([each[way.relation][way.described] for way in ways], 1).t() for t, ways in reached.items()}
        self.send, self.describe = _parameters(stacked), _parameters(joined)

    def forward(self, states: States, batch: GraphBatch, described: Described, totals: Totals) -> None:
        """Add the messages to `totals` {node type: [N, out]} of the receivers."""
        plan = batch.plan(self.directions)
        for name, weight in self.describe.items():
            _accumulate(totals[name], described.means[name], weight)
        lots, pieces = plan.arranged.lots, self._pieces(plan.arranged.cuts)
        sent = self._sent(lots[0], states, pieces) if len(lots) == 1 and lots[0].products_first else None
        shares = self._shares(states, plan, described.attributes, sent)
        for lot in lots:
            bags = Bags(plan.rows[lot.edges], plan.begins[lot.bounds] - lot.edges.start, shares[lot.edges])
            if lot.products_first:
                self._spread(lot, self._sent(lot, states, pieces) if sent is None else sent, bags, totals)
            else:
                self._gather(lot, states, pieces, bags, totals)

    def _pieces(self, cuts: Mapping[str, list[int]]) -> Pieces:
        """Cut each stack of `send` once, because each slice of a parameter would cost a gradient of the whole stack."""
        found: dict[tuple[str, int], Tensor] = {}
        for name, weight in self.send.items():
            starts = accumulate(cuts[name], initial=0)
            found |= {(name, start): piece for start, piece in zip(starts, weight.split(cuts[name]), strict=False)}
        return found

    def _sent(self, lot: Lot, states: States, pieces: Pieces) -> Tensor:
        """Return the products of the senders with W, block by block and direction by direction: [rows, heads * out]."""
        sent = []
        for source, places in lot.blocks:
            state, weight = states[source], pieces[source, places.start]
            if len(weight) == 1:
                sent.append(state @ weight.squeeze(0))
            else:
                sent.append(torch.bmm(state.expand(len(weight), *state.shape), weight).flatten(0, 1))
        return sent[0] if len(sent) == 1 else torch.cat(sent)

    def _spread(self, lot: Lot, sent: Tensor, bags: Bags, totals: Totals) -> None:
        """Add the senders' products `sent`, summed over edges and heads, to `totals`."""
        rows = bags.rows
        if self.heads > 1:
            rows = (rows.unsqueeze(1) * self.heads + torch.arange(self.heads, device=rows.device)).flatten()
        summed = _bag(sent.view(-1, self.out), rows, bags.offsets * self.heads, bags.shares.flatten())
        for (target, ways), part in zip(lot.targets, summed.split(lot.slots), strict=True):
            totals[target].add_(part if ways == 1 else part.view(ways, -1, self.out).sum(0))

    def _gather(self, lot: Lot, states: States, pieces: Pieces, bags: Bags, totals: Totals) -> None:
        """Sum the senders' states over edges, multiply each receiver's sum by W, head by head, and add it to `totals`."""
        weights = [pieces[way.source, way.leaving][0].unflatten(1, (self.heads, self.out)).unbind(1) for way in lot.ways]
        for head, share in enumerate(bags.shares.unbind(1)):
            summed, start = _bag(states.table, bags.rows, bags.offsets, share), 0
            for way, weight in zip(lot.ways, weights, strict=True):
                total = totals[way.target]
                _accumulate(total, summed[start : start + len(total), : len(weight[head])], weight[head])
                start += len(total)

    def _shares(self, states: States, plan: MessagePlan, attributes: Attributes, sent: Tensor | None) -> Tensor:
        """Return the weight of each edge and head, [E, heads]; `sent` are the products of the plan's lot if it has only one."""
        return plan.share.unsqueeze(1)


class Attention(Messages):
    """The mean over directions of GAT messages, heads averaged: sum of attention times sender · W, plus mean(attributes) · D.

    The logit of an edge is leaky(a · (sender · W) + b · receiver + c · attributes). PyG's GATConv has products of a matrix and
    a vector in place of `b` and `c`; since (x W) · a = x · (W a), one vector is equivalent. `attend` {node type: [leaving,
    heads, out]} holds a, `receive` {node type: [arriving * heads, in]} b, `notice` {relation: [described * heads, edge
    width]} c.
    """

    def __init__(self, shape: RoundShape, heads: int) -> None:
        super().__init__(shape, heads)
        ways, widths = self.directions, shape.widths
        self.attend = _parameters(_xavier({name: (ways.leaving[name], heads, shape.out) for name in self.send}))
        arriving = {name: count for name, count in ways.arriving.items() if count}
        receive = _xavier({name: (count, heads, widths[name]) for name, count in arriving.items()})
        notice = _xavier({parameter_key(t): (n, heads, shape.edge_widths[t]) for t, n in ways.described.items() if n})
        self.receive = _parameters({name: stack.flatten(0, 1) for name, stack in receive.items()})
        self.notice = _parameters({name: stack.flatten(0, 1) for name, stack in notice.items()})

    def _shares(self, states: States, plan: MessagePlan, attributes: Attributes, sent: Tensor | None) -> Tensor:
        senders, receivers, edges = plan.scored
        if sent is None:
            ours = self._scores({name: states[name] for name in self.send}, {n: self.folded(n) for n in self.send})[senders]
        else:
            ours = self._scores_of(sent, plan.arranged.lots[0], states)[plan.rows]
        theirs = self._scores({name: states[name] for name in self.receive}, self.receive)
        described = {parameter_key(triple): part for triple, part in attributes.items()}
        noticed = self._scores({key: described[key] for key in self.notice}, self.notice)
        attention = _softmax(ours + theirs[receivers] + noticed[edges], plan.slot, plan.arranged.slots)
        return attention * (plan.part / self.heads).unsqueeze(1)

    def _scores(self, rows: Mapping[str, Tensor], vectors: Mapping[str, Tensor] | nn.ParameterDict) -> Tensor:
        """Return the products of rows with vectors [directions * heads, in], key by key: [rows * directions, heads]."""
        return torch.cat([functional.linear(part, vectors[key]).view(-1, self.heads) for key, part in rows.items()])

    def folded(self, name: str) -> Tensor:
        """Return W · a of the directions that leave a type: [leaving * heads, in]."""
        weight: Tensor = self.send[name]  # a · head by head, as one product with a block-diagonal matrix
        attend, each = self.attend[name].unsqueeze(3), torch.eye(self.heads, device=weight.device).unsqueeze(1)
        return torch.bmm(weight, (attend * each).flatten(1, 2)).transpose(1, 2).flatten(0, 1)

    def noticing(self, way: Direction) -> Tensor:
        """Return c of a direction: [heads, edge width]."""
        vectors: Tensor = self.notice[parameter_key(way.relation)]
        return vectors.view(self.directions.described[way.relation], self.heads, -1)[way.described]

    def _scores_of(self, sent: Tensor, lot: Lot, states: States) -> Tensor:
        """Return (sender · W) · a from the products `sent`: [rows, heads]; in small batches faster than `folded`."""
        found, start = [], 0
        for source, places in lot.blocks:
            attend = self.attend[source][places].unsqueeze(1)
            rows = len(attend) * len(states[source])
            block = sent[start : start + rows].view(len(attend), -1, self.heads, self.out)
            found.append((block * attend).sum(3).flatten(0, 1))
            start += rows
        return torch.cat(found)


def sage_round(shape: RoundShape) -> MessageRound:
    """Build a GraphSAGE round with mean aggregation; its root path is the round's `own`, one product per node type."""
    return MessageRound(shape, Messages(shape))


def gat_round(shape: RoundShape, *, heads: int) -> MessageRound:
    """Build a GAT round with edge attributes, averaged heads and no self loops."""
    return MessageRound(shape, Attention(shape, heads))


def own_round(shape: RoundShape) -> MessageRound:
    """Build a round without messages, for the ablation that shows how much topology contributes."""
    return MessageRound(shape, None)


def parameter_key(triple: Triple) -> str:
    """Return the name of a relation's parameters: `layer__connects__layer`."""
    return "__".join(triple)


_Key = TypeVar("_Key", bound=Hashable)


def _xavier(shapes: Mapping[_Key, tuple[int, int, int]]) -> dict[_Key, Tensor]:
    """Return stacks of Xavier-uniform matrices {key: [count, rows, columns]}."""
    found = {}
    for key, shape in shapes.items():
        found[key] = torch.empty(shape)
        for matrix in found[key]:
            nn.init.xavier_uniform_(matrix)
    return found


def _parameters(stacks: Mapping[str, Tensor]) -> nn.ParameterDict:
    found = nn.ParameterDict()
    for name, stack in stacks.items():  # one by one, because ParameterDict would sort a mapping's keys
        found[name] = nn.Parameter(stack.contiguous())
    return found


def _accumulate(total: Tensor, rows: Tensor, weight: Tensor) -> None:
    """Add rows · W to `total` in place. Under autocast, which has no in-place product, `total` has a narrower dtype."""
    if rows.dtype != total.dtype or weight.dtype != total.dtype:
        rows, weight = rows.to(total.dtype), weight.to(total.dtype)
    total.addmm_(rows, weight)


def _bag(table: Tensor, rows: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
    """Sum the `rows` of `table` [T, w], times their `shares`, over each bag offsets[i] .. offsets[i + 1]: [bags, w]."""
    shares = shares.to(table.dtype)
    if not table.is_cuda:
        return functional.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=shares, include_last_offset=True)
    # on CUDA one thread per column sums a bag, so a context node with 10,000 layers would delay all others
    bags = torch.repeat_interleave(offsets.diff(), output_size=len(rows))
    return table.new_zeros(len(offsets) - 1, table.shape[1]).index_add(0, bags, table[rows] * shares.unsqueeze(1))


def _softmax(logits: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the softmax of leaky(logits) [E, heads] within each group; `group` int64 [E] is the group of each edge."""
    logits = functional.leaky_relu(logits, SLOPE)
    index = group.unsqueeze(1).expand_as(logits)
    with torch.no_grad():  # constant within a group, so it cancels
        top = logits.new_full((groups, logits.shape[1]), -torch.inf).scatter_reduce(0, index, logits, "amax")
    risen = (logits - top[group]).exp()
    total = risen.new_zeros(groups, logits.shape[1]).index_add(0, group, risen)
    return risen / total[group]
