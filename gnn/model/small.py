"""Answer small batches with few, large operations: the rounds of a network whose weights are put in order beforehand.

On few nodes the number of operations decides the time, not their size. So the inputs of all node types stand in one table,
where each type has its own columns, and all that reads a type's states is one product. This is the same function as
`NodeEncoder`, `GroupEmbedding` and `MessageRound` compute, up to rounding; it needs weights that do not change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.graph.batch import GraphBatch
from gnn.graph.plan import ALL_TYPES, Directions, Triple
from gnn.model.encoders import CLIP, GroupEmbedding, NodeEncoder
from gnn.model.layers import SLOPE, Attention, MessageRound, Messages, RoundShape
from gnn.model.site import squash
from gnn.model.small_plan import FEW_ROWS, Attended, Layout, RoundLayout, RoundPlan, SmallPlan, small_plan
from gnn.model.states import States
from schemas.features import RELATIONS

_LEAVING = Directions.reaching(ALL_TYPES).leaving


def is_small(batch: GraphBatch) -> bool:
    """Return whether the batch is on the CPU and has few nodes, but some."""
    on_cpu = batch.edge_index[RELATIONS[0].triple].device.type == "cpu"
    return on_cpu and 0 < sum(batch.num_nodes(name) * count for name, count in _LEAVING.items()) <= FEW_ROWS


@dataclass(frozen=True)
class _Columns:
    """The columns of several groups side by side: value channels are scaled, all others stay as they are.

    `center` and `scale` float32 [W]; `known` int64 [W] is the column of each value's mask; `plain` bool [W].
    """

    center: Tensor
    scale: Tensor
    known: Tensor
    plain: Tensor

    @classmethod
    def of(cls, groups: Sequence[tuple[GroupEmbedding, int]]) -> "_Columns":
        """Describe groups of columns, each with its total width."""
        center, scale, known, plain, start = [], [], [], [], 0
        for group, width in groups:
            values = group.scale.value_width
            others = width - values
            center.append(functional.pad(group.scale.center, (0, others)))
            scale.append(functional.pad(group.scale.scale, (0, others), value=1.0))
            known += [group.scale.source + (start + values), torch.zeros(others, dtype=torch.int64)]
            plain.append(torch.arange(width) >= values)
            start += width
        return cls(torch.cat(center), torch.cat(scale), torch.cat(known), torch.cat(plain))

    def scaled(self, parts: Sequence[Tensor]) -> Tensor:
        """Return `parts` [N, w] side by side with the values scaled as `InputScale` does; zero elsewhere: [all N, W]."""
        raw = torch.block_diag(*parts)
        values = squash(raw).sub_(self.center).div_(self.scale).clamp_(-CLIP, CLIP).mul_(raw.index_select(1, self.known))
        return torch.where(self.plain, raw, values)


@dataclass(frozen=True)
class _Encoders:
    """All node encoders: `weight` [columns, H], and the ids' embeddings times their weights, `embedded` [all rows, H].

    `widths` are runs of node types with the same width: (number of types, width).
    """

    columns: _Columns
    weight: Tensor
    embedded: Tensor
    widths: list[tuple[int, int]]

    @classmethod
    def of(cls, encoders: Sequence[NodeEncoder]) -> "_Encoders":
        """Order the weights of encoders."""
        groups = [(each.embedding, each.embedding.dense) for each in encoders]
        widest, weights, tables = max(each.out for each in encoders), [], []
        for each in encoders:
            embedding = each.embedding
            own = functional.pad(each.linear.weight, (0, 0, 0, widest - each.out)).t()
            widths = [cast(nn.Embedding, table).embedding_dim for table in embedding.tables.values()]
            dense, *columns = own.split([embedding.dense, *widths])
            weights.append(dense)
            tables += [cast(nn.Embedding, t).weight @ w for t, w in zip(embedding.tables.values(), columns, strict=True)]
        runs = [(len(list(run)), width) for width, run in groupby(each.out for each in encoders)]
        return cls(_Columns.of(groups), torch.cat(weights), torch.cat(tables), runs)

    def __call__(self, batch: GraphBatch, plan: SmallPlan, order: Sequence[str], constants: Sequence[Tensor]) -> Tensor:
        """Return the states of all nodes, zero beyond their type's width: [N, H]."""
        bias, gain, shift = constants
        ids = torch.cat([batch.ids[name].flatten() for name in order]).add_(plan.id_rows)
        named = _bag(self.embedded, ids, plan.id_bounds)
        scaled = self.columns.scaled([batch.x[name] for name in order])
        state = torch.addmm(named.add_(bias), scaled, self.weight).relu_()
        return torch.addcmul(shift, self._normed(state, plan.counts), gain)

    def _normed(self, state: Tensor, counts: list[int]) -> Tensor:
        if len(self.widths) == 1:
            return functional.layer_norm(state, state.shape[1:])
        types, parts = iter(counts), []
        sizes = [sum(next(types) for _ in range(run)) for run, _ in self.widths]
        for (_, width), part in zip(self.widths, state.split(sizes), strict=True):
            normed = functional.layer_norm(part[:, :width], (width,))
            parts.append(functional.pad(normed, (0, state.shape[1] - width)))
        return torch.cat(parts)


