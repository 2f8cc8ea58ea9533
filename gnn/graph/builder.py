"""Build graphs online from decoded packets and the current metadata, bit for bit the same as the offline build.

As in the dataset, `log_z` channels are not yet scaled; see `gnn.graph.scale`.

The builder holds only the runs' states, which can be saved and restored at any packet, and a reference to an immutable
metadata snapshot, which may be exchanged between two packets. It does no I/O.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gnn.encode.build import FeatureSet, encode_all
from gnn.encode.encoding import Vocabularies
from gnn.graph.batch import GraphBatch, Plans, Triple
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.rows import Vocabulary
from gnn.join.sources import Sources
from gnn.join.state import RunState, restore_states, save_states
from schemas.decode import decode_packets
from schemas.features import NODE_TYPES, RELATIONS


def to_batch(features: FeatureSet) -> GraphBatch:
    """Return all packets of `features`, in order, as one batch on the CPU."""
    tensor = torch.from_numpy
    index: dict[Triple, torch.Tensor] = {}
    for relation in RELATIONS:
        edges = features.edges[relation.short].group.edges
        if edges is not None:
            ends = np.empty((2, len(edges.source)), dtype=np.int64)
            ends[0], ends[1] = edges.source, edges.target
            index[relation.triple] = tensor(ends)
    return GraphBatch(
        num_graphs=features.size,
        x={node.name: tensor(features.nodes[node.name].encoded.x) for node in NODE_TYPES},
        ids={node.name: tensor(features.nodes[node.name].encoded.ids) for node in NODE_TYPES},
        ptr={node.name: tensor(features.nodes[node.name].group.ptr) for node in NODE_TYPES},
        edge_index=index,
        edge_attr={relation.triple: tensor(features.edges[relation.short].encoded.x) for relation in RELATIONS},
        edge_ids={relation.triple: tensor(features.edges[relation.short].encoded.ids) for relation in RELATIONS},
        edge_ptr={relation.triple: tensor(features.edges[relation.short].group.ptr) for relation in RELATIONS},
    )


class PlanCache:
    """Keeps the message plans of graphs by their structure, which is the same in most packets of one host."""

    _KEPT: Final = 128

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: OrderedDict[tuple[Any, ...], Plans] = OrderedDict()

    def of(self, batch: GraphBatch) -> Plans:
        """Return the plans to share with all batches on the CPU that have the nodes and edges of `batch`."""
        edges = (batch.edge_index[relation.triple].numpy() for relation in RELATIONS)
        key = (*(len(batch.x[node.name]) for node in NODE_TYPES), *(ends.tobytes() for ends in edges))
        found = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        if len(self._kept) > self._KEPT:
            self._kept.popitem(last=False)
        return found


@dataclass(frozen=True)
class Built:
    """The graphs of one call: their tensors, and the features that they were made from (coverage, ids, dangling references)."""

    batch: GraphBatch
    features: FeatureSet


class GraphBuilder:
    """Builds graphs from packets of any runs, one call at a time, in the order in which the packets are given."""

    def __init__(
        self,
        metadata: Metadata,
        registries: Mapping[str, Vocabulary],
        states: Mapping[str, RunState] | None = None,
        *,
        pin: bool = True,
    ) -> None:
        """Start from the runs' `states` so far, if any; `pin` puts tensors into page-locked memory if CUDA is present."""
        self._metadata = metadata
        self._vocabularies = Vocabularies(registries)
        self._states: dict[str, RunState] = dict(states or {})
        self._pin = pin
        self._plans = PlanCache()

    @property
    def metadata(self) -> Metadata:
        """The metadata snapshot in use."""
        return self._metadata

    @property
    def states(self) -> Mapping[str, RunState]:
        """The runs' states so far."""
        return self._states

    def refresh(self, metadata: Metadata) -> None:
        """Use another metadata snapshot from the next packet on."""
        self._metadata = metadata

    def save(self) -> bytes:
        """Return the runs' states, for `restore`."""
        return save_states(self._states)

    def restore(self, saved: bytes) -> None:
        """Go on from saved states. Raises FeatureError if they are damaged."""
        self._states = restore_states(saved)

    def forget(self, run: str) -> None:
        """Drop the state of a run that has ended."""
        self._states.pop(run, None)

    def admit_seeds(self, seeds: pa.Table) -> None:
        """Add seed states (kasmina.seed_state rows) that came without a packet."""
        column = seeds.column("training_run_id")
        for run in pc.unique(column).to_pylist():
            before = self._states.get(run, RunState())
            own = seeds.filter(pc.equal(column, run)).select(before.seeds.column_names)
            self._states[run] = replace(before, seeds=pa.concat_tables([before.seeds, own]), seed_times=None)

    def build(self, tables: Mapping[str, pa.Table]) -> Built:
        """Return the graphs of the packets in `tables` (contract rows, as `decode_packets` returns them).

        Completion markers have no graph. The packets' seed states stay valid for later packets.
        """
        sources = Sources(tables)
        joined, self._states = join(self._metadata, sources, self._states)
        features = encode_all(joined, self._vocabularies)
        batch = to_batch(features)
        if batch.num_graphs == 1:
            batch = replace(batch, shared=self._plans.of(batch))
        return Built(batch.pin_memory() if self._pin else batch, features)

    def build_packets(self, packets: Sequence[bytes]) -> Built:
        """Return the graphs of serialized SystemStatePackets. Raises ContractError if one can't be decoded."""
        return self.build(decode_packets(packets))
