"""Define the layout of a graph in the dataset's three streams of numbers, each a file; a graph is contiguous in each of them.

All hold the groups (node types, then relations) in declared order. Of each group, `VALUES` (little-endian float32) holds the
values of its `x` or `edge_attr` row by row, `MARKS` the channels of it that are 0 or 1, eight to a byte, each row in whole
bytes, and `INTS` (little-endian int32) the blocks of `BLOCKS`, one after the other.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from gnn.encode.encoding import LAYOUTS
from gnn.join.rows import Ints, offsets
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


@dataclass(frozen=True, eq=False)
class Stream:
    """A file of numbers: part p of a graph has `width[p]` numbers per row of the group `group[p]`; both int64 [parts].

    `shift[p]` is the group whose rows the numbers of part p number, if they do; see `Block`.
    """

    file: str
    dtype: str
    group: Ints
    width: Ints
    shift: tuple[int | None, ...]

    def lengths(self, counts: Ints) -> Ints:
        """Return the number of values of each part: int64 [G, parts] from `counts` [G, groups], the graphs' rows per group."""
        return np.asarray(counts[:, self.group] * self.width, dtype=np.int64)

    def first(self, counts: Ints) -> Ints:
        """Return where each graph starts in a stream of just these, and where the last one ends: int64 [G + 1]."""
        return offsets(self.lengths(counts).sum(axis=1))

    def starts(self, counts: Ints, first: Ints) -> Ints:
        """Return where each part of each graph starts: int64 [G, parts]; graph g starts at `first[g]`, int64 [G]."""
        lengths = self.lengths(counts)
        return first[:, None] + np.cumsum(lengths, axis=1) - lengths


def _of_groups(file: str, dtype: str, width: list[int]) -> Stream:
    return Stream(file, dtype, np.arange(len(GROUPS)), np.array(width, dtype=np.int64), (None,) * len(GROUPS))


def _of_blocks(file: str, dtype: str, blocks: tuple[Block, ...]) -> Stream:
    group, width = np.array([block.group for block in blocks]), np.array([block.width for block in blocks], dtype=np.int64)
    return Stream(file, dtype, group, width, tuple(block.shift for block in blocks))


VALUES: Final = _of_groups("values.bin", "<f4", [LAYOUTS[group.family].value_width for group in GROUPS])
MARKS: Final = _of_groups("marks.bin", "u1", [LAYOUTS[group.family].mark_width // 8 for group in GROUPS])
INTS: Final = _of_blocks("ints.bin", "<i4", BLOCKS)
STREAMS: Final = (VALUES, MARKS, INTS)


def _without_prose(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in ("doc", "note")}


@cache
def declaration_digest() -> str:
    """Return the SHA-256 (hex) of the feature declaration that the layout follows, without its documentation."""
    whole = [asdict(group, dict_factory=_without_prose) for group in GROUPS]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode("utf-8")).hexdigest()
