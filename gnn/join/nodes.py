"""Find the nodes of each packet's graph and the rows that describe them.

Layers, activations and parameters are those of the host's Urza graph, else those that the packet's telemetry names. A node
has its packet, its row of `Elements` and its telemetry row (-1 if it has none).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from gnn.join.catalogue import ELEMENT_TABLES, Elements
from gnn.join.rows import Ints, Labels, expand, lengths, offsets

TELEMETRY: Final = {name: f"tolaria.{name}_telemetry" for name in ELEMENT_TABLES}


@dataclass(frozen=True)
class Dangling:
    """References of one family that name nothing in their packet's graph: packet numbers [n] and the names [n].

    If `placeholders` > 0, it is not a reference but that many guard tensors, which stand for missing elements.
    """

    family: str
    packet: Ints
    names: tuple[str, ...]
    placeholders: int = 0


def merge_dangling(found: Iterable[Dangling]) -> tuple[Dangling, ...]:
    """Merge references into one object per family and kind, in order of packet and reference."""
    parts: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for one in found:
        parts.setdefault((one.family, one.placeholders), []).extend(zip(one.packet.tolist(), one.names, strict=True))
    merged = []
    for (family, placeholders), references in sorted(parts.items()):
        if references:
            packets, names = zip(*sorted(references), strict=True)
            merged.append(Dangling(family, np.array(packets, dtype=np.int64), names, placeholders))
    return tuple(merged)


class Nodes:
    """Nodes of one element type: `ptr` int64 [P + 1]; `packet`, `static`, `telemetry` int64 [N]; ids as `names` [N]."""

    def __init__(self, host: Ints, elements: Elements, labels: Labels, owner: Ints) -> None:
        """Find the nodes; `host` int64 [P] is Urza's record of each packet's host, -1 for none.

        `labels` [n + 1] are the ids that the telemetry rows name, `owner` int64 [n] the packets of these rows.
        """
        self.elements = elements
        self._host = np.append(host, -1)
        declared = elements.counts(host)
        self._labels = labels
        named = ((owner >= 0) & (self._labels.codes[:-1] >= 0)).nonzero()[0]
        by_urza = declared[owner[named]] > 0
        own = self._unique(named[~by_urza], owner)
        counts = declared + np.bincount(owner[own], minlength=len(host)) if len(own) else declared
        self.ptr = offsets(counts)
        self.packet: Ints = np.arange(len(host)).repeat(counts)
        self.static: Ints = np.full(len(self.packet), -1, dtype=np.int64)
        self.static[expand(self.ptr[:-1], declared)] = expand(elements.first(host), declared)
        self.telemetry: Ints = np.full(len(self.packet), -1, dtype=np.int64)
        self._index_named(own, owner, declared)
        unmatched = self._match(named[by_urza], owner)
        self.dangling = (owner[unmatched], tuple(self._labels.words[code] for code in self._labels.codes[unmatched].tolist()))

    def _unique(self, rows: Ints, owner: Ints) -> Ints:
        """Return the first row of each packet and id, in order of both."""
        if not len(rows):
            return rows
        order = rows[np.lexsort((rows, self._labels.ranks()[rows], owner[rows]))]
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = (np.diff(owner[order]) != 0) | (np.diff(self._labels.codes[order]) != 0)
        return order[fresh]

    def _index_named(self, own: Ints, owner: Ints, declared: Ints) -> None:
        """Place the nodes that telemetry names, and index them for `locate`."""
        self._codes_of = {word: code for code, word in enumerate(self._labels.words)}
        self._span = len(self._labels.words) + 1
        if not len(own):
            self._keys = self._places = own
            return
        place = np.flatnonzero(np.repeat(declared == 0, lengths(self.ptr)))
        self.telemetry[place] = own
        keys = owner[own] * self._span + self._labels.codes[own]
        order = np.argsort(keys)
        self._keys, self._places = keys[order], place[order]

    def _match(self, rows: Ints, owner: Ints) -> Ints:
        """Assign telemetry rows to Urza's elements, and return the rows that name no element."""
        codes = self._labels.translate(self.elements.codes_of)[rows]
        node = self._declared(owner[rows], codes)
        found = node >= 0
        # assigned in reverse, so that the first row of a key stays
        self.telemetry[node[found][::-1]] = rows[found][::-1]
        return rows[~found]

    def _declared(self, packet: Ints, codes: Ints) -> Ints:
        host = self._host[packet]
        row = self.elements.find(host, codes)
        return np.where(row >= 0, self.ptr[packet] + row - self.elements.first(host), -1)

    def locate(self, packet: Ints, labels: Labels) -> Ints:
        """Return the node (int64 [n]) of each id in its packet's graph; -1 if the graph has none or the packet is -1."""
        node = np.where(packet >= 0, self._declared(packet, labels.translate(self.elements.codes_of)), -1)
        if not len(self._keys):
            return node
        codes = labels.translate(self._codes_of)
        wanted = np.where((packet >= 0) & (codes >= 0), packet * self._span + codes, -1)
        place = np.minimum(self._keys.searchsorted(wanted), len(self._keys) - 1)
        return np.where((node < 0) & (self._keys[place] == wanted), self._places[place], node)

    @cached_property
    def names(self) -> Labels:
        """The id of each node: [N]."""
        return self.elements.names.take(self.static).otherwise(self._labels.take(self.telemetry))

    @cached_property
    def placeholder(self) -> np.ndarray:
        """Which nodes are guard tensors: bool [N]."""
        return self.elements.placeholder[self.static]
