"""Compile Urza's graphs once: the elements of every record and the links between them, as arrays with offsets.

A record is Urza's export of a blueprint at one time; a packet sees the newest record that is not newer than the packet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.order import topological_positions
from gnn.join.rows import Bools, Ints, Labels, Rows, expand, offsets

ELEMENT_TABLES: Final[Mapping[str, tuple[str, str]]] = {
    "layer": ("urza.layer", "layer_id"),
    "activation": ("urza.activation", "activation_id"),
    "parameter": ("urza.parameter", "parameter_id"),
}

_OF_RECORDS: Final = ("urza.layer", "urza.activation", "urza.parameter", "urza.connection", "urza.activation_parameter")
_UNDATED: Final = np.iinfo(np.int64).min


class Elements:
    """The elements of one node type of all R records, ordered by record, index and id.

    Rows `ptr[r]`..`ptr[r + 1]` of `rows` belong to record r; `placeholder` bool [n] marks guard tensors.
    """

    def __init__(self, table: pa.Table, id_column: str, records: "Records") -> None:
        """Compile the rows of `urza.<element>`."""
        unordered = Rows(table)
        owner = records.of(unordered)
        names = unordered.labels(id_column)
        rank = names.ranks()[:-1]
        index = unordered.numbers("index")[:-1]
        order = np.lexsort((np.arange(len(owner)), rank, index, owner))
        order = order[(owner[order] >= 0) & (names.codes[order] >= 0)]
        order = order[_first_of_each(owner[order] * (len(names.words) + 1) + names.codes[order])]
        self.rows = Rows(table.take(pa.array(order)))
        self.names = self.rows.labels(id_column)
        self.owner = owner[order]
        self.ptr = offsets(np.bincount(self.owner, minlength=records.size).astype(np.int64))
        self._counts, self._first = np.append(np.diff(self.ptr), 0), np.append(self.ptr[:-1], 0)
        self.placeholder: Bools = self.rows.numbers("is_placeholder") > 0
        self.codes_of = {word: code for code, word in enumerate(self.names.words)}
        self._span = len(self.names.words) + 1
        keys = self.owner * self._span + self.names.codes[:-1]
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def counts(self, records: Ints) -> Ints:
        """Return the number of elements of each record; 0 for record -1."""
        return np.asarray(self._counts[records])

    def first(self, records: Ints) -> Ints:
        """Return the first row of each record; 0 for record -1."""
        return np.asarray(self._first[records])

    def find(self, records: Ints, names: Ints) -> Ints:
        """Return the row (int64 [n]) of the element with the id `names` (codes of `codes_of`) in each record; -1 if absent."""
        wanted = np.where((records >= 0) & (names >= 0), records * self._span + names, -1)
        return find_sorted(self._keys, self._order, wanted)


def _first_of_each(keys: Ints) -> Ints:
    """Return the places (ascending) of the first occurrence of each key."""
    return np.sort(np.unique(keys, return_index=True)[1])


def find_sorted(keys: Ints, rows: Ints, wanted: Ints) -> Ints:
    """Return for each wanted key rows[i] with keys[i] equal to it, or -1 if there is none; `keys` are ascending."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, rows[place], -1)


@dataclass(frozen=True)
class Links:
    """The edges of one relation in all records: rows of the source's and the target's `Elements`.

    Ordered by record, target and source; `ptr` int64 [R + 1]. `attributes` is the row of the table that describes the
    edge. `dangling` says, per record, which references name no element.
    """

    source: Ints
    target: Ints
    attributes: Ints
    ptr: Ints
    dangling: tuple[tuple[int, str], ...] = field(default=())

    @cached_property
    def _counts(self) -> Ints:
        return np.append(np.diff(self.ptr), 0)

    @cached_property
    def _first(self) -> Ints:
        return np.append(self.ptr[:-1], 0)

    def counts(self, records: Ints) -> Ints:
        """Return the number of edges of each record; 0 for record -1."""
        return np.asarray(self._counts[records])

    def first(self, records: Ints) -> Ints:
        """Return the first edge of each record; 0 for record -1."""
        return np.asarray(self._first[records])