@dataclass(frozen=True)
class _Edges:
    """All edge attributes: `tables` are (relation's place, embeddings of its ids).

    `describe` [2 * columns, sum of out] maps a node's means of attributes, as declared and reversed, to its messages in all
    rounds; `notice` [columns, attending rounds * 2 * heads] maps an edge's attributes to its scores.
    """

    columns: _Columns
    tables: list[tuple[int, list[Tensor]]]
    describe: Tensor
    notice: Tensor

    @classmethod
    def of(cls, edges: Mapping[Triple, GroupEmbedding], messages: Sequence[Messages]) -> "_Edges":
        """Order the weights of the relations' embeddings and of the rounds that read them."""
        ordered = [edges[relation.triple] for relation in RELATIONS]
        tables = [[cast(nn.Embedding, table).weight for table in each.tables.values()] for each in ordered]
        widths = [each.width for each in ordered]
        describe = torch.cat([_described(each, widths) for each in messages], 1)
        noticed = [_noticed(each, widths) for each in messages if isinstance(each, Attention)]
        notice = torch.cat(noticed, 1) if noticed else describe.new_zeros(sum(widths), 0)
        columns = _Columns.of([(each, each.width) for each in ordered])
        return cls(columns, [(n, found) for n, found in enumerate(tables) if found], describe, notice)

    def __call__(self, batch: GraphBatch) -> Tensor:
        """Return the embedded attributes of all edges, each relation in columns of its own: [E, columns]."""
        parts = [batch.edge_attr[relation.triple] for relation in RELATIONS]
        for place, tables in self.tables:
            ids = batch.edge_ids[RELATIONS[place].triple].unbind(1)
            parts[place] = torch.cat([parts[place], *(table[column] for table, column in zip(tables, ids, strict=True))], 1)
        return self.columns.scaled(parts)


def _spans(widths: Sequence[int]) -> dict[Triple, slice]:
    """Return the columns of each relation."""
    ends = torch.tensor(widths).cumsum(0).tolist()
    return {r.triple: slice(end - width, end) for r, width, end in zip(RELATIONS, widths, ends, strict=True)}


def _described(messages: Messages, widths: Sequence[int]) -> Tensor:
    """Return the D of all directions, zero for those that the round leaves out: [2 * columns, out]."""
    found, spans = torch.zeros(2, sum(widths), messages.out), _spans(widths)
    for name, ways in messages.directions.reached.items():
        each = messages.describe[name].split([spans[way.relation].stop - spans[way.relation].start for way in ways])
        for way, weight in zip(ways, each, strict=True):
            found[int(way.triple != way.relation), spans[way.relation]] = weight
    return found.flatten(0, 1)


def _noticed(attention: Attention, widths: Sequence[int]) -> Tensor:
    """Return c of all directions: [columns, 2 * heads]."""
    found, spans = torch.zeros(sum(widths), 2, attention.heads), _spans(widths)
    for way in attention.directions.each:
        found[spans[way.relation], int(way.triple != way.relation)] = attention.noticing(way).t()
    return found.flatten(1)


@dataclass(frozen=True)
class _Given:
    """What all rounds of a batch read: its plan and its edges' scores, flat. `space` is where they put their products."""

    plan: SmallPlan
    noticed: Tensor
    space: Tensor


