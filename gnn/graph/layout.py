"""Define the layout of a graph in the dataset's two streams: floats (little-endian float32) and integers (little-endian int32).

A graph is contiguous in each stream. Both hold the groups (node types, then relations) in declared order: the floats of a
group are its `x` or `edge_attr`, row by row; its integers are the blocks of `BLOCKS`, one after the other.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from gnn.join.rows import Ints, expand, offsets
from schemas.features import GROUPS, NODE_TYPES, RELATIONS


@dataclass(frozen=True)
class Block:
    """One integer array of a group with `width` columns: ids, names, source, target or order.

    `shift` is the group whose rows the values number: a batch adds the graph's first row of that group to them.
    """

    group: int
    name: str
    width: int
    shift: int | None = None


def _blocks() -> tuple[Block, ...]:
    found = []
    types = {node.name: place for place, node in enumerate(NODE_TYPES)}
    for place, node in enumerate(NODE_TYPES):
        found += [Block(place, "ids", len(node.categorical)), Block(place, "names", 1)]
    for place, relation in enumerate(RELATIONS, len(NODE_TYPES)):
        found.append(Block(place, "ids", len(relation.categorical)))
        found.append(Block(place, "source", 1, types[relation.source]))
        found.append(Block(place, "target", 1, types[relation.target]))
        found.append(Block(place, "order", 1, place))
    return tuple(found)


BLOCKS: Final = _blocks()
FLOAT_GROUP: Final = np.arange(len(GROUPS))
FLOAT_WIDTH: Final = np.array([group.width for group in GROUPS], dtype=np.int64)
BLOCK_GROUP: Final = np.array([block.group for block in BLOCKS], dtype=np.int64)
BLOCK_WIDTH: Final = np.array([block.width for block in BLOCKS], dtype=np.int64)


def _without_prose(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in ("doc", "note")}


@cache
def declaration_digest() -> str:
    """Return the SHA-256 (hex) of the feature declaration that the layout follows, without its documentation."""
    whole = [asdict(group, dict_factory=_without_prose) for group in GROUPS]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode("utf-8")).hexdigest()


class Places:
    """Positions of the parts of some graphs in a stream: part-major, so that a gather returns whole arrays in succession.

    `starts` and `lengths` int64 [parts, G]; `counts` int64 [G, groups] are the graphs' rows per group.
    """

    def __init__(self, counts: Ints, first: Ints, group: Ints, width: Ints) -> None:
        """Compute the positions: `first` int64 [G] is each graph's start; part p has counts[:, group[p]] * width[p] values."""
        lengths = counts[:, group] * width
        within = np.cumsum(lengths, axis=1) - lengths
        self.lengths = np.ascontiguousarray(lengths.T)
        self.starts = np.ascontiguousarray((first[:, None] + within).T)

    def indices(self) -> Ints:
        """Return the position in the stream of every value, part by part, graph by graph."""
        return expand(self.starts.ravel(), self.lengths.ravel())

    def bounds(self) -> Ints:
        """Return where the values of each part begin in `indices`: int64 [parts + 1]."""
        return offsets(self.lengths.sum(axis=1))


def sizes(counts: Ints, group: Ints, width: Ints) -> Ints:
    """Return the number of values of each graph in a stream: int64 [G]."""
    return np.asarray((counts[:, group] * width).sum(axis=1), dtype=np.int64)
