"""Handwritten digits of scikit-learn: 1,797 images of 8 x 8 grey levels, 10 classes."""

from functools import cache
from typing import Final

import torch
from sklearn.datasets import load_digits

from recorder.data.base import DataSet, Examples


@cache
def _load() -> Examples:
    bunch = load_digits()
    inputs = torch.as_tensor(bunch.data, dtype=torch.float32)
    return Examples((inputs - inputs.mean()) / inputs.std(), torch.as_tensor(bunch.target, dtype=torch.int64))


DIGITS: Final = DataSet(
    name="digits",
    kind="vector",
    classes=10,
    licence="CC BY 4.0 (UCI Machine Learning Repository, E. Alpaydin and C. Kaynak, 1998); scikit-learn is BSD-3-Clause",
    source="sklearn.datasets.load_digits",
    load=_load,
)
