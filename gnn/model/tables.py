"""The tables `training.predictions`, `training.evaluation` and `training.calibration`."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from gnn.model.bootstrap import Interval
from gnn.model.calibration import Calibration
from gnn.model.evaluation import Gaps, value_interval
from gnn.model.figures import probabilities, reliability
from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Labels
from schemas.configuration import RISK_CLASSES
from schemas.derived.training import CALIBRATION, EVALUATION, KEYS, PREDICTIONS, RISK_COLUMNS


def empty_tables() -> dict[str, pa.Table]:
    """The three tables without rows."""
    schemas = {"predictions": PREDICTIONS, "evaluation": EVALUATION, "calibration": CALIBRATION}
    return {f"training.{name}": schema.empty_table() for name, schema in schemas.items()}


def prediction_rows(
    name: str, split: str, examples: pa.Table, labels: Labels, predictions: Predictions, calibration: Calibration
) -> pa.Table:
    """Rows of one model on one split; what a model does not state is NULL. Risks are after temperature scaling."""
    keys = examples.select(list(KEYS)).take(labels.example)
    count = len(labels)
    low, high = value_interval(predictions, calibration)
    risks: Floats = np.full((count, len(RISK_CLASSES)), np.nan)
    if predictions.risk_logits is not None:
        risks = probabilities(predictions.risk_logits, calibration.temperature)
    numbers = {"value": predictions.value, "value_low": low, "value_high": high, "policy_logit": predictions.logit}
    numbers |= {column: risks[:, place] for place, column in enumerate(RISK_COLUMNS)}
    columns = {key: keys[key] for key in KEYS}
    columns |= {"model": pa.array([name] * count, pa.string()), "split": pa.array([split] * count, pa.string())}
    columns |= {column: pa.array(values, pa.float64(), from_pandas=True) for column, values in numbers.items()}
    return pa.table([columns[field.name] for field in PREDICTIONS], schema=PREDICTIONS)


def evaluation_rows(
    split: str, gaps: Gaps, figures: Mapping[str, Mapping[str, Interval]], groups: Mapping[str, Mapping[str, float]]
) -> pa.Table:
    """Rows (model, split, metric, value, low, high): gaps of all models, their figures, and the model's gap by group."""
    rows = [(name, split, "gap_closed", found) for name, found in gaps.closed.items()]
    rows.append(("model", split, "gap_closed_minus_best_baseline", gaps.lead))
    rows += [(name, split, metric, found) for name, each in figures.items() for metric, found in each.items()]
    nan = float("nan")
    for kind, each in groups.items():
        rows += [("model", split, f"gap_closed/{kind}={g}", Interval(value, nan, nan)) for g, value in each.items()]
    columns = [
        [name for name, *_ in rows],
        [part for _, part, *_ in rows],
        [metric for _, _, metric, _ in rows],
        *([_finite(getattr(found, side)) for *_, found in rows] for side in ("mean", "low", "high")),
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVALUATION, strict=True)], schema=EVALUATION)


def calibration_rows(split: str, labels: Labels, predictions: Predictions, calibration: Calibration) -> pa.Table:
    """Reliability of the risk head before and after temperature scaling, 15 bins each."""
    seen = labels.risk >= 0
    if predictions.risk_logits is None or not seen.any():
        return CALIBRATION.empty_table()
    rows = []
    for stage, temperature in (("before", 1.0), ("after", calibration.temperature)):
        shares = probabilities(predictions.risk_logits[seen], temperature)
        for number, (confidence, accuracy, count) in enumerate(reliability(shares, labels.risk[seen])):
            rows.append((number, _finite(confidence), _finite(accuracy), count, stage, split))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, CALIBRATION, strict=True)], schema=CALIBRATION)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
