"""Arrow schemas of `training.predictions`, `training.evaluation` and `training.calibration`; light to import."""

from typing import Final

import pyarrow as pa

from gnn.model.config import RISK_CLASSES
from gnn.model.examples import KEYS

_KEY_FIELDS: Final = [pa.field(name, pa.int64() if name == "horizon" else pa.string()) for name in KEYS]
RISK_COLUMNS: Final = tuple(f"risk_{name}" for name in RISK_CLASSES)
PREDICTIONS: Final = pa.schema(
    [
        *_KEY_FIELDS,
        pa.field("model", pa.string()),
        pa.field("split", pa.string()),
        *(pa.field(name, pa.float64()) for name in ("value", "value_low", "value_high", *RISK_COLUMNS, "policy_logit")),
    ]
)
EVALUATION: Final = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("model", "split", "metric")),
        *(pa.field(name, pa.float64()) for name in ("value", "low", "high")),
    ]
)
CALIBRATION: Final = pa.schema(
    [
        pa.field("bin", pa.int64()),
        pa.field("confidence", pa.float64()),
        pa.field("accuracy", pa.float64()),
        pa.field("count", pa.int64()),
        pa.field("stage", pa.string()),
        pa.field("split", pa.string()),
    ]
)
