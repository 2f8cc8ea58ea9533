"""The declared columns of every table that is derived: features, coverage and training. Imports no torch."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from gnn.features.coverage import BY_FAMILY, BY_KEY
from gnn.features.gaps import GAPS
from gnn.features.tables import feature_schema
from gnn.model.examples import SCHEMA as EXAMPLES
from gnn.model.table_schemas import CALIBRATION, EVALUATION, PREDICTIONS
from schemas.features import GROUPS

DERIVED: Final[Mapping[str, pa.Schema]] = {
    **{group.table: feature_schema(group) for group in GROUPS},
    "coverage.by_key": BY_KEY,
    "coverage.by_family": BY_FAMILY,
    "coverage.gaps": GAPS,
    "training.examples": EXAMPLES,
    "training.predictions": PREDICTIONS,
    "training.evaluation": EVALUATION,
    "training.calibration": CALIBRATION,
}
