"""One round of messages over all relations and their reverses: GraphSAGE, or GAT, each with the edges' attributes.

The function is that of PyG's HeteroConv(mean) over SAGEConv, or GATConv, plus in each direction a linear map of the mean of
the edges' attributes. There are two ways to it that agree to rounding. On small batches the number of calls is the cost: all
directions go through one product a node type and one weighted bag sum. On large ones the products are: each direction goes by
itself, multiplied on the side, senders or receivers, that has fewer rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.graph.batch import Csr, GraphBatch
from gnn.graph.plan import ALL_TYPES, Direction, Directions, MessagePlan, Triple

State = dict[str, Tensor]
Attributes = Mapping[Triple, Tensor]
_SLOPE: Final = 0.2  # of the leaky ReLU before the softmax, as in GATConv
_TOGETHER, _TOGETHER_ON_CUDA = 1 << 26, 1 << 29  # multiplications a direction; a batch that needs more goes by direction


@dataclass(frozen=True)
class RoundShape:
    """Widths of a round: input states by node type, edge attributes by relation, output; dropout; who is updated."""

    widths: Mapping[str, int]
    edge_widths: Mapping[Triple, int]
    out: int
    dropout: float
    receivers: tuple[str, ...] = ALL_TYPES


class MessageRound(nn.Module):
    """Mean over the directions' messages plus the node's own linear path, LayerNorm, GELU, dropout, residual.

    `own` keeps the state of a node without messages; `skip` is the residual, a linear where the width changes. The mean
    runs over the directions that are declared for the receiving type, so that an absent relation counts as zero and a
    graph's answer does not depend on what else is in its batch. Only the `receivers` are updated and returned.
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

    def forward(self, state: State, batch: GraphBatch, attributes: Attributes) -> State:
        """Return new states {node type: [N, out]} of the receivers; `attributes` is {relation: [E, edge width]}."""
        sent = self.messages(state, batch, attributes) if self.messages is not None else {}
        return {name: self._update(name, state[name], sent.get(name)) for name in self.receivers}

    def _update(self, name: str, state: Tensor, messages: Tensor | None) -> Tensor:
        total = self.own[name](state)
        total = total if messages is None else total + messages
        fresh = self.dropout(functional.gelu(self.norm[name](total)))
        residual = self.skip[name](state) if name in self.skip else state
        updated: Tensor = fresh + residual
        return updated