@dataclass(frozen=True)
class _Round:
    """One round: for each type `weights` [in, blocks * out] of all its products; None for a type without products."""

    layout: RoundLayout
    weights: list[Tensor | None]
    widths: list[int]

    @classmethod
    def of(cls, messages: MessageRound, shape: RoundShape, order: Sequence[str]) -> "_Round":
        """Order the weights of a round."""
        inner = cast(Messages, messages.messages)
        layout = RoundLayout(
            heads=inner.heads,
            out=inner.out,
            attends=isinstance(inner, Attention),
            leaving=tuple(inner.directions.leaving[name] for name in order),
            updated=tuple(name in messages.own for name in order),
            skipped=tuple(name in messages.skip for name in order),
        )
        weights: list[Tensor | None] = []
        for name, blocks in zip(order, layout.blocks(order), strict=True):
            parts = list(_products(messages, inner, name))
            if blocks:
                scored = blocks * layout.out - sum(part.shape[1] for part in parts)
                parts.append(parts[0].new_zeros(len(parts[0]), scored) if parts else torch.zeros(shape.widths[name], scored))
            weights.append(torch.cat(parts, 1) if blocks else None)
        return cls(layout, weights, [shape.widths[name] for name in order])

    def __call__(self, table: Tensor, given: "_Given", at: RoundPlan, constants: Sequence[Tensor]) -> Tensor:
        """Return the states of the receivers [R, out]; `constants` are their messages from attributes, gains and shifts."""
        plan, noticed = given.plan, given.noticed
        out, kept = self.layout.out, []
        described, gain, shift = (part[at.first :] for part in constants) if at.first else constants
        count = sum(at.rows_of)
        sent = given.space[: count * out].view(count, out)
        each = zip(table.split(plan.counts), sent.split(at.rows_of), strict=True)
        for place, (state, rows) in enumerate(each):
            weight, width = self.weights[place], self.widths[place]
            state = state if state.shape[1] == width else state[:, :width]
            products = state if weight is None else torch.mm(state, weight, out=rows.view(len(state), weight.shape[1]))
            if any(self.layout.skipped) and self.layout.updated[place]:
                end = self.layout.scores_at(place) * out
                kept.append(products[:, end - out : end] if self.layout.skipped[place] else state)
        shares = at.shares if at.attended is None else _attention(sent, noticed, at.attended, plan.slots).mul_(at.shares)
        total = _bag(sent, at.rows, at.bounds, shares.flatten()).add_(sent.index_select(0, at.own)).add_(described)
        fresh = functional.gelu(torch.addcmul(shift, functional.layer_norm(total, (out,)), gain))
        return fresh.add_(torch.cat(kept) if kept else table[at.first :])


def _products(messages: MessageRound, inner: Messages, name: str) -> Iterator[Tensor]:
    """Yield the weights of all that reads the states of a type, [in, some], in order of `RoundLayout`."""
    if name in inner.send:
        yield inner.send[name].transpose(0, 1).flatten(1)
    if name in messages.own:
        yield cast(nn.Linear, messages.own[name]).weight.t()
    if name in messages.skip:
        yield cast(nn.Linear, messages.skip[name]).weight.t()
    if isinstance(inner, Attention):
        if name in inner.send:
            yield inner.folded(name).t()
        if name in inner.receive:
            yield inner.receive[name].t()


def _attention(sent: Tensor, noticed: Tensor, at: Attended, slots: int) -> Tensor:
    """Return the attention of each edge and head among the edges of its receiver and direction: [E, heads]."""
    logits = functional.leaky_relu_(sent.take(at.scored).sum(0).add_(noticed.take(at.noticed)), SLOPE)
    shape = slots, logits.shape[1]
    top = logits.new_full(shape, -torch.inf).scatter_reduce_(0, at.slots, logits, "amax")
    risen = logits.sub_(top.index_select(0, at.slot)).exp_()
    total = risen.new_zeros(shape).scatter_add_(0, at.slots, risen)
    return risen.div_(total.index_select(0, at.slot))


