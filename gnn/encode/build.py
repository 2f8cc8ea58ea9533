"""Raw features -> channels: every packet's nodes and edges, encoded with the registries of one build."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from gnn.encode.encoding import LAYOUTS, Encoded, Scale, Vocabularies, encode
from gnn.join.join import join
from gnn.join.joined import Group, Joined
from gnn.join.metadata import Metadata
from gnn.join.rows import Vocabulary
from gnn.join.sources import Sources
from gnn.join.state import RunState
from schemas.features import NODE_TYPES, RELATIONS, NodeType, Relation


@dataclass(frozen=True)
class Featured:
    """One node type or relation: its raw columns and its encoded channels."""

    group: Group
    encoded: Encoded

    @property
    def declaration(self) -> NodeType | Relation:
        """What is declared of it."""
        return self.group.declaration


@dataclass(frozen=True)
class FeatureSet:
    """The features of P packets ordered by (training_run_id, timestamp_ns, packet digest), `log_z` ones not yet scaled.

    `nodes` by node type, `edges` by relation short name (`layer_connects`); node numbers of edges run through the block.
    """

    joined: Joined
    nodes: Mapping[str, Featured]
    edges: Mapping[str, Featured]

    @property
    def size(self) -> int:
        """Number of packets."""
        return self.joined.size

    @property
    def groups(self) -> tuple[Featured, ...]:
        """All node types, then all relations, in declared order."""
        nodes = (self.nodes[node.name] for node in NODE_TYPES)
        return (*nodes, *(self.edges[relation.short] for relation in RELATIONS))

    def keys(self) -> pa.Table:
        """Return one row a packet, in order: training_run_id, packet_id, timestamp_ns, blueprint_id (of the host, or NULL)."""
        return self.joined.states.table()


def encode_all(joined: Joined, vocabularies: Vocabularies) -> FeatureSet:
    """Encode every node type and relation; the same code for one packet and a million, from tables or from a join."""
    return FeatureSet(
        joined,
        {name: _featured(joined, group, vocabularies) for name, group in joined.nodes.items()},
        {name: _featured(joined, group, vocabularies) for name, group in joined.edges.items()},
    )


def _featured(joined: Joined, group: Group, vocabularies: Vocabularies) -> Featured:
    scale = Scale(joined.traces, group.packet, group.ptr)
    layout = LAYOUTS[group.declaration.family]

    def encoded() -> Encoded:
        return encode(layout, group.columns, vocabularies, scale)

    return Featured(group, vocabularies.of_host(group, encoded) if group.of_host else encoded())


def build_features(sources: Mapping[str, pa.Table], *, registries: Mapping[str, Vocabulary]) -> FeatureSet:
    """Return features of every training state of `sources` (contract tables by name), each as of its own time."""
    tables = Sources(sources)
    return encode_all(join(Metadata(tables), tables, {})[0], Vocabularies(registries))


def iter_features(
    metadata: Metadata, vocabularies: Vocabularies, sources: Iterator[Mapping[str, pa.Table]]
) -> Iterator[FeatureSet]:
    """Yield features of a stream of sources in time order per run, with the runs' states carried from one to the next."""
    states: dict[str, RunState] = {}
    for tables in sources:
        joined, states = join(metadata, Sources(tables), states)
        yield encode_all(joined, vocabularies)