def _links(owner: Ints, source: Ints, target: Ints, records: int, references: list[str] | None = None) -> Links:
    """Return the links of n references; a reference with an end of -1 is dangling.

    Dangling references are listed by their name `references[i]`, except those whose name is empty.
    """
    sound = (source >= 0) & (target >= 0)
    order = np.lexsort((source, target, owner))
    order = order[sound[order]]
    ends = source[order] * (int(target.max(initial=0)) + 1) + target[order]
    order = order[_first_of_each(ends)]
    dangling: tuple[tuple[int, str], ...] = ()
    if references is not None:
        dangling = tuple((int(owner[i]), references[i]) for i in np.flatnonzero(~sound & (owner >= 0)) if references[i])
    counts = np.bincount(owner[order], minlength=records).astype(np.int64)
    return Links(source[order], target[order], order, offsets(counts), dangling)


def _pair(first: Labels, second: Labels, size: int) -> list[str]:
    names = [*zip(first.arrow().to_pylist(), second.arrow().to_pylist(), strict=True)][:size]
    return [f"{a} -> {b}" for a, b in names]


class Records:
    """Urza's records, numbered by blueprint and `exported_at_ns`; a record without that time is valid from the start.

    A blueprint that has elements but no record of its own counts as a record without a time.
    """

    def __init__(self, tables: Mapping[str, pa.Table], codes_of: Mapping[str, int]) -> None:
        """Assign numbers to the records of `urza.blueprint` and of element tables; `codes_of` gives the blueprint codes."""
        self._codes_of = codes_of
        self.rows = Rows(tables["urza.blueprint"])
        owners, times = self._stamps(self.rows)
        known = np.unique(owners)
        for name in _OF_RECORDS:
            bare = np.setdiff1d(np.unique(self._owners(Rows(tables[name]))), known)
            bare = bare[bare >= 0]
            known = np.union1d(known, bare)
            owners, times = np.append(owners, bare), np.append(times, np.full(len(bare), _UNDATED))
        self._times = np.unique(times)
        keys = self._keys(owners, times)
        self._unique = np.unique(keys[owners >= 0])
        self.size = len(self._unique)
        self._bare = np.setdiff1d(known, np.unique(self._owners(self.rows)))
        # row of `urza.blueprint` by record, -1 if there is none
        self.row: Ints = np.full(self.size + 1, -1, dtype=np.int64)
        own = self._find(keys[: self.rows.size])
        self.row[own[::-1]] = np.arange(self.rows.size)[::-1]
        self.row[-1] = -1

    def _owners(self, rows: Rows) -> Ints:
        return rows.labels("blueprint_id").translate(self._codes_of)[:-1]

    def _stamps(self, rows: Rows) -> tuple[Ints, Ints]:
        return self._owners(rows), rows.times("exported_at_ns")

    def _keys(self, owners: Ints, times: Ints) -> Ints:
        """Return the key of a blueprint and time: keys of one blueprint are contiguous and in order of time."""
        return owners * (len(self._times) + 1) + self._times.searchsorted(times, side="right")

    def _find(self, keys: Ints) -> Ints:
        return find_sorted(self._unique, np.arange(self.size), keys)

    def of(self, rows: Rows) -> Ints:
        """Return the record (int64 [n]) that each row of an element table belongs to; -1 for none."""
        owners, times = self._stamps(rows)
        return self._find(np.where(owners >= 0, self._keys(owners, np.where(np.isin(owners, self._bare), _UNDATED, times)), -1))

    def newest(self, blueprints: Ints, times: Ints) -> Ints:
        """Return the newest record (int64 [n]) of each blueprint code that is not newer than each time; -1 for none."""
        if not self.size:
            return np.full(len(blueprints), -1, dtype=np.int64)
        place = self._unique.searchsorted(self._keys(blueprints, times), side="right") - 1
        same = self._unique[place] // (len(self._times) + 1) == blueprints
        return np.where((place >= 0) & (blueprints >= 0) & same, place, -1)


