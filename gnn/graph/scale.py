"""Scale batches: make z-scores of `log_z` features when a batch is assembled, because their priors are fitted on all runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from gnn.graph.batch import GraphBatch, GraphStore
from schemas.artifacts import PriorNorm
from schemas.features import NODE_TYPES, NodeType, Transform


@dataclass(frozen=True)
class _Column:
    """One `log_z` feature of a node type: its value and mask channels in `x`, and its prior."""

    value: int
    mask: int
    metric: str


def _columns(node: NodeType) -> tuple[_Column, ...]:
    found, start = [], 0
    for place, feature in enumerate(node.valued):
        if feature.transform is Transform.LOG_Z:
            found.append(_Column(start, node.value_width + place, feature.metric or feature.name))
        start += feature.channels
    return tuple(found)


_SCALED: Final = {node.name: columns for node in NODE_TYPES if (columns := _columns(node))}


def scale(batch: GraphBatch, priors: Mapping[str, PriorNorm]) -> GraphBatch:
    """Return the batch with z = (x - m) / s in place of each `log_z` channel x; masked entries keep their neutral value.

    Training, evaluation, golden outputs and serving all use it. `priors` holds mean m and variance s² by metric.
    """
    x = dict(batch.x)
    for name, columns in _SCALED.items():
        values = x[name].clone()
        for column in columns:
            prior = priors[column.metric]
            raw = values[:, column.value]
            scaled = ((raw.double() - prior.mean) / prior.var**0.5).float()
            values[:, column.value] = torch.where(values[:, column.mask] > 0, scaled, raw)
        x[name] = values
    return replace(batch, x=x)


class ScaledGraphs:
    """A graph store whose batches are scaled with one set of priors."""

    def __init__(self, store: GraphStore, priors: Mapping[str, PriorNorm]) -> None:
        """Scale the batches of `store`."""
        self._store, self._priors = store, dict(priors)

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self._store)

    def index_of(self, run: str, packet: str) -> int:
        """Return the number of that packet's graph. Raises KeyError if there is none."""
        return self._store.index_of(run, packet)

    def element_ids(self, node_type: str, index: int) -> Sequence[str]:
        """Return the ids of the nodes of that type in graph `index`, in row order."""
        return self._store.element_ids(node_type, index)

    def batch(self, indices: Sequence[int]) -> GraphBatch:
        """Return the graphs at `indices`, in that order, as one scaled batch."""
        return scale(self._store.batch(indices), self._priors)
