"""Declare the tables `coverage.*` and `telemetry.feature_coverage`. Imports no heavy library."""

from typing import Final

import pyarrow as pa

from schemas.features import COVERAGE_KEYS, FAMILIES, GROUPS
from schemas.table_declaration import DeclaredColumn, DeclaredTable

RUN: Final = "Training run of the row."
TIME: Final = "Time of the packet [ns since 1970 UTC]."
FAMILY: Final = "Family of features: node.<type> or edges.<relation>."
_ELEMENTS: Final = "Elements of the graphs of the training run."
_ELEMENTS_OF_RUNS: Final = "Elements of the graphs of the training runs that the rebuild touched."
_SYSTEMS: Final = tuple(sorted({"tolaria", "urza", "tezzeret", *(f.system for group in GROUPS for f in group.features)}))

_RUN: Final = DeclaredColumn("training_run_id", pa.string(), RUN)
_SYSTEM: Final = DeclaredColumn("system", pa.string(), "Upstream system to ask for what is missing.", values=_SYSTEMS)
_FAMILY: Final = DeclaredColumn("family", pa.string(), FAMILY, values=FAMILIES)


def _counts(elements: str) -> tuple[DeclaredColumn, ...]:
    ratio = "measured / elements, from 0 to 1; NULL without elements."
    return (
        DeclaredColumn("measured", pa.int64(), "Elements with a measured value.", low=0),
        DeclaredColumn("elements", pa.int64(), elements, low=0),
        DeclaredColumn("ratio", pa.float64(), ratio, nullable=True, low=0, high=1, finite=True),
    )


_BY_KEY: Final = DeclaredTable(
    "coverage.by_key",
    (
        _RUN,
        DeclaredColumn("key", pa.string(), "Coverage key, <node type or relation>.<feature>.", values=COVERAGE_KEYS),
        _FAMILY,
        _SYSTEM,
        DeclaredColumn("mandatory", pa.bool_(), "Whether the key must be measured everywhere."),
        *_counts(_ELEMENTS),
    ),
    keys=(("training_run_id", "key"),),
    at_most=(("measured", "elements"),),
)
_BY_FAMILY: Final = DeclaredTable(
    "coverage.by_family",
    (_RUN, _FAMILY, *_counts(_ELEMENTS)),
    keys=(("training_run_id", "family"),),
    at_most=(("measured", "elements"),),
)
_GAPS: Final = DeclaredTable(
    "coverage.gaps",
    (
        _RUN,
        DeclaredColumn(
            "key",
            pa.string(),
            "Coverage key; a family for references that name nothing and for placeholders.",
            values=(*COVERAGE_KEYS, *FAMILIES),
        ),
        _SYSTEM,
        DeclaredColumn(
            "missing", pa.int64(), "Elements without a measured value; 0 if the run has no such element at all.", low=0
        ),
        DeclaredColumn("elements", pa.int64(), _ELEMENTS, low=0),
        DeclaredColumn("reason", pa.string(), "Why the values are missing, in words."),
        DeclaredColumn(
            "since_timestamp_ns",
            pa.int64(),
            "Time of the first packet of the run with this gap [ns since 1970 UTC].",
            low=0,
        ),
    ),
    shown=("training_run_id", "key", "reason"),
    at_most=(("missing", "elements"),),
)
_HISTORY: Final = DeclaredTable(
    "coverage.history",
    (
        DeclaredColumn("rebuild_run_id", pa.string(), "Dagster run of the rebuild."),
        DeclaredColumn("finished_at_ns", pa.int64(), "When its coverage was counted [ns since 1970 UTC].", low=0),
        DeclaredColumn("key", pa.string(), "Coverage key, <node type or relation>.<feature>.", values=COVERAGE_KEYS),
        *_counts(_ELEMENTS_OF_RUNS),
    ),
    keys=(("rebuild_run_id", "key"),),
    at_most=(("measured", "elements"),),
)
_SIGNALS: Final = DeclaredTable(
    "telemetry.feature_coverage",
    (
        DeclaredColumn("kind", pa.string(), "metric or event.", values=("metric", "event")),
        DeclaredColumn("name", pa.string(), "Published name of the signal."),
        DeclaredColumn("value", pa.float64(), "Value of the signal [see unit].", low=0, finite=True),
        DeclaredColumn("unit", pa.string(), "Unit of the value."),
        DeclaredColumn(
            "level",
            pa.string(),
            "WARNING or CRITICAL of an event; NULL for a metric.",
            nullable=True,
            values=("WARNING", "CRITICAL"),
        ),
        DeclaredColumn("attributes", pa.map_(pa.string(), pa.string()), "Further attributes of the signal, by name."),
    ),
    keys=(("kind", "name"),),
)
BY_KEY: Final = _BY_KEY.arrow_schema
BY_FAMILY: Final = _BY_FAMILY.arrow_schema
GAPS: Final = _GAPS.arrow_schema
HISTORY: Final = _HISTORY.arrow_schema
SIGNALS: Final = _SIGNALS.arrow_schema
COVERAGE: Final = {table.name: table for table in (_BY_KEY, _BY_FAMILY, _GAPS, _HISTORY, _SIGNALS)}
