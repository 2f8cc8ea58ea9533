"""Arrow schemas of `features.*`, `coverage.*` and `norms.ewma`; light to import."""

from typing import Final

import pyarrow as pa

from schemas.features import Kind, NodeType, Relation

TYPES: Final = {
    Kind.NUMERIC: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.CATEGORICAL: pa.string(),
    Kind.MULTI_HOT: pa.list_(pa.string()),
}
PACKET: Final = (("training_run_id", pa.string()), ("packet_id", pa.string()), ("timestamp_ns", pa.int64()))
BY_KEY: Final = pa.schema(
    [
        ("training_run_id", pa.string()),
        ("key", pa.string()),
        ("family", pa.string()),
        ("system", pa.string()),
        ("mandatory", pa.bool_()),
        ("measured", pa.int64()),
        ("elements", pa.int64()),
        ("ratio", pa.float64()),
    ]
)
BY_FAMILY: Final = pa.schema(
    [
        ("training_run_id", pa.string()),
        ("family", pa.string()),
        ("measured", pa.int64()),
        ("elements", pa.int64()),
        ("ratio", pa.float64()),
    ]
)
GAPS: Final = pa.schema(
    [
        ("training_run_id", pa.string()),
        ("key", pa.string()),
        ("system", pa.string()),
        ("missing", pa.int64()),
        ("elements", pa.int64()),
        ("reason", pa.string()),
        ("since_timestamp_ns", pa.int64()),
    ]
)
EWMA: Final = pa.schema(
    [
        ("training_run_id", pa.string()),
        ("metric", pa.string()),
        ("mean", pa.float64()),
        ("var", pa.float64()),
        ("count", pa.int64()),
        ("timestamp_ns", pa.int64()),  # of the run's newest observation of the metric; NULL if the metric was never observed
    ]
)


def feature_schema(group: NodeType | Relation) -> pa.Schema:
    """Arrow schema of a group's feature table."""
    ids = ("element_id",) if isinstance(group, NodeType) else ("source_id", "target_id")
    fields = [*PACKET, *((name, pa.string()) for name in ids)]
    for feature in group.features:
        fields += [(feature.name, TYPES[feature.kind]), (f"{feature.name}__mask", pa.int8())]
    return pa.schema(fields)
