"""Find the position of a graph's seeds among its layers and relative to each other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gnn.join.rows import Bools, Floats, Ints


@dataclass(frozen=True)
class Sites:
    """S seeds and the layers that they monitor.

    `packet` int64 [S] is the graph of each seed. `seed` and `layer` int64 [E] are node numbers, one pair per monitored layer,
    in order of seed and of the layer's topological position. `depth` float64 [S] is the mean position of the seed's layers
    divided by the number of layers in its graph, NaN if it monitors none.
    """

    packet: Ints
    seed: Ints
    layer: Ints
    depth: Floats

    @classmethod
    def of(cls, packet: Ints, seed: Ints, layer: Ints, positions: Ints, layers: Ints) -> "Sites":
        """Sort the pairs and compute `depth`.

        `positions` int64 [layers] is each layer node's place in its graph, `layers` int64 [S] the number of layers in each
        seed's graph.
        """
        order = np.lexsort((positions[layer], seed))
        seed, layer = seed[order], layer[order]
        count = np.bincount(seed, minlength=len(packet))
        total = np.bincount(seed, weights=positions[layer], minlength=len(packet))
        depth = np.where(count > 0, total / np.maximum(count, 1) / np.maximum(layers, 1), np.nan)
        return cls(packet, seed, layer, depth)

    @cached_property
    def last(self) -> Ints:
        """The last layer (int64 [S]) that each seed monitors, in topological order; -1 if it monitors none."""
        found = np.full(len(self.packet), -1, dtype=np.int64)
        found[self.seed] = self.layer  # in order of position, so the last one stays
        return found

    @cached_property
    def before(self) -> Floats:
        """The number of seeds in the graph with a smaller depth, float64 [S]; NaN without a depth."""
        return self._exceeding(self.depth)

    @cached_property
    def after(self) -> Floats:
        """The number of seeds in the graph with a greater depth, float64 [S]; NaN without a depth."""
        return self._exceeding(-self.depth)

    def _exceeding(self, depth: Floats) -> Floats:
        """Return the number of seeds in its graph that each seed exceeds in `depth`: float64 [S]."""
        found = np.full(len(depth), np.nan)
        order = np.lexsort((depth, self.packet))
        order = order[np.isfinite(depth[order])]
        packet, value, place = self.packet[order], depth[order], np.arange(len(order))
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = packet[1:] != packet[:-1]
        first = np.maximum.accumulate(np.where(fresh, place, 0))
        fresh[1:] |= value[1:] != value[:-1]
        found[order] = np.maximum.accumulate(np.where(fresh, place, 0)) - first
        return found

    def any_of(self, marks: Bools, known: Bools) -> Floats:
        """Return 1 if a monitored layer is marked (`marks` bool [layers]), else 0, float64 [S]; NaN if none is `known`."""
        marked = np.bincount(self.seed, weights=marks[self.layer], minlength=len(self.packet))
        judged = np.bincount(self.seed, weights=known[self.layer], minlength=len(self.packet))
        return np.where(judged > 0, (marked > 0).astype(np.float64), np.nan)
