"""The message plan of a batch: the edges of all directions as one list, in order of the node that receives them.

A direction is a relation or its reverse. With all edges in one list, one weighted bag sum carries the messages of every
direction at once, and one softmax serves all attention of a round.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeVar

import torch
from torch import Tensor

from schemas.features import NODE_TYPES, RELATIONS

Triple = tuple[str, str, str]
ALL_TYPES: Final[tuple[str, ...]] = tuple(node.name for node in NODE_TYPES)
_RELATIONS: Final[tuple[Triple, ...]] = tuple(relation.triple for relation in RELATIONS)


@dataclass(frozen=True)
class Direction:
    """A relation or its reverse, and its place among those that leave `source`, reach `target` and share the relation."""

    relation: Triple
    triple: Triple
    leaving: int
    arriving: int
    described: int

    @property
    def source(self) -> str:
        """Node type that sends."""
        return self.triple[0]

    @property
    def target(self) -> str:
        """Node type that receives."""
        return self.triple[2]


@dataclass(frozen=True)
class Directions:
    """The directions that reach `receivers`; how many leave and reach each node type, and belong to each relation."""

    receivers: tuple[str, ...]
    each: tuple[Direction, ...]
    leaving: Mapping[str, int]
    arriving: Mapping[str, int]
    described: Mapping[Triple, int]

    @classmethod
    def reaching(cls, receivers: tuple[str, ...]) -> "Directions":
        """Number the directions that reach those node types: all relations, then all reverses, in declared order."""
        leaving, arriving = dict.fromkeys(ALL_TYPES, 0), dict.fromkeys(ALL_TYPES, 0)
        described, each = dict.fromkeys(_RELATIONS, 0), []
        ways = [(r.triple, r.triple) for r in RELATIONS] + [(r.triple, r.reverse) for r in RELATIONS]
        for relation, triple in ways:
            source, _, target = triple
            if target in receivers:
                each.append(Direction(relation, triple, leaving[source], arriving[target], described[relation]))
                leaving[source] += 1
                arriving[target] += 1
                described[relation] += 1
        return cls(receivers, tuple(each), leaving, arriving, described)


@dataclass(frozen=True)
class MessagePlan:
    """E edges of all directions, sorted by receiving node, then direction; nodes are numbered through all types.

    `sent` int64 [E] is the row of what the edge's sender sends in its direction, in a table with `leaving[t]` rows a node of
    type t. `received` int64 [E] is likewise a row of a table with `arriving[t]` rows a node, `slots` rows in all: the edges of
    one receiver and direction share it. `edge` int64 [E] is a row of a table with `described[r]` rows an edge of relation r.
    `part` float32 [E] is 1 / (directions that reach the receiver's type), `share` float32 [E] the same over the edges of
    the slot. `offsets` int64 [N + 1] is where the edges of each of N receivers begin.
    """

    sent: Tensor
    received: Tensor
    slots: int
    edge: Tensor
    part: Tensor
    share: Tensor
    offsets: Tensor


def message_plan(nodes: Mapping[str, int], edge_index: Mapping[Triple, Tensor], directions: Directions) -> MessagePlan:
    """Build the plan of `nodes` {node type: N} and `edge_index` {relation: int64 [2, E]}."""
    index = [edge_index[triple] for triple in _RELATIONS]
    counts = [part.shape[1] for part in index]
    sent_at, _ = _starts({name: nodes[name] * directions.leaving[name] for name in ALL_TYPES})
    received_at, slots = _starts({name: nodes[name] * directions.arriving[name] for name in ALL_TYPES})
    edge_at, _ = _starts({r: count * directions.described[r] for r, count in zip(_RELATIONS, counts, strict=True)})
    target_at, receivers = _starts({name: nodes[name] for name in directions.receivers})
    constants = dict.fromkeys([r.triple for r in RELATIONS] + [r.reverse for r in RELATIONS], (0,) * 8)
    for way in directions.each:
        constants[way.triple] = (
            directions.leaving[way.source],
            sent_at[way.source] + way.leaving,
            directions.arriving[way.target],
            received_at[way.target] + way.arriving,
            directions.described[way.relation],
            edge_at[way.relation] + way.described,
            target_at[way.target],
            1,
        )
    forward = torch.cat(index, dim=1)
    device, size = forward.device, forward.shape[1]
    repeats = torch.tensor(counts * 2, device=device)
    table = torch.tensor([*zip(*constants.values(), strict=True)], dtype=torch.int64, device=device)
    table = table.repeat_interleave(repeats, dim=1, output_size=2 * size)
    own = torch.arange(size, device=device) - torch.tensor(_begins(counts), device=device).repeat_interleave(
        repeats[: len(counts)], output_size=size
    )
    source, target = torch.cat([forward, forward.flip(0)], dim=1)
    rows = torch.stack([source, target, torch.cat([own, own])]) * table[0:6:2] + table[1:6:2]
    rows = torch.cat([rows, (target + table[6]).unsqueeze(0), table[2:3]])
    if len(directions.each) < len(constants):
        rows = rows[:, table[7] > 0]
    order = torch.argsort(rows[1], stable=True)  # the rows of a receiver lie together, direction by direction
    sent, received, edge, reached, arriving = rows[:, order]
    part = arriving.to(torch.float32).reciprocal()
    share = part / torch.bincount(received, minlength=slots)[received]
    ends = torch.bincount(reached, minlength=receivers).cumsum(0)
    return MessagePlan(sent, received, slots, edge, part, share, torch.cat([ends.new_zeros(1), ends]))


_Key = TypeVar("_Key", bound=Hashable)


def _begins(sizes: Iterable[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]


def _starts(sizes: Mapping[_Key, int]) -> tuple[dict[_Key, int], int]:
    """Return where each block begins, and the sum of all."""
    return dict(zip(sizes, _begins(sizes.values()), strict=True)), sum(sizes.values())
