"""Arrow schemas of the tables `training.*`; light to import."""

from typing import Final

import pyarrow as pa

from schemas.configuration import RISK_CLASSES

KEYS: Final = ("training_run_id", "packet_id", "seed_id", "kernel", "horizon")
_KEY_FIELDS: Final = [pa.field(name, pa.int64() if name == "horizon" else pa.string()) for name in KEYS]
RISK_COLUMNS: Final = tuple(f"risk_{name}" for name in RISK_CLASSES)
EXAMPLES: Final = pa.schema(
    [
        pa.field("training_run_id", pa.string()),
        pa.field("packet_id", pa.string()),
        pa.field("seed_id", pa.string()),
        pa.field("layer_id", pa.string()),
        pa.field("kernel", pa.string()),
        pa.field("horizon", pa.int64()),
        pa.field("u", pa.float64()),
        pa.field("u_test", pa.float64()),
        pa.field("se", pa.float64()),
        pa.field("replicates", pa.int64()),
        pa.field("u_first", pa.float64()),
        pa.field("u_second", pa.float64()),
        pa.field("risk_class", pa.string()),
        pa.field("blending_method", pa.string()),
        pa.field("by_method", pa.list_(pa.struct([("method", pa.string()), ("u", pa.float64())]))),
        pa.field("weight", pa.float64()),
        pa.field("split", pa.string()),
        pa.field("host", pa.string()),
        pa.field("data_set", pa.string()),
        pa.field("architecture", pa.string()),
    ]
)
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
