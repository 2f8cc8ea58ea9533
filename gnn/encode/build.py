"""Encode every packet's nodes and edges: from raw features to channels, with the registries of one build."""

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
        """The declaration of the node type or relation."""
        return self.group.declaration


@dataclass(frozen=True)
class FeatureSet:
    """The features of P packets ordered by (training_run_id, timestamp_ns, packet digest); `log_z` ones are not yet scaled.

    `nodes` is by node type, `edges` by relation short name (`layer_connects`). Node numbers of edges count through the block.
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
        """Return one row per packet: training_run_id, packet_id, timestamp_ns, blueprint_id (of the host, or NULL)."""
        return self.joined.states.table()


def encode_all(joined: Joined, vocabularies: Vocabularies) -> FeatureSet:
    """Encode every node type and relation; one packet and a million take the same code, from tables or from a join."""
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
    """Return the features of every training state in `sources` (contract tables by name), each as of its own time."""
    tables = Sources(sources)
    return encode_all(join(Metadata(tables), tables, {})[0], Vocabularies(registries))


def iter_features(
    metadata: Metadata, vocabularies: Vocabularies, sources: Iterator[Mapping[str, pa.Table]]
) -> Iterator[FeatureSet]:
    """Yield the features of each of `sources`, which are in time order per run; the runs' states carry over between them."""
    states: dict[str, RunState] = {}
    for tables in sources:
        joined, states = join(metadata, Sources(tables), states)
        yield encode_all(joined, vocabularies)
