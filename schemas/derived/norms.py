"""Declare the tables `norms.*` and `registries.*`. Imports no heavy library."""

from typing import Final

import pyarrow as pa

from schemas.artifacts import REGISTRIES
from schemas.features import EWMA_METRICS, PRIOR_METRICS
from schemas.table_declaration import DeclaredColumn, DeclaredTable

_EWMA: Final = DeclaredTable(
    "norms.ewma",
    (
        DeclaredColumn("training_run_id", pa.string(), "Training run of the row."),
        DeclaredColumn(
            "metric",
            pa.string(),
            "Step metric: loss, gradient_norm, samples_per_s or hook_latency_ms.",
            values=EWMA_METRICS,
        ),
        DeclaredColumn("mean", pa.float64(), "Exponentially weighted mean [unit of the metric].", finite=True),
        DeclaredColumn(
            "var", pa.float64(), "Exponentially weighted variance [unit of the metric, squared].", low=0, finite=True
        ),
        DeclaredColumn("count", pa.int64(), "Observations of the metric in the run.", low=0),
        DeclaredColumn(
            "timestamp_ns",
            pa.int64(),
            "Time of the run's newest observation of the metric [ns since 1970 UTC]; NULL if there is none.",
            nullable=True,
            low=0,
        ),
    ),
    keys=(("training_run_id", "metric"),),
)
_CURRENT: Final = DeclaredTable(
    "norms.current",
    (
        DeclaredColumn(
            "name",
            pa.string(),
            "Step metric with an EWMA state, or catalogue number with a fitted prior.",
            values=(*EWMA_METRICS, *PRIOR_METRICS),
        ),
        DeclaredColumn("mean", pa.float64(), "Mean [unit of the metric; after the transform for priors].", finite=True),
        DeclaredColumn("var", pa.float64(), "Variance [square of the unit of the mean].", low=0, finite=True),
        DeclaredColumn(
            "count",
            pa.int64(),
            "Observations of the run that measured the metric last; NULL for priors.",
            nullable=True,
            low=0,
        ),
        DeclaredColumn(
            "transform",
            pa.string(),
            "log1p or identity, applied before mean and variance; NULL for step metrics.",
            nullable=True,
            values=("log1p", "identity"),
        ),
        DeclaredColumn(
            "training_run_id",
            pa.string(),
            "Run of the newest observation; NULL for priors and before the first observation.",
            nullable=True,
        ),
        DeclaredColumn(
            "timestamp_ns",
            pa.int64(),
            "Time of the newest observation [ns since 1970 UTC]; NULL for priors and before the first observation.",
            nullable=True,
            low=0,
        ),
    ),
    keys=(("name",),),
)


def _registry(name: str, last: int) -> DeclaredTable:
    """Return the table of a registry whose entries have the indices 1..`last`."""
    index = "Row of the embedding, which never moves. 0 is missing, capacity - 1 is unknown."
    return DeclaredTable(
        f"registries.{name}",
        (
            DeclaredColumn("key", pa.string(), "What upstream sent, as text."),
            DeclaredColumn("index", pa.int64(), index, low=1, high=last),
            DeclaredColumn(
                "retired", pa.bool_(), "Whether the key vanished upstream or an operator retired it; it keeps its index."
            ),
        ),
        keys=(("key",), ("index",)),
    )


EWMA: Final = _EWMA.arrow_schema
CURRENT: Final = _CURRENT.arrow_schema
NORMS: Final = {table.name: table for table in (_EWMA, _CURRENT)}
REGISTRY_TABLES: Final = {f"registries.{name}": _registry(name, spec.last) for name, spec in REGISTRIES.items()}
