"""Plan the message passing of a batch: for each direction, which side is multiplied, and its edges in order of receivers.

A direction is a relation or its reverse. Its product, weights times states, can come before the sum over edges, with one row
per sender, or after it, with one row per receiver; the plan chooses the side with fewer rows. Directions with small tables
are summed together in one lot, because on small batches the number of calls dominates the cost; for the same reason, all
products come first if all fit into one lot.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate, groupby, pairwise
from typing import Final, TypeVar

import torch
from torch import Tensor

from schemas.features import NODE_TYPES, RELATIONS

Triple = tuple[str, str, str]
ALL_TYPES: Final[tuple[str, ...]] = tuple(node.name for node in NODE_TYPES)
_RELATIONS: Final[tuple[Triple, ...]] = tuple(relation.triple for relation in RELATIONS)
_LOT_ROWS, _LOT_ROWS_ON_CUDA = 1 << 11, 1 << 17  # most rows in the table of a lot of several directions
_JOINED: Final = 256  # up to this many senders, one product for several directions is faster than one for each
_FEW: Final = 32  # up to this many rows, the cost of a product depends on its weights alone


@dataclass(frozen=True)
class Direction:
    """A relation or its reverse, from node type `source` to `target`.

    `leaving`, `arriving` and `described` are its places among the directions that leave `source`, that reach `target` and
    that belong to the same relation.
    """

    relation: Triple
    triple: Triple
    source: str
    target: str
    leaving: int
    arriving: int
    described: int


@dataclass(frozen=True)
class Directions:
    """The directions that reach the node types `receivers`.

    `leaving`, `arriving` and `described` count the directions that leave each node type, that reach it and that belong to
    each relation.
    """

    receivers: tuple[str, ...]
    each: tuple[Direction, ...]
    leaving: Mapping[str, int]
    arriving: Mapping[str, int]
    described: Mapping[Triple, int]

    @classmethod
    @cache
    def reaching(cls, receivers: tuple[str, ...]) -> "Directions":
        """Assign numbers to the directions that reach those node types: all relations, then all reverses, in declared order."""
        leaving, arriving = dict.fromkeys(ALL_TYPES, 0), dict.fromkeys(ALL_TYPES, 0)
        described, each = dict.fromkeys(_RELATIONS, 0), []
        ways = [(r.triple, r.triple) for r in RELATIONS] + [(r.triple, r.reverse) for r in RELATIONS]
        for relation, triple in ways:
            source, _, target = triple
            if target in receivers:
                places = leaving[source], arriving[target], described[relation]
                each.append(Direction(relation, triple, source, target, *places))
                leaving[source] += 1
                arriving[target] += 1
                described[relation] += 1
        return cls(receivers, tuple(each), leaving, arriving, described)

    @cached_property
    def reached(self) -> dict[str, tuple[Direction, ...]]:
        """The directions that reach each of `receivers`, in order of `arriving`."""
        return {name: tuple(way for way in self.each if way.target == name) for name in self.receivers}


@dataclass(frozen=True)
class Lot:
    """Directions (`ways`) whose edges are summed together; their slots, one per receiver, are consecutive.

    `blocks` are the same directions in order of senders: (source, slice of `leaving`), several in a slice if the senders are
    few and products come first. If `products_first`, an edge's row is
    one of the products of the directions in order of `blocks`, else one of the states of all nodes. `targets` are runs of
    `ways` with the same target: (target, number of ways), and `slots` the number of slots of each run. `edges` and `bounds`
    are the lot's slices of the plan's edges and of its `begins`.
    """

    products_first: bool
    ways: tuple[Direction, ...]
    blocks: tuple[tuple[str, slice], ...]
    targets: tuple[tuple[str, int], ...]
    slots: list[int]
    edges: slice
    bounds: slice


@dataclass(frozen=True)
class Arrangement:
    """The order of a batch's edges by lot and direction, which follows from its numbers of nodes and edges.

    `slots_of` are the slots of each direction that has edges. `cuts` are the sizes of the pieces into which the directions
    that leave each type fall, so that each block is one piece. `constants` int64 [10, directions] are three factors and three
    summands for `MessagePlan.scored`, the first row in the lot's table, the first slot, the number of directions that reach
    the target, and the shift to an edge in the list of all edges followed by all reverses. `repeats` int64 [directions] is
    the number of edges of each.
    """

    lots: tuple[Lot, ...]
    slots_of: Mapping[Triple, slice]
    slots: int
    edges: int
    cuts: Mapping[str, list[int]]
    constants: Tensor
    repeats: Tensor


@dataclass(frozen=True)
class MessagePlan:
    """E edges in order of lot, direction and receiver; a slot is a receiver in one direction.

    `slot` int64 [E] is the slot of each edge, `begins` int64 [slots + 1] where the edges of each slot begin, `rows` int64 [E]
    the row of each edge in the table of its lot. `part` float32 [E] is 1 / (number of directions that reach the receiver's
    type); `share` float32 [E] is `part` divided by the number of edges in the slot. `numbers` int64 [3, E] holds each edge's
    sender and receiver, numbered within their node types, and the edge itself, numbered among those of all relations.
    """

    arranged: Arrangement
    slot: Tensor
    begins: Tensor
    rows: Tensor
    part: Tensor
    share: Tensor
    numbers: Tensor

    @cached_property
    def scored(self) -> Tensor:
        """The score rows of each edge's sender, of its receiver and of the edge itself: int64 [3, E].

        A node has one row as a sender for each direction that leaves its type, and one as a receiver for each direction that
        reaches it. An edge has one row for each direction of its relation.
        """
        constants, repeats = self.arranged.constants[:6].to(self.slot.device), self.arranged.repeats.to(self.slot.device)
        each = constants.repeat_interleave(repeats, dim=1, output_size=len(self.slot))
        return self.numbers * each[:3] + each[3:]


def message_plan(
    nodes: Mapping[str, int],
    edge_index: Mapping[Triple, Tensor],
    directions: Directions,
    *,
    reverse_order: Mapping[Triple, Tensor] | None = None,
    rows_of_lot: int | None = None,
) -> MessagePlan:
    """Build the plan of `nodes` {node type: N} and `edge_index` {relation: int64 [2, E]}.

    If `reverse_order` {relation: int64 [E]} is given, edges must be in order of their targets, and it is the permutation that
    puts them in order of their sources; without it the edges are sorted here. `rows_of_lot` bounds the table of a lot of
    several directions; None chooses a size that is fast on the edges' device.
    """
    counts = {triple: edge_index[triple].shape[1] for triple in _RELATIONS}
    forward = torch.cat([edge_index[triple] for triple in _RELATIONS], dim=1)
    device, limit = forward.device, rows_of_lot or (_LOT_ROWS_ON_CUDA if forward.is_cuda else _LOT_ROWS)
    arrange = arrangement if torch.compiler.is_compiling() else _known  # to a compiler, numbers of nodes are symbols
    arranged = arrange(tuple(nodes[name] for name in ALL_TYPES), tuple(counts.values()), directions.receivers, limit)
    constants, repeats = arranged.constants[6:].to(device), arranged.repeats.to(device)
    first_row, first_slot, arriving, shift = constants.repeat_interleave(repeats, dim=1, output_size=arranged.edges)
    edge = _edges_in_order(arranged, counts, reverse_order, device)
    sender, receiver = torch.cat([forward, forward.flip(0)], dim=1)[:, edge + shift]
    numbers, slot = torch.stack([sender, receiver, edge]), receiver + first_slot
    if reverse_order is None:
        order = torch.argsort(slot, stable=True)
        numbers, slot = numbers[:, order], slot[order]
    sizes = torch.bincount(slot, minlength=arranged.slots)
    begins = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    part = arriving.to(torch.float32).reciprocal()
    return MessagePlan(arranged, slot, begins, numbers[0] + first_row, part, part / sizes[slot], numbers)


def arrangement(nodes: tuple[int, ...], counts: tuple[int, ...], receivers: tuple[str, ...], limit: int) -> Arrangement:
    """Arrange `nodes` (in order of node types) and the edges `counts` (in order of relations) in lots of `limit` rows."""
    directions = Directions.reaching(receivers)
    rows, edges = dict(zip(ALL_TYPES, nodes, strict=True)), dict(zip(_RELATIONS, counts, strict=True))
    chosen, lots, slots_of = _lots(rows, edges, directions, limit), [], {}
    edge = slot = 0
    for first, ways in chosen:
        targets = tuple((target, len(list(run))) for target, run in groupby(way.target for way in ways))
        slots, begun = [rows[target] * count for target, count in targets], (edge, slot)
        for way in ways:
            slots_of[way.triple] = slice(slot, slot + rows[way.target])
            edge, slot = edge + edges[way.relation], slot + rows[way.target]
        found = slice(begun[0], edge), slice(begun[1], slot + 1)
        blocks = _blocks(ways, {name for name in ALL_TYPES if first and rows[name] <= _JOINED})
        lots.append(Lot(first, tuple(ways), blocks, targets, slots, *found))
    with torch.inference_mode(False):  # what is kept must also serve training
        constants = torch.tensor(_constants(rows, edges, directions, chosen), dtype=torch.int64).view(-1, 10).t()
        repeats = torch.tensor([edges[way.relation] for _, ways in chosen for way in ways], dtype=torch.int64)
    return Arrangement(tuple(lots), slots_of, slot, edge, _cuts(lots, directions), constants, repeats)


_known: Final = lru_cache(maxsize=256)(arrangement)  # the packets of a host have graphs of the same sizes


def products_first(senders: int, receivers: int) -> bool:
    """Return whether a direction multiplies the states of its senders; else it multiplies the sums at its receivers."""
    return senders <= max(receivers, _FEW)


def _edges_in_order(
    arranged: Arrangement,
    counts: Mapping[Triple, int],
    reverse_order: Mapping[Triple, Tensor] | None,
    device: torch.device,
) -> Tensor:
    """Return the numbers of all directions' edges among those of all relations: int64 [E].

    Those of a direction are in order of its receivers if `reverse_order` is given.
    """
    every, at = torch.arange(sum(counts.values()), device=device), _starts(counts)
    parts = [every[:0]]
    for way in (way for lot in arranged.lots for way in lot.ways):
        start = at[way.relation]
        if reverse_order is None or way.triple == way.relation:
            parts.append(every[start : start + counts[way.relation]])
        else:
            parts.append(reverse_order[way.relation] + start)
    return torch.cat(parts)


def _lots(
    nodes: Mapping[str, int], counts: Mapping[Triple, int], directions: Directions, limit: int
) -> list[tuple[bool, list[Direction]]]:
    """Return the directions that have edges, lot by lot, and whether a lot's products come first.

    If the products of all directions fit into one lot, there is only this lot.
    """
    ways = [way for name in directions.receivers for way in directions.reached[name] if counts[way.relation]]
    if ways and sum(nodes[way.source] for way in ways) <= limit:
        return [(True, ways)]
    lots: list[tuple[bool, list[Direction]]] = []
    for first in (True, False):
        rows = limit
        for way in ways:
            if products_first(nodes[way.source], nodes[way.target]) != first:
                continue
            own = nodes[way.source if first else way.target]
            if rows + own > limit:
                lots.append((first, []))
                rows = 0
            lots[-1][1].append(way)
            rows += own
    return lots


def _by_sender(ways: list[Direction]) -> list[Direction]:
    return sorted(ways, key=lambda way: (ALL_TYPES.index(way.source), way.leaving))


def _blocks(ways: list[Direction], joined: Collection[str]) -> tuple[tuple[str, slice], ...]:
    """Return (source, slice of `leaving`) of `ways` in order of senders; as few as possible for the sources `joined`."""
    found: list[tuple[str, slice]] = []
    for way in _by_sender(ways):
        if way.source in joined and found and found[-1][0] == way.source and found[-1][1].stop == way.leaving:
            found[-1] = (way.source, slice(found[-1][1].start, way.leaving + 1))
        else:
            found.append((way.source, slice(way.leaving, way.leaving + 1)))
    return tuple(found)


def _cuts(lots: list[Lot], directions: Directions) -> dict[str, list[int]]:
    found = {}
    for name, count in directions.leaving.items():
        places = [place for lot in lots for source, place in lot.blocks if source == name]
        ends = sorted({0, count, *(place.start for place in places), *(place.stop for place in places)})
        found[name] = [after - before for before, after in pairwise(ends)]
    return found


def _constants(
    nodes: Mapping[str, int],
    counts: Mapping[Triple, int],
    directions: Directions,
    lots: list[tuple[bool, list[Direction]]],
) -> list[tuple[int, ...]]:
    """Return the ten constants of each direction, see `Arrangement`."""
    leaving, arriving, described = directions.leaving, directions.arriving, directions.described
    node_at, edge_at, size = _starts(nodes), _starts(counts), sum(counts.values())
    sender_at = _starts({name: nodes[name] * leaving[name] for name in ALL_TYPES})
    receiver_at = _starts({name: nodes[name] * arriving[name] for name in ALL_TYPES})
    described_at = _starts({triple: count * described[triple] for triple, count in counts.items()})
    found: list[tuple[int, ...]] = []
    slot = 0
    for first, lot in lots:
        product_at = _starts({way.triple: nodes[way.source] for way in _by_sender(lot)})
        for way in lot:
            source, target, relation = way.source, way.target, way.relation
            factors = (leaving[source], arriving[target], described[relation])
            summands = (
                sender_at[source] + way.leaving,
                receiver_at[target] + way.arriving,
                described_at[relation] + way.described - edge_at[relation] * described[relation],
            )
            first_row = product_at[way.triple] if first else node_at[source]
            shift = 0 if way.triple == relation else size
            found.append((*factors, *summands, first_row, slot, arriving[target], shift))
            slot += nodes[target]
    return found


_Key = TypeVar("_Key", bound=Hashable)


def _starts(sizes: Mapping[_Key, int]) -> dict[_Key, int]:
    """Return where each block begins if blocks of these sizes follow each other."""
    return dict(zip(sizes, [0, *accumulate(sizes.values())], strict=False))
