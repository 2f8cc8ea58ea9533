"""Find the edges of every packet's graph from real topology: which nodes are linked, and which rows describe the link.

A reference that names nothing in its packet's graph makes no edge; it is kept as `Dangling`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gnn.join.block import Block
from gnn.join.nodes import Dangling
from gnn.join.order import topological_positions
from gnn.join.rows import Ints, Labels, expand, lengths, offsets

NONE: Final[Ints] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Edges:
    """E edges of one relation, ordered by packet, target and source, with node numbers that count through the block.

    `ptr` int64 [P + 1] bounds the edges of each packet. `rows` holds by name, for each edge, the row (int64 [E]) of a table
    that describes it, -1 for none.
    """

    packet: Ints
    source: Ints
    target: Ints
    ptr: Ints
    rows: Mapping[str, Ints]
    dangling: tuple[Dangling, ...] = ()


def _edges(
    packets: int, packet: Ints, source: Ints, target: Ints, rows: Mapping[str, Ints], dangling: tuple[Dangling, ...] = ()
) -> Edges:
    """Return the edges in order; of several between the same two nodes only the first is kept."""
    order = np.lexsort((source, target, packet))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (np.diff(target[order]) != 0) | (np.diff(source[order]) != 0)
    order = order[fresh]
    ptr = offsets(np.bincount(packet[order], minlength=packets).astype(np.int64))
    kept = {name: column[order] for name, column in rows.items()}
    return Edges(packet[order], source[order], target[order], ptr, kept, dangling)


def declared(block: Block, short: str, source: str, target: str) -> Edges:
    """Return the links of each packet's host between its nodes of types `source` and `target`.

    `rows["link"]` is the number of the link, `rows["attributes"]` the row of the table that describes it.
    """
    if block.packets.size != 1:
        return _declared(block, short, source, target)
    key, known = (f"{short} edges", int(block.host_record[0])), block.metadata.known
    if key not in known:
        known[key] = _declared(block, short, source, target)
    found: Edges = known[key]
    return found


def _declared(block: Block, short: str, source: str, target: str) -> Edges:
    links = block.metadata.catalogue.links[short]
    counts = links.counts(block.host_record)
    link = expand(links.first(block.host_record), counts)
    packet = np.arange(block.packets.size).repeat(counts)
    ends = []
    for name, rows in ((source, links.source), (target, links.target)):
        nodes = block.nodes[name]
        ends.append(nodes.ptr[packet] + rows[link] - nodes.elements.first(block.host_record)[packet])
    return Edges(packet, ends[0], ends[1], offsets(counts), {"link": link, "attributes": links.attributes[link]})


def connects(block: Block) -> Edges:
    """Return Urza's connections, or those that the packet's telemetry names if it also names the layers."""
    rows, layers = block.connections, block.nodes["layer"]
    owner, source, target = block.packets.find(rows), rows.labels("source_layer_id"), rows.labels("target_layer_id")
    if block.packets.size != 1:
        return _connects(block, owner, source, target)
    # of single packets, those with the same layers mostly name the same connections
    key = ("layer_connects", layers, source.key, target.key, owner.tobytes())
    return block.metadata.once(key, lambda: _connects(block, owner, source, target))


def _connects(block: Block, owner: Ints, source_ids: Labels, target_ids: Labels) -> Edges:
    """Return the connections, given the packet (int64 [n]) and the ends (labels [n + 1]) of each telemetry row."""
    edges = declared(block, "layer_connects", "layer", "layer")
    layers = block.nodes["layer"]
    source = layers.locate(owner, source_ids.take(np.arange(len(owner))))
    target = layers.locate(owner, target_ids.take(np.arange(len(owner))))
    both = (source >= 0) & (target >= 0)
    source_static, target_static = _static(layers.static, source), _static(layers.static, target)
    known = block.metadata.catalogue.connection(source_static, target_static)
    telemetry = np.full(len(edges.packet), -1, dtype=np.int64)
    at = np.flatnonzero(known >= 0)[::-1]
    first = block.metadata.catalogue.links["layer_connects"].first(block.host_record)
    telemetry[edges.ptr[owner[at]] + known[at] - first[owner[at]]] = at
    named = both & (source_static < 0)
    own = np.flatnonzero(named)
    lost = np.flatnonzero((owner >= 0) & (known < 0) & ~named)
    names = _arrows(source_ids.take(lost), target_ids.take(lost))
    dangling = (Dangling("edges.layer_connects", owner[lost], names),)
    connection = edges.rows["attributes"]
    if not len(own):
        return Edges(
            edges.packet, edges.source, edges.target, edges.ptr, {"urza": connection, "telemetry": telemetry}, dangling
        )
    return _edges(
        block.packets.size,
        np.concatenate([edges.packet, owner[own]]),
        np.concatenate([edges.source, source[own]]),
        np.concatenate([edges.target, target[own]]),
        {
            "urza": np.concatenate([connection, np.full(len(own), -1, dtype=np.int64)]),
            "telemetry": np.concatenate([telemetry, own]),
        },
        dangling,
    )


def layer_positions(block: Block, connections: Edges) -> Ints:
    """Return the topological position (int64 [layers]) of each layer node in its graph, from 0.

    `connections` are those of `connects`.
    """
    layers = block.nodes["layer"]
    found = np.arange(len(layers.packet)) - layers.ptr[layers.packet]
    declared = layers.static >= 0
    found[declared] = block.metadata.catalogue.layer_positions[layers.static[declared]]
    if declared.all():
        return found
    # if the packet's telemetry names a graph's layers, the graph's connections come from there too
    edges = np.where(np.isin(np.arange(block.packets.size), layers.packet[~declared]), lengths(connections.ptr), 0)
    links, nodes = expand(connections.ptr[:-1], edges), ~declared
    named = topological_positions(layers.ptr, connections.source[links], connections.target[links], offsets(edges))
    found[nodes] = named[nodes]
    return found


def _static(static: Ints, node: Ints) -> Ints:
    if not len(static):
        return np.full(len(node), -1, dtype=np.int64)
    return np.where(node >= 0, static[node], -1)


def _arrows(source: Labels, target: Labels) -> tuple[str, ...]:
    if not len(source.codes):
        return ()
    return tuple(f"{a} -> {b}" for a, b in zip(source.arrow().to_pylist(), target.arrow().to_pylist(), strict=True))


def targets(block: Block) -> Edges:
    """Link each of Urza's parameters to its host's blueprint node."""
    nodes = block.nodes["parameter"]
    source = np.flatnonzero(nodes.static >= 0)
    packet = nodes.packet[source]
    target = block.blueprints.host[packet]
    ptr = offsets(np.bincount(packet, minlength=block.packets.size).astype(np.int64))
    return Edges(packet, source, target, ptr, {"urza": nodes.static[source]})


def broadcast(block: Block, ptr: Ints) -> Edges:
    """Link the context node of each packet to each of its nodes, which `ptr` (int64 [P + 1]) bounds."""
    packet = np.arange(block.packets.size).repeat(lengths(ptr))
    return Edges(packet, packet, np.arange(len(packet)), ptr, {})


def monitors(block: Block) -> Edges:
    """Link each seed to the layers that it monitors according to Kasmina, else according to Urza.

    `rows["seed"]` is the seed node.
    """
    if block.packets.size != 1:
        return _monitors(block)
    # of single packets, those with the same layers mostly have the same seeds, which monitor the same layers
    seeds, lists = block.seeds, block.seeds.rows.lists("monitored_layers")
    listed = (lists.items.key, lists.ptr.tobytes(), seeds.row.tobytes())
    key = ("seed_monitors", block.nodes["layer"], *listed, block.seed_names.key, block.seed_entries.tobytes())
    return block.metadata.once(key, lambda: _monitors(block))


def _monitors(block: Block) -> Edges:
    seeds, layers = block.seeds, block.nodes["layer"]
    lists = seeds.rows.lists("monitored_layers")
    counts = (lists.ptr[1:] - lists.ptr[:-1])[seeds.row]
    seed = np.arange(seeds.size).repeat(counts)
    item = expand(lists.ptr[:-1][seeds.row], counts)
    names = lists.items.take(item)
    said = ~(counts > 0)
    seed2, names2 = _urza_monitors(block, said)
    seed, names = np.concatenate([seed, seed2]), _joined(names, names2)
    packet = seeds.packet[seed]
    layer = layers.locate(packet, names)
    lost = layer < 0
    ids = seeds.rows.labels("seed_id").take(seeds.row[seed[lost]])
    dangling = (Dangling("edges.seed_monitors", packet[lost], _arrows(ids, names.take(np.flatnonzero(lost)))),)
    kept = ~lost
    return _edges(block.packets.size, packet[kept], seed[kept], layer[kept], {"seed": seed[kept]}, dangling)


def _joined(first: Labels, second: Labels) -> Labels:
    moved = np.where(second.codes >= 0, second.codes + len(first.words), -1)
    return Labels(np.concatenate([first.codes, moved]), first.words + second.words)


def _urza_monitors(block: Block, silent: np.ndarray) -> tuple[Ints, Labels]:
    """Return the seed node and layer name of each of Urza's monitors, for the `silent` seeds that name no layers themselves."""
    notes = block.metadata.seed_notes
    seed = np.flatnonzero(silent)
    entry = block.seed_entries[seed]
    counts = notes.counts(entry)
    return np.repeat(seed, counts), notes.layers.take(expand(notes.first(entry), counts))