def _bag(table: Tensor, rows: Tensor, bounds: Tensor, shares: Tensor | None = None) -> Tensor:
    """Sum rows of `table`, times their `shares`, from each of `bounds` to the next; without the checks of `functional`."""
    found: Tensor = torch.embedding_bag(table, rows, bounds, False, 0, False, shares, True)[0]
    return found


class SmallRounds:
    """The encoders and rounds of a network, for small batches without gradients."""

    def __init__(
        self,
        encoders: Mapping[str, NodeEncoder],
        edges: Mapping[Triple, GroupEmbedding],
        rounds: Sequence[MessageRound],
        shapes: Sequence[RoundShape],
    ) -> None:
        """Put the weights in order. They are copied, so a change of them needs a new object."""
        self._read = [name for name in ALL_TYPES if name in shapes[-1].receivers]
        order = tuple(sorted(ALL_TYPES, key=lambda name: name in self._read))
        each = [encoders[name] for name in order]
        self._encoders = _Encoders.of(each)
        self._edges = _Edges.of(edges, [cast(Messages, one.messages) for one in rounds])
        self._rounds = [_Round.of(one, shape, order) for one, shape in zip(rounds, shapes, strict=True)]
        self._layout = Layout(order, tuple(one.layout for one in self._rounds))
        widest, outs = max(one.out for one in each), [shape.out for shape in shapes]
        rows = [_constants(encoder, rounds, name, widest, outs) for name, encoder in zip(order, each, strict=True)]
        self._constants = torch.stack([torch.cat(row) for row in rows])
        self._sizes = [widest, widest, widest, sum(outs), *outs, *outs]
        self._spaces: list[Tensor] = []

    def __call__(self, batch: GraphBatch) -> States:
        """Return the node states after the last round, of the types that it updates."""
        nodes = {name: batch.num_nodes(name) for name in ALL_TYPES}
        plan = batch.follows(("small", self._layout), lambda: small_plan(self._layout, nodes, batch.edge_index))
        own = self._constants.index_select(0, plan.types).split(self._sizes, 1)
        table = self._encoders(batch, plan, self._layout.order, own[:3])
        attributes = self._edges(batch)
        means = _bag(attributes, plan.edges, plan.sides, plan.shares).view(len(table), -1)
        described = torch.addmm(own[3], means, self._edges.describe).split([one.layout.out for one in self._rounds], 1)
        given = _Given(plan, torch.mm(attributes, self._edges.notice), self._space_of(plan))
        each = zip(self._rounds, plan.rounds, described, own[4:], own[4 + len(self._rounds) :], strict=False)
        for one, at, *constants in each:
            table = one(table, given, at, constants)
        self._spaces.append(given.space)
        parts = table.split([nodes[name] for name in self._read])
        return States(dict(zip(self._read, parts, strict=True)))

    def _space_of(self, plan: SmallPlan) -> Tensor:
        """Return memory for the largest round's products, used again if it suffices; each call has its own while it runs.

        Memory that each call allocates may go back to the system after it, which costs more than the products.
        """
        size = max(sum(at.rows_of) * one.layout.out for one, at in zip(self._rounds, plan.rounds, strict=True))
        try:
            space = self._spaces.pop()
        except IndexError:
            space = None
        if space is not None and len(space) >= size:
            return space
        with torch.inference_mode(False):  # it is written to in any mode
            return torch.empty(size)


def _constants(
    encoder: NodeEncoder, rounds: Sequence[MessageRound], name: str, widest: int, outs: Sequence[int]
) -> list[Tensor]:
    """Return a node type's bias, gain and shift of its encoder, then its biases, gains and shifts of all rounds."""
    affine = encoder.linear.bias, encoder.norm.weight, encoder.norm.bias
    found = [functional.pad(part, (0, widest - encoder.out)) for part in affine]
    none = [torch.zeros(out) for out in outs]
    norms = [cast(nn.LayerNorm, one.norm[name]) if name in one.norm else None for one in rounds]
    found += [cast(nn.Linear, one.own[name]).bias if name in one.own else zero for one, zero in zip(rounds, none, strict=True)]
    found += [zero if norm is None else norm.weight for norm, zero in zip(norms, none, strict=True)]
    return found + [zero if norm is None else norm.bias for norm, zero in zip(norms, none, strict=True)]
