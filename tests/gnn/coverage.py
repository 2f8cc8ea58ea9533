"""Coverage of a feature set, counted twice: from its join, and from the feature tables that it is stored as."""

import pyarrow as pa

from gnn.coverage import counts
from gnn.coverage import gaps as gap_rows
from gnn.encode.build import FeatureSet
from gnn.join.tables import PacketIndex, feature_tables
from schemas.features import CONTEXT


def by_key(features: FeatureSet) -> pa.Table:
    """`coverage.by_key`, the same from the tables."""
    tables = feature_tables(features.joined)
    packets = PacketIndex(tables[CONTEXT.table])
    found = counts.by_key(packets.states, counts.marks_in(packets, tables))
    assert found.equals(counts.by_key(features.joined.states, counts.marks_of(features.joined)))
    return found


def gaps(features: FeatureSet) -> pa.Table:
    """`coverage.gaps`, the same from the tables."""
    tables, joined = feature_tables(features.joined), features.joined
    packets = PacketIndex(tables[CONTEXT.table])
    marks = counts.marks_in(packets, tables)
    found = gap_rows.gaps(packets.states, marks, packets.dangling(tables["features.dangling"]))
    names = list(found.column_names)
    direct = gap_rows.gaps(joined.states, counts.marks_of(joined), joined.dangling)
    assert sorted(map(str, found.to_pylist())) == sorted(map(str, direct.select(names).to_pylist()))
    return found


def check_conservation(features: FeatureSet, keys: pa.Table) -> None:
    """The tensors' masks against `coverage.by_key`."""
    counts.check_conservation(counts.mask_sums(features), keys)
