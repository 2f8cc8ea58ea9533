"""Plan the forward pass of a small batch: all nodes in one table, and all directed edges in order of their receivers.

A round multiplies the states of each node type once, by all weights that read them, so a node has several rows of width `out`
in the table of products: one for each direction that leaves its type and each head, its own path, its residual if the width
changes, and the scores of its attention. The plan says where each edge finds its rows. It is built with NumPy, whose calls
cost a third of torch's on so few numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnn.graph.plan import ALL_TYPES, Directions, Triple
from schemas.artifacts import REGISTRIES
from schemas.features import NODE_TYPES, RELATIONS

Ints = NDArray[np.int64]
FEW_ROWS: Final = 1 << 11  # most nodes of a small batch, each counted once for each direction that leaves it
_WAYS: Final = Directions.reaching(ALL_TYPES)
_CAPACITIES: Final = {node.name: [REGISTRIES[str(f.registry)].capacity for f in node.categorical] for node in NODE_TYPES}


@dataclass(frozen=True)
class RoundLayout:
    """The blocks of width `out` in one round's products, for each node type in order of `Layout.order`.

    First come the directions that leave the type, `heads` blocks each, then one block if the type is `updated`, one more if
    it is `skipped` (its residual is a product too), then the scores if the round `attends`: those as a sender, by direction
    and head, and those as a receiver.
    """

    heads: int
    out: int
    attends: bool
    leaving: tuple[int, ...]
    updated: tuple[bool, ...]
    skipped: tuple[bool, ...]

    def scores_at(self, place: int) -> int:
        """Return the number of the block in which the scores of a type begin."""
        return self.leaving[place] * self.heads + self.updated[place] + self.skipped[place]

    def blocks(self, order: Sequence[str]) -> list[int]:
        """Return the number of blocks of each type."""
        found = []
        for place, name in enumerate(order):
            before, scores = self.scores_at(place), (self.leaving[place] + _WAYS.arriving[name]) * self.heads
            found.append(before + (-(-scores // self.out) if self.attends and before else 0))
        return found


@dataclass(frozen=True)
class Layout:
    """The order of the node types, in which those that the last round updates come last, and the rounds."""

    order: tuple[str, ...]
    rounds: tuple[RoundLayout, ...]


@dataclass(frozen=True)
class Attended:
    """Where a round with attention finds the scores of E edges by H heads.

    `scored` int64 [2, E, H] are places of the sender's and the receiver's score among all numbers of the products, `noticed`
    int64 [E, H] of the edge's score among those of all edges and rounds. `slot` int64 [E] is each edge's receiver and
    direction, `slots` int64 [E, H] the same for each head.
    """

    scored: Tensor
    noticed: Tensor
    slot: Tensor
    slots: Tensor


@dataclass(frozen=True)
class RoundPlan:
    """Where a round finds its rows: E directed edges to R receivers, the last R nodes.

    `first` is the first receiver, `rows_of` the number of rows of the products of each type. `rows` int64 [E * heads] are
    rows of the products, `bounds` int64 [R + 1] where those of each receiver begin, and `shares` float32 [E, 1] the weight of
    each edge: its part of the mean, which a round that attends multiplies by its attention. `own` int64 [R] are the rows of
    the receivers' own path.
    """

    first: int
    rows_of: list[int]
    rows: Tensor
    bounds: Tensor
    shares: Tensor
    own: Tensor
    attended: Attended | None


@dataclass(frozen=True)
class SmallPlan:
    """The plan of a batch of N nodes and E edges.

    `counts` are the numbers of nodes by type, `types` int64 [N] each node's type, `id_rows` int64 [ids] where the rows of the
    feature of each id begin, and `id_bounds` int64 [N + 1] where the ids of each node begin. `edges` int64 [2 E] are the edges
    in order of receiver and sense (as declared, reversed), `sides` int64 [2 N + 1] where those of each receiver and sense
    begin, and `shares` float32 [2 E] their weights in the mean. `slots` is the number of receivers times directions.
    """

    counts: list[int]
    types: Tensor
    id_rows: Tensor
    id_bounds: Tensor
    edges: Tensor
    sides: Tensor
    shares: Tensor
    slots: int
    rounds: tuple[RoundPlan, ...]


@dataclass(frozen=True)
class _Directed:
    """Directed edges in order of receiver and sense; `bounds` [N + 1] is where those of each receiver begin."""

    order: Ints
    edge: Ints
    sense: Ints
    sender: Ints
    receiver: Ints
    arriving: Ints
    slot: Ints
    bounds: Ints
    part: NDArray[np.float32]
    share: NDArray[np.float32]


@dataclass(frozen=True)
class _Sized:
    """What follows from numbers of nodes and edges: constants of each node, and of each directed edge before it is sorted."""

    types: Ints
    id_rows: Ints
    id_bounds: Ints
    shift: Ints
    part: NDArray[np.float32]
    arriving: Ints
    rounds: tuple["_SizedRound", ...]


@dataclass(frozen=True)
class _SizedRound:
    """For each node: its first row, its own row, and where its scores as a sender and as a receiver begin.

    `block` is the first of each directed edge's rows among those of its sender, `rows_of` the number of rows of each type.
    """

    rows_of: list[int]

    base: Ints
    own: Ints
    sends: Ints
    receives: Ints
    block: Ints


def id_starts(order: Sequence[str]) -> dict[str, list[int]]:
    """Return where the rows of each categorical feature begin if all tables follow each other."""
    starts = iter(accumulate((rows for name in order for rows in _CAPACITIES[name]), initial=0))
    return {name: [next(starts) for _ in _CAPACITIES[name]] for name in order}


def small_plan(layout: Layout, nodes: Mapping[str, int], edge_index: Mapping[Triple, Tensor]) -> SmallPlan:
    """Plan the batch of `nodes` {node type: N} and `edge_index` {relation: int64 [2, E]} on the CPU."""
    ends = [edge_index[relation.triple].numpy() for relation in RELATIONS]
    counts = [nodes[name] for name in layout.order]
    sized = _sized(layout, tuple(counts), tuple(part.shape[1] for part in ends))
    source, target = np.concatenate(ends, axis=1) + sized.shift
    edges, total, most = len(source), sum(counts), max(_WAYS.arriving.values())
    side = np.concatenate([target, source]) * 2
    side[edges:] += 1
    order = np.argsort(side, kind="stable")
    side, arriving, part = side[order], sized.arriving[order], sized.part[order]
    sides, slot = _bounds(side, 2 * total), (side >> 1) * most + arriving
    share = part / np.bincount(slot)[slot].astype(np.float32) if edges else part
    sense = side & 1
    found = _Directed(
        order, order - sense * edges, sense, np.concatenate([source, target])[order], side >> 1, arriving, slot,
        sides[::2], part, share,
    )  # fmt: skip
    each = zip(layout.rounds, sized.rounds, np.cumsum([r.attends for r in layout.rounds]), strict=True)
    attending = sum(r.attends for r in layout.rounds)
    rounds = [_round(shape, one, found, counts, (int(number) - 1, attending)) for shape, one, number in each]
    of = torch.from_numpy
    return SmallPlan(
        counts, of(sized.types), of(sized.id_rows), of(sized.id_bounds), of(found.edge), of(sides), of(share), total * most,
        tuple(rounds),
    )  # fmt: skip


def _round(shape: RoundLayout, one: _SizedRound, all_edges: _Directed, counts: list[int], at: tuple[int, int]) -> RoundPlan:
    """Plan one round; `at` is its number among the rounds that attend, and how many these are."""
    first = sum(count for count, updated in zip(counts, shape.updated, strict=True) if not updated)
    begin = int(all_edges.bounds[first])
    sender, receiver, head = all_edges.sender[begin:], all_edges.receiver[begin:], np.arange(shape.heads)
    block = one.block[all_edges.order[begin:]]
    rows = (one.base[sender] + block)[:, None] + head
    shares, attended, of = all_edges.share[begin:], None, torch.from_numpy
    if shape.attends:
        shares = all_edges.part[begin:] / np.float32(shape.heads)
        scored = np.stack([one.sends[sender] + block, one.receives[receiver] + all_edges.arriving[begin:] * shape.heads])
        noticed = ((all_edges.edge[begin:] * at[1] + at[0]) * 2 + all_edges.sense[begin:]) * shape.heads
        slot = of(all_edges.slot[begin:])
        slots = slot.unsqueeze(1).expand(-1, shape.heads)
        attended = Attended(of(scored[:, :, None] + head), of(noticed[:, None] + head), slot, slots)
    bounds = (all_edges.bounds[first:] - begin) * shape.heads
    return RoundPlan(first, one.rows_of, of(rows.ravel()), of(bounds), of(shares).unsqueeze(1), of(one.own[first:]), attended)


@lru_cache(maxsize=256)
def _sized(layout: Layout, counts: tuple[int, ...], edges: tuple[int, ...]) -> _Sized:
    """Compute what the packets of one host share, because their graphs have the same sizes."""
    order, types = layout.order, np.repeat(np.arange(len(counts)), counts)
    starts = dict(zip(order, accumulate(counts, initial=0), strict=False))
    local = np.arange(len(types)) - np.array(list(starts.values()), dtype=np.int64)[types]
    features, id_at = np.array([len(_CAPACITIES[name]) for name in order]), id_starts(order)
    id_rows = [np.tile(np.array(id_at[name], dtype=np.int64), count) for name, count in zip(order, counts, strict=True)]
    ends = np.array([[starts[r.source] for r in RELATIONS], [starts[r.target] for r in RELATIONS]])
    ways = {way.triple: way for way in _WAYS.each}
    each = [ways[r.triple] for r in RELATIONS] + [ways[r.reverse] for r in RELATIONS]
    part = np.array([1.0 / _WAYS.arriving[way.target] for way in each], dtype=np.float32)
    return _Sized(
        types=types,
        id_rows=np.concatenate(id_rows),
        id_bounds=np.concatenate([[0], np.cumsum(features[types])]),
        shift=np.repeat(ends, edges, axis=1),
        part=np.repeat(part, edges * 2),
        arriving=np.repeat([way.arriving for way in each], edges * 2),
        rounds=tuple(_sized_round(shape, order, types, local, edges) for shape in layout.rounds),
    )


def _sized_round(shape: RoundLayout, order: tuple[str, ...], types: Ints, local: Ints, edges: tuple[int, ...]) -> _SizedRound:
    blocks, places = np.array(shape.blocks(order)), range(len(order))
    rows = blocks * np.bincount(types, minlength=len(order))
    base = (np.cumsum(rows) - rows)[types] + local * blocks[types]
    leaving = np.array(shape.leaving) * shape.heads
    sends = (base + np.array([shape.scores_at(place) for place in places])[types]) * shape.out
    receivers = tuple(name for name in ALL_TYPES if shape.updated[order.index(name)])
    left = {way.triple: way.leaving for way in Directions.reaching(receivers).each}
    block = [left.get(triple, 0) * shape.heads for triple in [r.triple for r in RELATIONS] + [r.reverse for r in RELATIONS]]
    return _SizedRound(rows.tolist(), base, base + leaving[types], sends, sends + leaving[types], np.repeat(block, edges * 2))


def _bounds(groups: NDArray[Any], count: int) -> Ints:
    """Return where each group's members begin in a sorted list: [count + 1]."""
    found = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(groups, minlength=count), out=found[1:])
    return found
