"""The declared columns of every table that is derived: features, coverage and training. Imports no torch."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from schemas.derived.features import BY_FAMILY, BY_KEY, DANGLING, DANGLING_TABLE, GAPS, feature_schema
from schemas.derived.training import CALIBRATION, EVALUATION, EXAMPLES, PREDICTIONS
from schemas.features import GROUPS

DERIVED: Final[Mapping[str, pa.Schema]] = {
    **{group.table: feature_schema(group) for group in GROUPS},
    DANGLING_TABLE: DANGLING,
    "coverage.by_key": BY_KEY,
    "coverage.by_family": BY_FAMILY,
    "coverage.gaps": GAPS,
    "training.examples": EXAMPLES,
    "training.predictions": PREDICTIONS,
    "training.evaluation": EVALUATION,
    "training.calibration": CALIBRATION,
}
