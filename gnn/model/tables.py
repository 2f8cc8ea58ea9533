"""Build the tables `training.predictions`, `training.evaluation` and `training.calibration`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from gnn.model.bootstrap import Estimate, Interval
from gnn.model.calibration import Answers
from gnn.model.evaluation import Figures
from gnn.model.figures import reliability
from gnn.model.targets import Floats, Labels
from schemas.configuration import RISK_CLASSES
from schemas.derived.training import CALIBRATION, EVALUATION, KEYS, PREDICTIONS, RISK_COLUMNS


def empty_tables() -> dict[str, pa.Table]:
    """Return the three tables without rows."""
    schemas = {"predictions": PREDICTIONS, "evaluation": EVALUATION, "calibration": CALIBRATION}
    return {f"training.{name}": schema.empty_table() for name, schema in schemas.items()}


def prediction_rows(name: str, split: Sequence[str], examples: pa.Table, labels: Labels, answers: Answers) -> pa.Table:
    """Return the prediction rows of one model, NULL for what it does not predict; risks are after temperature scaling."""
    keys = examples.select(list(KEYS)).take(labels.example)
    count = len(labels)
    risks: Floats = np.full((count, len(RISK_CLASSES)), np.nan) if answers.risk_after is None else answers.risk_after
    numbers = {"value": answers.value, "value_low": answers.low, "value_high": answers.high, "policy_logit": answers.logit}
    numbers |= {column: risks[:, place] for place, column in enumerate(RISK_COLUMNS)}
    columns = {key: keys[key] for key in KEYS}
    columns |= {"model": pa.array([name] * count, pa.string()), "split": pa.array(split, pa.string())}
    columns |= {column: pa.array(values, pa.float64(), from_pandas=True) for column, values in numbers.items()}
    return pa.table([columns[field.name] for field in PREDICTIONS], schema=PREDICTIONS)


def evaluation_rows(
    part: str, figures: Mapping[str, Figures], lead: Estimate | None, groups: Mapping[str, Mapping[str, float]]
) -> pa.Table:
    """Return rows (model, split, metric, value, low, high): all models' figures, the model's lead, its gap closed by group."""
    rows = [(name, metric, found.interval) for name, each in figures.items() for metric, found in each.items()]
    if lead is not None:
        rows.append(("model", "gap_closed_minus_best_baseline", lead.interval))
    nan = float("nan")
    for kind, each in groups.items():
        rows += [("model", f"gap_closed/{kind}={g}", Interval(value, nan, nan)) for g, value in each.items()]
    columns = [
        [name for name, *_ in rows],
        [part] * len(rows),
        [metric for _, metric, _ in rows],
        *([_finite(getattr(found, side)) for *_, found in rows] for side in ("mean", "low", "high")),
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVALUATION, strict=True)], schema=EVALUATION)


def calibration_rows(part: str, labels: Labels, answers: Answers) -> pa.Table:
    """Return the reliability of the risk head before and after temperature scaling, in 15 bins each."""
    seen = labels.risk >= 0
    if answers.risk_before is None or answers.risk_after is None or not seen.any():
        return CALIBRATION.empty_table()
    rows = []
    for stage, shares in (("before", answers.risk_before), ("after", answers.risk_after)):
        for number, (confidence, accuracy, count) in enumerate(reliability(shares[seen], labels.risk[seen])):
            rows.append((number, _finite(confidence), _finite(accuracy), count, stage, part))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, CALIBRATION, strict=True)], schema=CALIBRATION)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
