"""Declare the tables `features.*`: identity, order, then each feature's raw value and mask."""

from typing import Final

import pyarrow as pa

from schemas.contracts import TABLES
from schemas.derived.coverage import BY_FAMILY as BY_FAMILY
from schemas.derived.coverage import BY_KEY as BY_KEY
from schemas.derived.coverage import FAMILY, RUN, TIME
from schemas.derived.coverage import GAPS as GAPS
from schemas.derived.norms import EWMA as EWMA
from schemas.features import CONTEXT, EWMA_METRICS, FAMILIES, GROUPS, Feature, Kind, NodeType, Relation
from schemas.table_declaration import DeclaredColumn, DeclaredTable

TYPES: Final = {
    Kind.NUMERIC: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.CATEGORICAL: pa.string(),
    Kind.MULTI_HOT: pa.list_(pa.string()),
    Kind.SHARE: pa.list_(pa.string()),
}
_PACKET: Final = (
    DeclaredColumn("training_run_id", pa.string(), RUN),
    DeclaredColumn(
        "packet_id", pa.string(), "Packet of tolaria.system_state that the row belongs to; unique in its training run."
    ),
    DeclaredColumn("timestamp_ns", pa.int64(), TIME, low=0),
)
PACKET: Final = tuple((column.name, column.type) for column in _PACKET)
_NAMES: Final = tuple(name for name, _ in PACKET)
DANGLING_TABLE: Final = "features.dangling"
_DANGLING: Final = DeclaredTable(
    DANGLING_TABLE,
    (
        *_PACKET,
        DeclaredColumn("family", pa.string(), FAMILY, values=FAMILIES),
        DeclaredColumn("reference", pa.string(), "What the packet, or the graph of its host, names and the graph lacks."),
        DeclaredColumn(
            "placeholders",
            pa.int64(),
            "Above 0: no reference, but that many guard tensors in place of missing elements.",
            low=0,
        ),
    ),
    shown=(*_NAMES, "family", "reference"),
)
DANGLING: Final = _DANGLING.arrow_schema


def _end(end: str, verb: str) -> tuple[DeclaredColumn, ...]:
    ordinal = "Number of that node among those of its type in the graph, from 0."
    return (
        DeclaredColumn(f"{end}_id", pa.string(), f"Id of the node that the edge {verb}."),
        DeclaredColumn(f"{end}_ordinal", pa.int32(), ordinal, low=0),
    )


_ELEMENT: Final = (DeclaredColumn("element_id", pa.string(), "Id of the node; unique in its packet and node type."),)
_EDGE: Final = (*_end("source", "leaves"), *_end("target", "enters"))
_PLACE: Final = (
    DeclaredColumn("ordinal", pa.int32(), "Order of the node or edge in its graph, from 0.", low=0),
    DeclaredColumn("placeholder", pa.bool_(), "Whether a guard tensor stands in place of the real element."),
)


def _ewma(metric: str) -> tuple[DeclaredColumn, ...]:
    """Return the columns of a metric's EWMA state before the packet."""
    return (
        DeclaredColumn(f"{metric}__mean", pa.float64(), f"EWMA mean of {metric} before the packet.", finite=True),
        DeclaredColumn(f"{metric}__var", pa.float64(), f"EWMA variance of {metric} before the packet.", low=0, finite=True),
        DeclaredColumn(f"{metric}__count", pa.int64(), f"EWMA number of observations of {metric} before the packet.", low=0),
    )


_CONTEXT: Final = (
    DeclaredColumn("host_blueprint_id", pa.string(), "Blueprint of the host that the packet names.", nullable=True),
    DeclaredColumn("packet_order", pa.int32(), "Order of the packet among those of its training run and time, from 0.", low=0),
    *(column for metric in EWMA_METRICS for column in _ewma(metric)),
)


def _feature(feature: Feature) -> tuple[DeclaredColumn, DeclaredColumn]:
    """Return the columns of a feature's raw value and mask."""
    numeric = feature.kind is Kind.NUMERIC
    return (
        DeclaredColumn(
            feature.name,
            TYPES[feature.kind],
            _description(feature),
            nullable=True,
            above=feature.exclusive_minimum if numeric else None,
            finite=numeric,
        ),
        DeclaredColumn(
            f"{feature.name}__mask",
            pa.int8(),
            f"1 if {feature.name} is measured, 0 if it is missing, NULL if it does not apply.",
            nullable=True,
            mask_of=feature.name,
        ),
    )


def _description(feature: Feature) -> str:
    """Describe a feature's column: the unit of its first source (none if derived), its sources and its encoding."""
    mandatory = "mandatory" if feature.mandatory else "optional"
    sources = [] if feature.derive else [TABLES[table].column.get(column) for table, column in feature.sources]
    unit = next((source.unit for source in sources if source is not None), "")
    raw = f"raw value [{unit}]" if unit else "raw value"
    return f"{raw}; {mandatory}; from {feature.system}: {feature.documented_origin}; transform {feature.transform.value}"


def _table(group: NodeType | Relation) -> DeclaredTable:
    """Declare a group's table. `ordinal`, which tells a packet's elements apart, is in the key of all but the context."""
    identity = _ELEMENT if isinstance(group, NodeType) else _EDGE
    columns = (*_PACKET, *identity, *_PLACE, *(_CONTEXT if group is CONTEXT else ()))
    features = (column for feature in group.features for column in _feature(feature))
    key = _NAMES if group is CONTEXT else (*_NAMES, "ordinal")
    return DeclaredTable(group.table, (*columns, *features), keys=(key,))


FEATURES: Final = {group.table: _table(group) for group in GROUPS} | {DANGLING_TABLE: _DANGLING}


def feature_schema(group: NodeType | Relation) -> pa.Schema:
    """Return the Arrow schema of a group's feature table."""
    return FEATURES[group.table].arrow_schema
