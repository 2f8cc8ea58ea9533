"""Uplift and risk classes at every rule's edge."""

import math

import numpy as np
import pytest

from gnn.model.examples import risk_class, uplift
from schemas.configuration import RISK_CLASSES


def risk(u: float, dip: float = 0.0, late: float = 0.0, control: float = 0.0, diverged: bool = False) -> str | None:
    values = [np.array([x]) for x in (u, dip, late, control)]
    found = int(risk_class(values[0], values[1], values[2], values[3], np.array([diverged]))[0])
    return RISK_CLASSES[found] if found >= 0 else None


def test_uplift_is_the_log_ratio_of_the_losses() -> None:
    found = uplift(np.array([1.0, 1.0, 1.0, 1.0]), np.array([-0.1, -0.1, np.nan, -1.0]), np.array([-0.2, -1.0, -0.1, -0.1]))
    assert found[0] == pytest.approx(math.log(0.9 / 0.8))
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"u": 0.1}, "none"), ({"u": -0.02}, "none"), ({"u": -0.0201}, "low"), ({"u": 0.1, "dip": -0.051}, "low"),
        ({"u": -0.08}, "low"), ({"u": -0.0801}, "medium"), ({"u": 0.1, "dip": -0.151}, "medium"), ({"u": -0.25}, "medium"),
        ({"u": -0.2501}, "high"), ({"u": 0.1, "late": 0.0801}, "high"), ({"u": 0.1, "late": 0.08}, "none"),
        ({"u": 0.1, "late": 0.2, "control": 0.04}, "none"), ({"u": -1.0}, "high"), ({"u": -1.001}, "critical"),
        ({"u": 0.1, "diverged": True}, "critical"), ({"u": math.nan, "diverged": True}, "critical"), ({"u": math.nan}, None),
        ({"u": math.nan, "dip": -0.5}, None), ({"u": 0.1, "dip": math.nan, "late": math.nan}, "none"),
    ],
)  # fmt: skip
def test_classes_by_the_first_rule_that_matches(values: dict, expected: str | None) -> None:
    assert risk(**values) == expected