class Messages(nn.Module):
    """The mean over directions of GraphSAGE messages: W mean(senders) + D mean(attributes).

    `send` {node type: [leaving * heads * out, in]} stacks W of the directions that leave a type, `describe`
    {relation: [described * out, edge width]} stacks D of the directions of a relation, in the order of `Directions`.
    """

    def __init__(self, shape: RoundShape, heads: int = 1) -> None:
        super().__init__()
        self.heads, self.out, self.directions = heads, shape.out, Directions.reaching(shape.receivers)
        self.width = max(shape.widths.values())
        leaving = {name: count for name, count in self.directions.leaving.items() if count}
        described = {triple: count for triple, count in self.directions.described.items() if count}
        self.send = _weights({name: (n * heads, shape.out, shape.widths[name]) for name, n in leaving.items()})
        self.describe = _weights({parameter_key(r): (n, shape.out, shape.edge_widths[r]) for r, n in described.items()})

    def forward(self, state: State, batch: GraphBatch, attributes: Attributes, *, way: "Way | None" = None) -> State:
        """Return {node type: [N, out]} of the receivers; `way` None takes the cheaper one."""
        rows = max(tensor.shape[0] for tensor in state.values())
        limit = _TOGETHER_ON_CUDA if next(iter(state.values())).is_cuda else _TOGETHER
        small = rows * self.width * self.out * self.heads <= limit
        if way == "together" or (way is None and small):
            return self._together(state, batch.plan(self.directions), attributes)
        return self._by_direction(state, batch, attributes)

    def _together(self, state: State, plan: MessagePlan, attributes: Attributes) -> State:
        """One product a node type and relation, and one bag sum."""
        sent = {name: functional.linear(state[name], weight) for name, weight in self.send.items()}
        described = [functional.linear(attributes[t], self.describe[parameter_key(t)]) for t in self._relations()]
        table = torch.cat([part.reshape(-1, self.out) for part in (*sent.values(), *described)])
        first_edge = sum(part.shape[0] * part.shape[1] for part in sent.values()) // self.out
        heads = torch.arange(self.heads, device=plan.sent.device)
        rows = torch.cat([plan.sent.unsqueeze(1) * self.heads + heads, plan.edge.unsqueeze(1) + first_edge], dim=1)
        shares = torch.cat([self._shares(state, sent, plan, attributes), plan.share.unsqueeze(1)], dim=1)
        total = _bag(table, rows.flatten(), plan.offsets * (self.heads + 1), shares.flatten())
        receivers = self.directions.receivers
        return dict(zip(receivers, total.split([state[name].shape[0] for name in receivers]), strict=True))

    def _shares(self, state: State, sent: State, plan: MessagePlan, attributes: Attributes) -> Tensor:
        """Weight of each edge and head, [E, heads], where `sent` {node type: [N, leaving * heads * out]} is sent."""
        return plan.share.unsqueeze(1)

    def _by_direction(self, state: State, batch: GraphBatch, attributes: Attributes) -> State:
        """Products on the side with fewer rows, a direction at a time."""
        found: State = {}
        for way in self.directions.each:
            csr = batch.csr[way.triple]
            if not len(csr.neighbours):
                continue
            senders, receivers = state[way.source], state[way.target]
            shares = self._direction_shares(way, csr, (senders, receivers), attributes)
            message = self._gathered(self._sends(way), senders, receivers.shape[0], csr, shares)
            described = attributes[way.relation]
            mean = _bag(described, csr.order, csr.indptr, _even(csr))
            message = (message + functional.linear(mean, self._describes(way))) / self.directions.arriving[way.target]
            found[way.target] = found[way.target] + message if way.target in found else message
        return found

    def _direction_shares(self, way: Direction, csr: Csr, pair: tuple[Tensor, Tensor], attributes: Attributes) -> Tensor:
        """Weight of each edge and head of one direction, [E, heads], in the order of `csr`."""
        return _even(csr).unsqueeze(1)

    def _gathered(self, weight: Tensor, senders: Tensor, rows: int, csr: Csr, shares: Tensor) -> Tensor:
        """Sum over edges and heads of share times `weight` [heads * out, in] times sender: [rows, out]."""
        if rows < senders.shape[0]:
            gathered = [_bag(senders, csr.neighbours, csr.indptr, share) for share in shares.unbind(1)]
            stacked = weight.view(self.heads, self.out, -1).transpose(0, 1).reshape(self.out, -1)
            return functional.linear(torch.cat(gathered, dim=1), stacked)
        heads = torch.arange(self.heads, device=csr.neighbours.device)
        sent = functional.linear(senders, weight).view(-1, self.out)
        index = (csr.neighbours.unsqueeze(1) * self.heads + heads).flatten()
        return _bag(sent, index, csr.indptr * self.heads, shares.flatten())

    def _sends(self, way: Direction) -> Tensor:
        """[heads * out, in] of one direction."""
        each: Tensor = self.send[way.source].view(self.directions.leaving[way.source], self.heads * self.out, -1)
        return each[way.leaving]

    def _describes(self, way: Direction) -> Tensor:
        """[out, edge width] of one direction."""
        weight = self.describe[parameter_key(way.relation)]
        each: Tensor = weight.view(self.directions.described[way.relation], self.out, -1)
        return each[way.described]

    def _relations(self) -> list[Triple]:
        return [triple for triple, count in self.directions.described.items() if count]


Way = Literal["together", "by direction"]


