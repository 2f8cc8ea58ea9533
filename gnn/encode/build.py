"""Contract rows -> features: every packet's nodes, edges, channels and masks, as arrays with segment offsets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from gnn.encode.encoding import LAYOUTS, Encoded, Scale, encode
from gnn.join.block import Block
from gnn.join.groups import Group, edge_group, node_groups
from gnn.join.metadata import Metadata, Norms
from gnn.join.nodes import Dangling
from gnn.join.rows import Vocabulary
from gnn.join.sources import Sources
from gnn.join.state import RunState, States
from schemas.features import NODE_TYPES, RELATIONS, NodeType, Relation

# relations whose attributes all stand in the host's Urza graph, as their edges do
_OF_HOST: Final = frozenset(
    relation.short
    for relation in RELATIONS
    if all(f.clauses and all(table.startswith("urza.") for table, _ in f.clauses) for f in relation.features)
)


@dataclass(frozen=True)
class Featured:
    """One node type or relation of a block: its raw columns and its encoded channels."""

    declaration: NodeType | Relation
    group: Group
    encoded: Encoded


@dataclass(frozen=True)
class FeatureSet:
    """The features of P packets ordered by (training_run_id, timestamp_ns, packet digest).

    `nodes` by node type, `edges` by relation short name (`layer_connects`); node numbers of edges run through the block.
    `dangling` lists references that name nothing; `states` are the runs' states after their last packet.
    """

    block: Block
    nodes: Mapping[str, Featured]
    edges: Mapping[str, Featured]
    dangling: tuple[Dangling, ...]

    @property
    def size(self) -> int:
        """Number of packets."""
        return self.block.packets.size

    @property
    def groups(self) -> tuple[Featured, ...]:
        """All node types, then all relations, in declared order."""
        return (*self.nodes.values(), *self.edges.values())

    def keys(self) -> pa.Table:
        """One row a packet, in order: training_run_id, packet_id, timestamp_ns, blueprint_id (of the host, or NULL)."""
        rows = self.block.packets.rows
        names = ("training_run_id", "packet_id", "blueprint_id")
        found = {name: rows.labels(name).arrow()[: self.size] for name in names}
        found["timestamp_ns"] = pa.array(self.block.packets.times, pa.int64())
        return pa.table({name: found[name] for name in ("training_run_id", "packet_id", "timestamp_ns", "blueprint_id")})


def featurize(metadata: Metadata, tables: Mapping[str, pa.Table], states: States) -> FeatureSet:
    """Features of all packets of `tables` with the metadata of a snapshot, going on from the runs' `states`."""
    block = Block(metadata, tables, states)
    nodes = node_groups(block)
    edges = {relation.short: _relation(relation, block, nodes) for relation in RELATIONS}
    dangling = [Dangling(node.family, *block.nodes[node.name].dangling) for node in NODE_TYPES if node.name in block.nodes]
    dangling += [d for found in edges.values() if found.group.edges is not None for d in found.group.edges.dangling]
    return FeatureSet(
        block,
        {node.name: _featured(node, nodes[node.name], block) for node in NODE_TYPES},
        edges,
        tuple(d for d in dangling if len(d.packet)),
    )


def _relation(relation: Relation, block: Block, nodes: Mapping[str, Group]) -> Featured:
    """A relation of the block. What depends on the host alone is made once per host for packets that come one at a time."""
    if relation.short not in _OF_HOST or block.packets.size != 1:
        return _featured(relation, edge_group(relation, block, nodes), block)
    key, known = (relation.short, int(block.host[0])), block.metadata.known
    if key not in known:
        known[key] = _featured(relation, edge_group(relation, block, nodes), block)
    found: Featured = known[key]
    # tensors share memory with their arrays, and nobody's tensor may change what is kept
    encoded = replace(found.encoded, x=found.encoded.x.copy(), ids=found.encoded.ids.copy())
    return replace(found, encoded=encoded)


def _featured(declaration: NodeType | Relation, group: Group, block: Block) -> Featured:
    scale = Scale(block.traces, block.metadata.priors, group.packet, group.ptr)
    layout = LAYOUTS[declaration.family]
    return Featured(declaration, group, encode(layout, group.columns, block.metadata.vocabularies, scale))


def build_features(sources: Mapping[str, pa.Table], *, norms: Norms, registries: Mapping[str, Vocabulary]) -> FeatureSet:
    """Features of every training state of `sources` (contract tables by name), each as of its own time."""
    tables = Sources(sources)
    return featurize(Metadata(tables, norms=norms, registries=registries), tables, {})


def iter_features(metadata: Metadata, sources: Iterator[Mapping[str, pa.Table]]) -> Iterator[FeatureSet]:
    """Features of a stream of sources in time order per run, with the runs' states carried from one to the next."""
    states: dict[str, RunState] = {}
    for tables in sources:
        found = featurize(metadata, Sources(tables), states)
        states = found.block.final_states(states)
        yield found
