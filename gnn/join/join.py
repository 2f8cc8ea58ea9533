"""Join contract rows as of each packet's time into raw features with masks."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.block import Block
from gnn.join.edges import Edges, connects, monitors
from gnn.join.groups import edge_group, node_groups
from gnn.join.joined import Group, Joined, TrainingStates
from gnn.join.metadata import Metadata
from gnn.join.nodes import Dangling, merge_dangling
from gnn.join.rows import Ints
from gnn.join.state import RunState, States
from schemas.features import NODE_TYPES, RELATIONS, Relation

# relations whose edges and attributes all come from the host's Urza graph
_OF_HOST: Final = frozenset(
    relation.short
    for relation in RELATIONS
    if all(table.startswith("urza.") for table in relation.source_tables) and not any(f.derive for f in relation.features)
)


def join(metadata: Metadata, tables: Mapping[str, pa.Table], states: States) -> tuple[Joined, dict[str, RunState]]:
    """Join all packets of `tables` with a metadata snapshot, going on from the runs' `states`.

    `tables` are contract tables by name: the packets, their telemetry and seed states. Returns the join and the new states.
    """
    block = Block(metadata, tables, states)
    drawn = {"layer_connects": connects(block), "seed_monitors": monitors(block)}
    nodes = node_groups(block, drawn)
    edges = {relation.short: _relation(relation, block, nodes, drawn) for relation in RELATIONS}
    found = Joined(_training_states(block), block.traces, nodes, edges, merge_dangling(_dangling(block, nodes, edges)))
    return found, block.final_states(states)


def _training_states(block: Block) -> TrainingStates:
    packets = block.packets
    ids = packets.rows.labels("packet_id").take(np.arange(packets.size))
    return TrainingStates(packets.runs, packets.run, packets.run_ptr, packets.times, ids, block.host_names)


def _relation(relation: Relation, block: Block, nodes: Mapping[str, Group], drawn: Mapping[str, Edges]) -> Group:
    """Return a relation of the block. For single packets, a relation that depends on the host alone is made once per host."""
    if relation.short not in _OF_HOST or block.packets.size != 1:
        return edge_group(relation, block, nodes, drawn)
    key, known = (relation.short, int(block.host_record[0])), block.metadata.known
    if key not in known:
        known[key] = replace(edge_group(relation, block, nodes, drawn), of_host=True)
    found: Group = known[key]
    return found


def _dangling(block: Block, nodes: Mapping[str, Group], edges: Mapping[str, Group]) -> Iterator[Dangling]:
    """Return the dangling references of packets and of their hosts' graphs (once per run and host), and unknown blueprints."""
    found = [Dangling(node.family, *block.nodes[node.name].dangling) for node in NODE_TYPES if node.name in block.nodes]
    found += [dangling for group in edges.values() if group.edges is not None for dangling in group.edges.dangling]
    if block.packets.size:
        found += [*_in_hosts(block), *_unknown_blueprints(block), *_unused_placeholders(block, nodes)]
    return iter(found)


def _in_hosts(block: Block) -> Iterator[Dangling]:
    first_of: Ints = np.zeros(1, dtype=np.int64)
    if block.packets.size > 1:
        first_of = np.unique(np.stack([block.packets.run, block.host_record]), axis=1, return_index=True)[1]
    for name, links in block.metadata.catalogue.links.items():
        if not links.dangling:
            continue
        by_host: dict[int, list[str]] = {}
        for code, reference in links.dangling:
            by_host.setdefault(code, []).append(reference)
        hosts = [(int(packet), by_host.get(int(block.host_record[packet]), ())) for packet in first_of]
        named = [(packet, reference) for packet, references in hosts for reference in references]
        packet = np.array([packet for packet, _ in named], dtype=np.int64)
        yield Dangling(f"edges.{name}", packet, tuple(reference for _, reference in named))


def _unknown_blueprints(block: Block) -> Iterator[Dangling]:
    """Yield blueprints that a packet or a seed names, but of which Urza has no record at that time."""
    nodes = block.blueprints
    records = block.metadata.catalogue.records
    lost = np.flatnonzero(records.row[records.newest(nodes.code, block.packets.times[nodes.packet])] < 0)
    if len(lost):
        yield Dangling("node.blueprint", nodes.packet[lost], tuple(nodes.names.take(lost).arrow().to_pylist()))


def _unused_placeholders(block: Block, nodes: Mapping[str, Group]) -> Iterator[Dangling]:
    """Yield runs without layers or activations, if Urza's catalogue holds guard tensors in place of real ones."""
    for name, count in block.metadata.placeholders.items():
        if count:
            first = block.packets.run_ptr[:-1]
            per_run = np.diff(nodes[name].ptr[block.packets.run_ptr])
            packet = first[per_run == 0]
            reference = f"{count} rows of urza.{name} stand for guard tensors, which are no {name}s of a host"
            yield Dangling(f"node.{name}", packet, (reference,) * len(packet), count)