class Catalogue:
    """Urza's records with their elements and links. `codes_of` numbers every blueprint id that metadata names."""

    def __init__(self, tables: Mapping[str, pa.Table], codes_of: Mapping[str, int]) -> None:
        """Compile the tables `urza.*`; `codes_of` gives the blueprint codes."""
        self.records = Records(tables, codes_of)
        self.blueprints = self.records.rows
        self.elements = {
            name: Elements(tables[table], column, self.records) for name, (table, column) in ELEMENT_TABLES.items()
        }
        self.connections = Rows(tables["urza.connection"])
        self.influences = Rows(tables["urza.activation_parameter"])
        connects = self._connects()
        activates = self._activates()
        configures = self._configures()
        self.links: Mapping[str, Links] = {
            "layer_connects": connects,
            "layer_activates": activates,
            "activation_affects": self._affects(connects, activates),
            "activation_configures": configures,
            "parameter_modulates": _reversed(configures, self.records.size),
            "parameter_tunes": self._tunes(),
        }
        layers = len(self.elements["layer"].owner) + 1
        keys = connects.source * layers + connects.target
        self._connection_order = np.argsort(keys)
        self._connection_keys = keys[self._connection_order]

    @cached_property
    def layer_positions(self) -> Ints:
        """The topological position (int64 [n]) of each row of `elements["layer"]` in its record's graph, from 0."""
        connects = self.links["layer_connects"]
        return topological_positions(self.elements["layer"].ptr, connects.source, connects.target, connects.ptr)

    def connection(self, source: Ints, target: Ints) -> Ints:
        """Return the number of the `layer_connects` link between two layer rows; -1 if there is none."""
        layers = len(self.elements["layer"].owner) + 1
        wanted = np.where((source >= 0) & (target >= 0), source * layers + target, -1)
        return find_sorted(self._connection_keys, self._connection_order, wanted)

    def _ends(self, rows: Rows, column: str, element: str, owner: Ints) -> Ints:
        elements = self.elements[element]
        return elements.find(owner, rows.labels(column).translate(elements.codes_of)[:-1])

    def _connects(self) -> Links:
        rows = self.connections
        owner = self.records.of(rows)
        source = self._ends(rows, "source_layer_id", "layer", owner)
        target = self._ends(rows, "target_layer_id", "layer", owner)
        names = _pair(rows.labels("source_layer_id"), rows.labels("target_layer_id"), rows.size)
        return _links(owner, source, target, self.records.size, names)

    def _activates(self) -> Links:
        activations = self.elements["activation"]
        layer = self._ends(activations.rows, "layer_id", "layer", activations.owner)
        layers = activations.rows.labels("layer_id").arrow().to_pylist()[:-1]
        ids = activations.names.arrow().to_pylist()[:-1]
        names = [f"{layer_id} -> {ids[i]}" if layer_id else "" for i, layer_id in enumerate(layers)]
        everyone = np.arange(len(activations.owner))
        return _links(activations.owner, layer, everyone, self.records.size, names)

    def _affects(self, connects: Links, activates: Links) -> Links:
        """Link each activation to its layer's successors in `connects`, or to that layer if it has none."""
        by_source = np.argsort(connects.source, kind="stable")
        first = np.searchsorted(connects.source[by_source], activates.source, side="left")
        last = np.searchsorted(connects.source[by_source], activates.source, side="right")
        successors = last - first
        source = np.repeat(activates.target, np.maximum(successors, 1))
        target = np.repeat(activates.source, np.maximum(successors, 1))
        reached = offsets(np.maximum(successors, 1))
        several = successors > 0
        target[expand(reached[:-1][several], successors[several])] = connects.target[
            by_source[expand(first[several], successors[several])]
        ]
        owner = self.elements["activation"].owner[source]
        return _links(owner, source, target, self.records.size)

    def _configures(self) -> Links:
        rows = self.influences
        owner = self.records.of(rows)
        source = self._ends(rows, "activation_id", "activation", owner)
        target = self._ends(rows, "parameter_id", "parameter", owner)
        names = _pair(rows.labels("activation_id"), rows.labels("parameter_id"), rows.size)
        return _links(owner, source, target, self.records.size, names)

    def _tunes(self) -> Links:
        parameters, layers = self.elements["parameter"], self.elements["layer"]
        lists = parameters.rows.lists("layer_ids")
        source = np.repeat(np.arange(len(lists.known)), np.diff(lists.ptr))
        owner = parameters.owner[source]
        target = layers.find(owner, lists.items.translate(layers.codes_of))
        names = _pair(parameters.names.take(source), lists.items, len(source))
        return _links(owner, source, target, self.records.size, names)


def _reversed(links: Links, records: int) -> Links:
    """Return the same edges with source and target exchanged."""
    owner = np.repeat(np.arange(len(links.ptr) - 1), np.diff(links.ptr))
    turned = _links(owner, links.target, links.source, records)
    return Links(turned.source, turned.target, links.attributes[turned.attributes], turned.ptr, links.dangling)
