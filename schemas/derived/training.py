"""Declare the tables `training.*`. Imports no heavy library."""

from typing import Final

import pyarrow as pa

from schemas.configuration import RISK_CLASSES
from schemas.splits import SPLITS
from schemas.table_declaration import DeclaredColumn, DeclaredTable

KEYS: Final = ("training_run_id", "packet_id", "seed_id", "kernel", "horizon")
RISK_COLUMNS: Final = tuple(f"risk_{name}" for name in RISK_CLASSES)
JUDGED: Final = ("out_of_fold", "bucket_7", "held_out")  # splits of predictions by networks that never saw the host

_RUN, _PACKET, _SEED, _KERNEL, _HORIZON = (
    DeclaredColumn("training_run_id", pa.string(), "Training run of the row."),
    DeclaredColumn("packet_id", pa.string(), "Packet in whose state the command was given."),
    DeclaredColumn("seed_id", pa.string(), "Seed that the command addressed."),
    DeclaredColumn("kernel", pa.string(), "Kernel that was grafted: its blueprint id."),
    DeclaredColumn("horizon", pa.int64(), "Steps from the graft to the measurement [training steps]."),
)
_SPLIT: Final = DeclaredColumn("split", pa.string(), "Split of the host: fold_0 to fold_4, or held_out.", values=SPLITS)
_PART: Final = DeclaredColumn(
    "split",
    pa.string(),
    "Who was judged: all folds, each by the network that never saw it; bucket 7 or the held-out data set by the published one.",
    values=JUDGED,
)
_METHODS: Final = pa.list_(pa.struct([("method", pa.string()), ("u", pa.float64())]))


def _text(name: str, description: str, *, nullable: bool = False) -> DeclaredColumn:
    return DeclaredColumn(name, pa.string(), description, nullable=nullable)


def _number(name: str, description: str, *, nullable: bool = True) -> DeclaredColumn:
    """Return the column of a finite number; NULL if there is none."""
    return DeclaredColumn(name, pa.float64(), description, nullable=nullable, finite=True)


def _share(name: str, description: str) -> DeclaredColumn:
    """Return the column of a number from 0 to 1; NULL if there is none."""
    return DeclaredColumn(name, pa.float64(), description, nullable=True, low=0, high=1, finite=True)


_MODEL: Final = _text("model", "Model: `model`, or the name of a baseline.")
_EXAMPLES: Final = DeclaredTable(
    "training.examples",
    (
        _RUN,
        _PACKET,
        _SEED,
        _text("layer_id", "Layer of the seed, as the field reports say; NULL if none does.", nullable=True),
        _KERNEL,
        _HORIZON,
        _number(
            "u",
            "Mean uplift over the replicates on validation data [nats of loss]; above 0 if it helped, NULL if it diverged.",
        ),
        _number("u_test", "Mean uplift on the hosts' test data [nats of loss]; NULL if it was not measured."),
        DeclaredColumn(
            "se",
            pa.float64(),
            "Standard error of u [nats]; NULL if it is not reported and there are no replicates to estimate it.",
            nullable=True,
            low=0,
            finite=True,
        ),
        DeclaredColumn("replicates", pa.int64(), "Field reports that the row is the mean of.", low=1),
        _number("u_first", "Uplift of the first replicate [nats]."),
        _number("u_second", "Uplift of the second replicate of the same blending method [nats]; NULL if there is one only."),
        _number("u_test_first", "Uplift of the first replicate on the hosts' test data [nats]."),
        _number("u_test_second", "Uplift of the second replicate on the hosts' test data [nats]; NULL if there is one only."),
        DeclaredColumn(
            "risk_class",
            pa.string(),
            "Worst risk class of the replicates: none, low, medium, high or critical.",
            values=RISK_CLASSES,
        ),
        _text("blending_method", "Most frequent blending method of the replicates; NULL if none is named.", nullable=True),
        DeclaredColumn("by_method", _METHODS, "Mean uplift by blending method [nats].", nullable=True),
        DeclaredColumn("weight", pa.float64(), "Weight in the loss: 1 / (se^2 + tau^2) [1 / nats^2].", low=0, finite=True),
        _SPLIT,
        _text("host", "Host network that was trained; hosts, not rows, are split."),
        _text("data_set", "Data set of the host.", nullable=True),
        _text("architecture", "Architecture of the host.", nullable=True),
    ),
    keys=(KEYS,),
)
_PREDICTIONS: Final = DeclaredTable(
    "training.predictions",
    (
        _RUN,
        _PACKET,
        _SEED,
        _KERNEL,
        _HORIZON,
        _MODEL,
        DeclaredColumn(
            "split",
            pa.string(),
            "fold_0 to fold_4 if a network judged it that never saw that fold; bucket_7 or held_out if the published one did.",
            values=(*SPLITS, "bucket_7"),
        ),
        _number("value", "Predicted uplift [nats]."),
        _number(
            "value_low", "Lower bound of the calibrated interval of the uplift [nats]; NULL if the model states no deviation."
        ),
        _number(
            "value_high", "Upper bound of the calibrated interval of the uplift [nats]; NULL if the model states no deviation."
        ),
        *(
            _share(
                column,
                f"Probability of risk class {name}, after temperature scaling; NULL if the model predicts no risk.",
            )
            for column, name in zip(RISK_COLUMNS, RISK_CLASSES, strict=True)
        ),
        _number(
            "policy_logit",
            "Score that orders the (seed, kernel) pairs of a packet; the highest is the model's choice.",
        ),
    ),
    keys=((*KEYS, "model", "split"),),
    at_most=(("value_low", "value_high"),),
)
_EVALUATION: Final = DeclaredTable(
    "training.evaluation",
    (
        _MODEL,
        _PART,
        _text("metric", "Name of the figure; gap_closed/<kind>=<group> is the gap closed on one group of hosts."),
        _number("value", "The figure [unit of the metric]; NULL if it can't be computed."),
        _number("low", "Lower bound of its bootstrap interval over hosts; NULL if there is none."),
        _number("high", "Upper bound of its bootstrap interval over hosts; NULL if there is none."),
    ),
    keys=(("model", "split", "metric"),),
    at_most=(("low", "high"),),
)
_CALIBRATION: Final = DeclaredTable(
    "training.calibration",
    (
        DeclaredColumn("bin", pa.int64(), "Number of the bin of confidence, from 0.", low=0),
        _share("confidence", "Mean confidence of the risk head in the bin, from 0 to 1; NULL if the bin is empty."),
        _share("accuracy", "Share of right predictions in the bin, from 0 to 1; NULL if the bin is empty."),
        DeclaredColumn("count", pa.int64(), "Examples in the bin.", low=0),
        DeclaredColumn("stage", pa.string(), "before or after temperature scaling.", values=("before", "after")),
        _PART,
    ),
    keys=(("split", "stage", "bin"),),
)
EXAMPLES: Final = _EXAMPLES.arrow_schema
PREDICTIONS: Final = _PREDICTIONS.arrow_schema
EVALUATION: Final = _EVALUATION.arrow_schema
CALIBRATION: Final = _CALIBRATION.arrow_schema
TRAINING: Final = {table.name: table for table in (_EXAMPLES, _PREDICTIONS, _EVALUATION, _CALIBRATION)}
