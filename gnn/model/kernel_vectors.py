"""Describe each kernel before any outcome is known: the fixed part of its vector, from its traits and its records.

Through these columns, kernels with common traits share what is learned; the heads learn the rest as a free embedding of each
kernel. The columns are a buffer of the network, so a bundle serves with the records that it was trained with.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from schemas.artifacts import REGISTRIES
from schemas.kernels import KERNELS

# traits of each kernel: words for what it does to a site's output
_TRAITS: Final[dict[str, str]] = {
    "kernel-identity": "plain",
    "kernel-scale": "affine",
    "kernel-shift": "affine",
    "kernel-affine": "affine",
    "kernel-linear": "projection full",
    "kernel-low-rank-4": "projection narrow",
    "kernel-low-rank-16": "projection narrow",
    "kernel-bottleneck-relu": "projection narrow relu",
    "kernel-bottleneck-gelu": "projection narrow smooth",
    "kernel-mlp-relu": "projection wide relu",
    "kernel-mlp-gelu": "projection wide smooth",
    "kernel-mlp-silu": "projection wide smooth",
    "kernel-swiglu": "gate full smooth",
    "kernel-gated-residual": "gate full",
    "kernel-highway": "gate full relu abrupt",
    "kernel-squeeze-excite": "gate narrow spatial",
    "kernel-layer-norm": "norm abrupt",
    "kernel-rms-norm": "norm abrupt",
    "kernel-batch-norm": "norm abrupt spatial",
    "kernel-dropout": "noise abrupt",
    "kernel-noise": "noise abrupt",
    "kernel-prelu": "activation relu",
    "kernel-silu": "activation smooth abrupt",
    "kernel-tanh": "activation smooth abrupt",
    "kernel-depthwise-conv": "convolution narrow spatial",
    "kernel-conv": "convolution full spatial",
    "kernel-pointwise-conv": "convolution full",
    "kernel-dilated-conv": "convolution full spatial",
    "kernel-token-mixer": "mixing full spatial",
    "kernel-self-attention": "mixing wide spatial",
    "kernel-average-pool": "pooling spatial abrupt",
    "kernel-max-pool": "pooling spatial abrupt relu",
}
WORDS: Final[tuple[str, ...]] = tuple(dict.fromkeys(word for traits in _TRAITS.values() for word in traits.split()))
RECORDED: Final[tuple[str, ...]] = ("tier", "stage", "catalogue_risk", "parameters", "sheet_risk", "hazard", "handling")
DESCRIPTORS: Final[tuple[str, ...]] = (*WORDS, *RECORDED)


def kernel_descriptors(tables: Mapping[str, pa.Table] | None = None) -> Tensor:
    """Return the descriptors of all kernels: float32 [32, len(DESCRIPTORS)], in the policy's order.

    `tables` are `urza.blueprint`, `urza.layer` and `urabrask.bsds`, whose newest records give the last columns. Columns are
    z-scores over the kernels; a value that no record states is zero, the mean of the known ones.
    """
    words = np.array([[word in _TRAITS[kernel].split() for word in WORDS] for kernel in KERNELS], dtype=np.float64)
    recorded = np.full((len(KERNELS), len(RECORDED)), np.nan)
    if tables is not None:
        recorded = _recorded(tables)
    return torch.from_numpy(np.concatenate([_scaled(words), _scaled(recorded)], 1).astype(np.float32))


def _recorded(tables: Mapping[str, pa.Table]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    blueprints = _newest(tables["urza.blueprint"], "exported_at_ns")
    sheets = _newest(tables["urabrask.bsds"], "issued_at_ns")
    parameters = _parameters(tables["urza.layer"], blueprints)
    rows = []
    for kernel in KERNELS:
        record, sheet = blueprints.get(kernel, {}), sheets.get(kernel, {})
        rows.append(
            [
                _rank("blueprint_tier", record.get("descriptor_tier")),
                _number(record.get("descriptor_stage")),
                _number(record.get("descriptor_risk")),
                np.log1p(_number(parameters.get(kernel))),
                _number(sheet.get("risk_score")),
                _rank("hazard_class", sheet.get("hazard_band")),
                _rank("handling_class", sheet.get("handling_class")),
            ]
        )
    return np.array(rows, dtype=np.float64)


def _newest(table: pa.Table, time: str) -> dict[str, dict[str, object]]:
    """Return the newest row of each kernel; one without a time is the oldest."""
    found: dict[str, dict[str, object]] = {}
    rows = [row for row in _rows(table) if row["blueprint_id"] in _TRAITS]
    for row in sorted(rows, key=lambda row: int(_number(row[time])) if row[time] is not None else -1):
        found[str(row["blueprint_id"])] = row
    return found


def _parameters(layers: pa.Table, blueprints: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    """Return the number of scalars in the layers of each kernel's newest record."""
    found: dict[str, float] = {}
    for row in _rows(layers):
        kernel = str(row["blueprint_id"])
        if kernel in blueprints and row["exported_at_ns"] == blueprints[kernel]["exported_at_ns"]:
            found[kernel] = found.get(kernel, 0.0) + _number(row["parameter_count"])
    return found


def _rows(table: pa.Table) -> Sequence[dict[str, object]]:
    mask = pc.is_in(table["blueprint_id"], pa.array(KERNELS))
    rows: list[dict[str, object]] = table.filter(mask).to_pylist()
    return rows


def _rank(registry: str, word: object) -> float:
    """Return the place of a word in its closed vocabulary, which is ordered from harmless to dangerous; NaN if unknown."""
    words = REGISTRIES[registry].seeded
    return float(words.index(word)) if isinstance(word, str) and word in words else float("nan")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _scaled(columns: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the z-scores of columns; zero if a value is unknown or all kernels are equal."""
    known = np.isfinite(columns)
    count = known.sum(0).clip(min=1)
    values = np.where(known, columns, 0.0)
    mean = values.sum(0) / count
    spread = np.sqrt((np.where(known, columns - mean, 0.0) ** 2).sum(0) / count)
    return np.where(known, (values - mean) / np.where(spread > 1e-9, spread, np.inf), 0.0)