class Attention(Messages):
    """The mean over directions of GAT messages, heads averaged: sum of attention times W sender, plus D mean(attributes).

    The logit of an edge is leaky(a · W sender + b · receiver + c · attributes). PyG's GATConv has products in place of `b` and
    `c`; its (W x) · a is x · (Wᵀ a), so vectors say as much. `attend` {node type: [leaving, heads, out]} holds a, `receive`
    {node type: [arriving * heads, in]} b, `notice` {relation: [described * heads, edge width]} c.
    """

    def __init__(self, shape: RoundShape, heads: int) -> None:
        super().__init__(shape, heads)
        ways, widths = self.directions, shape.widths
        self.attend = _weights({name: (ways.leaving[name], heads, shape.out) for name in self.send}, flat=False)
        arriving = {name: count for name, count in ways.arriving.items() if count}
        self.receive = _weights({name: (count, heads, widths[name]) for name, count in arriving.items()})
        self.notice = _weights({parameter_key(t): (ways.described[t], heads, shape.edge_widths[t]) for t in self._relations()})

    def _shares(self, state: State, sent: State, plan: MessagePlan, attributes: Attributes) -> Tensor:
        ours = [(part.view(-1, *self.attend[name].shape) * self.attend[name]).sum(-1) for name, part in sent.items()]
        theirs = [functional.linear(state[name], weight) for name, weight in self.receive.items()]
        edges = [functional.linear(attributes[t], self.notice[parameter_key(t)]) for t in self._relations()]
        senders, receivers, described = (
            torch.cat([part.reshape(-1, self.heads) for part in parts]) for parts in (ours, theirs, edges)
        )
        logits = senders[plan.sent] + receivers[plan.received] + described[plan.edge]
        attention = _softmax(logits, plan.received, plan.slots)
        return attention * (plan.part / self.heads).unsqueeze(1)

    def _direction_shares(self, way: Direction, csr: Csr, pair: tuple[Tensor, Tensor], attributes: Attributes) -> Tensor:
        senders, receivers = pair
        folded = (self._sends(way).view(self.heads, self.out, -1) * self.attend[way.source][way.leaving].unsqueeze(2)).sum(1)
        receive = self.receive[way.target].view(self.directions.arriving[way.target], self.heads, -1)[way.arriving]
        weight = self.notice[parameter_key(way.relation)]
        notice = weight.view(self.directions.described[way.relation], self.heads, -1)[way.described]
        at = torch.repeat_interleave(csr.indptr.diff(), output_size=len(csr.neighbours))
        logits = (
            functional.linear(senders, folded)[csr.neighbours]
            + functional.linear(receivers, receive)[at]
            + functional.linear(attributes[way.relation], notice)[csr.order]
        )
        return _softmax(logits, at, receivers.shape[0]) / self.heads


def sage_round(shape: RoundShape) -> MessageRound:
    """GraphSAGE with mean aggregation; its root path is the round's `own`, one product a node type."""
    return MessageRound(shape, Messages(shape))


def gat_round(shape: RoundShape, *, heads: int) -> MessageRound:
    """GAT with edge attributes, heads averaged, no self loops."""
    return MessageRound(shape, Attention(shape, heads))


def own_round(shape: RoundShape) -> MessageRound:
    """The same round without any message: the ablation that shows what topology gives."""
    return MessageRound(shape, None)


def parameter_key(triple: Triple) -> str:
    """A name for that relation's parameters: `layer__connects__layer`."""
    return "__".join(triple)


def _weights(shapes: Mapping[str, tuple[int, int, int]], *, flat: bool = True) -> nn.ParameterDict:
    """Stacks of Xavier-uniform matrices {name: [count * out, in]}, [count, out, in] if not `flat`."""
    found = nn.ParameterDict()
    for name, (count, rows, columns) in shapes.items():
        stack = torch.empty(count, rows, columns)
        for matrix in stack:
            nn.init.xavier_uniform_(matrix)
        found[name] = nn.Parameter(stack.flatten(0, 1) if flat else stack)
    return found


def _bag(table: Tensor, rows: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
    """Sum of share times row of `table` [T, w] over offsets[i] .. offsets[i + 1] of `rows`: [len(offsets) - 1, w]."""
    shares = shares.to(table.dtype)
    if not table.is_cuda:
        return functional.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=shares, include_last_offset=True)
    # on CUDA a bag is summed by one thread a column, so that a context node with 10,000 layers would hold up all others
    bags = torch.repeat_interleave(offsets.diff(), output_size=len(rows))
    return table.new_zeros(len(offsets) - 1, table.shape[1]).index_add(0, bags, table[rows] * shares.unsqueeze(1))


def _even(csr: Csr) -> Tensor:
    """1 / (edges of the same receiver) of each edge, float32 [E]."""
    counts = csr.indptr.diff()
    return counts.to(torch.float32).reciprocal().repeat_interleave(counts, output_size=len(csr.neighbours))


def _softmax(logits: Tensor, group: Tensor, groups: int) -> Tensor:
    """Softmax of leaky(logits) [E, heads] within the groups that `group` int64 [E] numbers."""
    logits = functional.leaky_relu(logits, _SLOPE)
    index = group.unsqueeze(1).expand_as(logits)
    with torch.no_grad():  # a constant of the group: it cancels
        top = logits.new_full((groups, logits.shape[1]), -torch.inf).scatter_reduce(0, index, logits, "amax")
    risen = (logits - top[group]).exp()
    total = risen.new_zeros(groups, logits.shape[1]).index_add(0, group, risen)
    return risen / total[group]
