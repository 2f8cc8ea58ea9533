"""Feature tables: one row an element and packet, each feature's raw value (NULL where missing) and its mask (1 measured)."""

from functools import cached_property

import numpy as np
import pyarrow as pa

from gnn.coverage.counts import measured_of
from gnn.encode.build import Featured, FeatureSet
from gnn.encode.encoding import LAYOUTS
from gnn.join.rows import Ints
from schemas.derived.features import PACKET, TYPES, feature_schema
from schemas.features import Kind, NodeType


class _Names:
    """Element ids of every node type of a feature set, as Arrow strings."""

    def __init__(self, features: FeatureSet) -> None:
        self._features = features
        self._found: dict[str, pa.Array] = {}

    @cached_property
    def packets(self) -> pa.Table:
        return self._features.keys()

    def of(self, node_type: str, rows: Ints | None = None) -> pa.Array:
        if node_type not in self._found:
            labels = self._features.nodes[node_type].group.names
            self._found[node_type] = pa.nulls(0, pa.string()) if labels is None else labels.arrow()
        names = self._found[node_type]
        return names if rows is None else names.take(pa.array(rows))


def feature_tables(features: FeatureSet) -> dict[str, pa.Table]:
    """`features.<node type>` and `features.<relation>` of every packet, in the packets' order."""
    names = _Names(features)
    return {featured.declaration.table: _table(featured, names) for featured in features.groups}


def _table(featured: Featured, names: _Names) -> pa.Table:
    declaration, group = featured.declaration, featured.group
    packets = names.packets.take(pa.array(group.packet))
    columns: list[pa.Array | pa.ChunkedArray] = [packets.column(name) for name, _ in PACKET]
    if isinstance(declaration, NodeType):
        columns.append(names.of(declaration.name))
    elif group.edges is not None:
        columns.append(names.of(declaration.source, group.edges.source))
        columns.append(names.of(declaration.target, group.edges.target))
    return pa.table([*columns, *_values(featured)], schema=feature_schema(declaration))


def _values(featured: Featured) -> list[pa.Array]:
    """Raw value and mask of every feature, in declared order."""
    raw, layout = featured.group.columns, LAYOUTS[featured.declaration.family]
    columns: list[pa.Array] = []
    for feature, measured in zip(featured.declaration.features, measured_of(featured), strict=True):
        if feature.kind is Kind.CATEGORICAL:
            values = raw.labels[feature.name].only(measured).arrow()
        elif feature.kind is Kind.MULTI_HOT:
            values = raw.sets[feature.name].arrow()
        else:
            number = featured.encoded.raw[layout.place[feature.name]]
            flag = feature.kind is Kind.FLAG
            values = pa.array(number != 0.0 if flag else number, TYPES[feature.kind], mask=~measured)
        columns += [values, pa.array(measured.astype(np.int8), pa.int8())]
    return columns