def allowed(block: Block, families: Labels) -> Edges:
    """Link each seed to the parameters whose optimizer family its capabilities allow; seeds without known capabilities to none.

    `families` [parameter nodes] are the families; case does not matter. `rows["seed"]` is the seed node.
    """
    seeds, parameters = block.seeds, block.nodes["parameter"]
    lists = seeds.rows.lists("capabilities_allowed_optimizer_families")
    words = sorted({word.lower() for word in (*lists.items.words, *families.words)})
    place = {word: code for code, word in enumerate(words)}
    admitted = np.zeros((len(lists.known), len(words) + 1), dtype=np.bool_)
    item_codes = _lowered(lists.items, place)
    owner = np.repeat(np.arange(len(lists.known)), lengths(lists.ptr))
    admitted[owner[item_codes >= 0], item_codes[item_codes >= 0]] = True
    counts = lengths(parameters.ptr)[seeds.packet]
    seed = np.arange(seeds.size).repeat(counts)
    parameter = expand(parameters.ptr[:-1][seeds.packet], counts)
    family = _lowered(families, place)[parameter]
    kept = admitted[seeds.row[seed], family]
    seed, parameter = seed[kept], parameter[kept]
    return _edges(block.packets.size, seeds.packet[seed], seed, parameter, {"seed": seed})


def _lowered(labels: Labels, place: Mapping[str, int]) -> Ints:
    table = np.array([*(place[word.lower()] for word in labels.words), -1], dtype=np.int64)
    return table[labels.codes]
