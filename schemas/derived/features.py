"""Arrow schemas of `features.*`, `coverage.*` and `norms.ewma`; light to import."""

from typing import Final

import pyarrow as pa

from schemas.features import CONTEXT, EWMA_METRICS, Kind, NodeType, Relation

TYPES: Final = {
    Kind.NUMERIC: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.CATEGORICAL: pa.string(),
    Kind.MULTI_HOT: pa.list_(pa.string()),
}
PACKET: Final = (("training_run_id", pa.string()), ("packet_id", pa.string()), ("timestamp_ns", pa.int64()))
_STATE: Final = (("mean", pa.float64()), ("var", pa.float64()), ("count", pa.int64()))
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


DANGLING_TABLE: Final = "features.dangling"
DANGLING: Final = pa.schema(
    [
        *PACKET,
        ("family", pa.string()),
        ("reference", pa.string()),
        ("placeholders", pa.int64()),  # above 0: no reference, but that many guard tensors in the place of missing elements
    ]
)
_CONTEXT_STATE: Final = (
    ("host_blueprint_id", pa.string()),
    ("packet_order", pa.int32()),  # among packets of one run and time
    *((f"{metric}__{part}", kind) for metric in EWMA_METRICS for part, kind in _STATE),
)


def feature_schema(group: NodeType | Relation) -> pa.Schema:
    """Arrow schema of a group's feature table."""
    fields = list(PACKET)
    if isinstance(group, NodeType):
        fields.append(("element_id", pa.string()))
    else:
        for end in ("source", "target"):
            fields += [(f"{end}_id", pa.string()), (f"{end}_ordinal", pa.int32())]
    fields += [("ordinal", pa.int32()), ("placeholder", pa.bool_())]
    fields += _CONTEXT_STATE if group is CONTEXT else ()
    for feature in group.features:
        fields += [(feature.name, TYPES[feature.kind]), (f"{feature.name}__mask", pa.int8())]
    return pa.schema(fields)
