"""Compute each feature's distribution over a dataset, which bundles keep, and how far another dataset differs from it.

The distance is the population stability index: the sum over bins of (q - p) ln(q / p), with p and q the shares of a bin before
and now. 0 means no difference; a value above 0.25 is commonly taken as a shift.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from gnn.graph.batch import GraphBatch, GraphStore
from schemas.features import GROUPS, Feature, Kind, NodeType, Relation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SAMPLE: Final = 512  # graphs in the sample, evenly spaced: the cost does not grow with the dataset
FEWEST: Final = 100  # a feature with fewer measured elements, before or now, has no index
_DECILES: Final = np.linspace(0.1, 0.9, 9)
_MOST_VALUES: Final = 20
_NAMES: Final = frozenset({"seed", "blueprint", "policy_version"})  # registries of names: a new name is not a shift
_ADDED: Final = 0.5  # added to the count of each bin, so that an empty bin has a share


class Distribution(BaseModel):
    """Measured values of one feature in bins.

    Of numbers and flags, after their transform: `edges` are the deciles in ascending order, one that several deciles share
    twice; bin i holds values from edge i - 1 to below edge i, and between two equal edges lies the bin of that one value. Of
    categories: `values` are the most frequent indices, one bin each. `counts` has one bin more: of what lies above the last
    edge, or of all other indices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edges: list[float] = []
    values: list[int] = []
    counts: list[int]


def distributions(store: GraphStore) -> dict[str, Distribution]:
    """Return the distribution of every number, flag and category by coverage key, except categories that are names."""
    return {} if not len(store) else {key: _of(values) for key, values in _measured(_sample(store))}


def stability(before: Mapping[str, Distribution], store: GraphStore) -> dict[str, float]:
    """Return the population stability index of each feature against `before`, largest first.

    A feature with fewer than 100 measured elements on either side is left out; coverage reports that it is missing.
    """
    found = {}
    for key, values in _measured(_sample(store)) if len(store) else ():
        known = before.get(key)
        if known is not None and min(sum(known.counts), len(values)) >= FEWEST:
            found[key] = _index(np.array(known.counts), _counts(known, values))
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _sample(store: GraphStore) -> GraphBatch:
    count = min(len(store), SAMPLE)
    return store.batch(np.unique(np.linspace(0, len(store) - 1, count).astype(np.int64)).tolist())


def _measured(batch: GraphBatch) -> Iterator[tuple[str, Floats | Ints]]:
    """Yield the coverage key and measured values of every feature that has a distribution."""
    for group in GROUPS:
        x, ids = _tensors(batch, group)
        start = 0
        for place, feature in enumerate(group.valued):
            if feature.kind in (Kind.NUMERIC, Kind.FLAG):
                yield group.key(feature), x[x[:, group.value_width + place] > 0, start].numpy()
            start += feature.channels
        for place, feature in enumerate(group.categorical):
            if not _is_name(feature):
                column = ids[:, place]
                yield group.key(feature), column[column != 0].numpy()


def _tensors(batch: GraphBatch, group: NodeType | Relation) -> tuple[Tensor, Tensor]:
    if isinstance(group, NodeType):
        return batch.x[group.name], batch.ids[group.name]
    return batch.edge_attr[group.triple], batch.edge_ids[group.triple]


def _is_name(feature: Feature) -> bool:
    return (feature.registry or feature.name) in _NAMES


def _of(values: Floats | Ints) -> Distribution:
    if values.dtype == np.int64:
        indices, counts = np.unique(values, return_counts=True)
        frequent = indices[np.argsort(-counts, kind="stable")[:_MOST_VALUES]]
        made = Distribution(values=sorted(frequent.tolist()), counts=[])
    else:
        deciles = np.quantile(values, _DECILES, method="inverted_cdf") if len(values) else np.zeros(0, np.float32)
        edges, times = np.unique(deciles, return_counts=True)
        made = Distribution(edges=[_short(edge) for edge in np.repeat(edges, np.minimum(times, 2))], counts=[])
    return made.model_copy(update={"counts": _counts(made, values).tolist()})


def _short(value: np.float32) -> float:
    """Return the number with the fewest decimal digits that rounds to this float32."""
    return float(str(value))


def _counts(known: Distribution, values: Floats | Ints) -> Ints:
    """Count the values in each bin: int64 [bins]."""
    if values.dtype == np.int64:
        listed = np.array(known.values, dtype=np.int64)
        own = np.array([np.count_nonzero(values == index) for index in listed], dtype=np.int64)
        return np.append(own, len(values) - own.sum())
    edges = np.array(known.edges, dtype=np.float32)
    first = np.concatenate([np.ones(min(len(edges), 1), dtype=np.bool_), edges[1:] != edges[:-1]])
    # a value is past the first of two equal edges if it is equal, and past the second if it is above
    places = np.searchsorted(edges[first], values, side="right") + np.searchsorted(edges[~first], values, side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.int64)


def _index(before: Ints, now: Ints) -> float:
    p, q = ((counts + _ADDED) / (counts.sum() + _ADDED * len(counts)) for counts in (before, now))
    return float(np.sum((q - p) * np.log(q / p)))
