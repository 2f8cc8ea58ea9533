"""Hold the result of a join: training states in order, and the raw columns of every node and edge of their graphs.

`gnn.join.join` makes it from contract rows, `gnn.join.tables` from the `features.*` tables; encoding and coverage take either.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gnn.join.columns import Columns
from gnn.join.edges import Edges
from gnn.join.nodes import Dangling
from gnn.join.rows import Bools, Ints, Labels
from gnn.norms.ewma import EwmaTrace
from schemas.features import NODE_TYPES, RELATIONS, NodeType, Relation


@dataclass(frozen=True)
class TrainingStates:
    """P training states ordered by (training_run_id, timestamp_ns, packet digest).

    `run` int64 [P] numbers `runs` (sorted), `run_ptr` int64 [R + 1] bounds each run's states, `times` int64 [P] is in ns.
    `ids` and `hosts` [P] are the packet ids and the blueprint ids of the hosts.
    """

    runs: tuple[str, ...]
    run: Ints
    run_ptr: Ints
    times: Ints
    ids: Labels
    hosts: Labels

    @property
    def size(self) -> int:
        """The number of training states."""
        return len(self.times)

    def table(self) -> pa.Table:
        """Return one row per state: training_run_id, packet_id, timestamp_ns, blueprint_id (of the host, or NULL)."""
        names = np.asarray([*self.runs, None], dtype=object)[self.run]
        return pa.table(
            {
                "training_run_id": pa.array(names, pa.string()),
                "packet_id": self.ids.arrow(),
                "timestamp_ns": pa.array(self.times, pa.int64()),
                "blueprint_id": self.hosts.arrow(),
            }
        )


@dataclass(frozen=True)
class Group:
    """Raw columns of N elements of one node type or relation, ordered by training state.

    `packet` int64 [N] is each element's state, `ptr` int64 [P + 1] bounds the elements of each state, `placeholder` bool [N]
    marks guard tensors. A node type has `names` [N], a relation has `edges`. `of_host`: the group depends on the host alone,
    and the same object is used for each state of that host.
    """

    declaration: NodeType | Relation
    columns: Columns
    packet: Ints
    ptr: Ints
    placeholder: Bools
    names: Labels | None = None
    edges: Edges | None = None
    of_host: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.packet)


@dataclass(frozen=True)
class Joined:
    """The graphs of P training states before they are encoded.

    `nodes` is by node type, `edges` by relation short name (`layer_connects`). Node numbers of edges count through all states.
    `traces` holds the EWMA state of each metric before each training state. `dangling` lists references that name nothing.
    """

    states: TrainingStates
    traces: Mapping[str, EwmaTrace]
    nodes: Mapping[str, Group]
    edges: Mapping[str, Group]
    dangling: tuple[Dangling, ...]

    @property
    def size(self) -> int:
        """Number of training states."""
        return self.states.size

    @property
    def groups(self) -> tuple[Group, ...]:
        """All node types, then all relations, in declared order."""
        nodes = (self.nodes[node.name] for node in NODE_TYPES)
        return (*nodes, *(self.edges[relation.short] for relation in RELATIONS))
