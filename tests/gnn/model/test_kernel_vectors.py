"""Kernel descriptors: every kernel has its own, records fill the last columns, and what nobody says is the mean."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gnn.model.kernel_vectors import DESCRIPTORS, RECORDED, WORDS, kernel_descriptors
from schemas.contracts import TABLES
from schemas.kernels import KERNELS


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = TABLES[name].arrow_schema
    return pa.table({f.name: pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema}, schema=schema)


def tables(**more: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {
        name: table(name, more.get(name.partition(".")[2], [])) for name in ("urza.blueprint", "urza.layer", "urabrask.bsds")
    }


def test_there_are_24_columns_of_z_scores_and_no_table_is_needed() -> None:
    found = kernel_descriptors()
    assert found.shape == (len(KERNELS), len(DESCRIPTORS)) == (32, 24)
    words = found[:, : len(WORDS)]
    assert words.mean(0).abs().max() < 1e-6
    assert (words.std(0, correction=0) - 1).abs().max() < 1e-5
    assert not bool(found[:, len(WORDS) :].any())


def test_empty_tables_say_nothing() -> None:
    assert bool((kernel_descriptors(tables()) == kernel_descriptors()).all())


def test_the_newest_records_fill_the_last_columns() -> None:
    def blueprint(kernel: str, time: int | None, tier: str, stage: int) -> dict[str, Any]:
        return {"blueprint_id": kernel, "exported_at_ns": time, "descriptor_tier": tier, "descriptor_stage": stage}

    def sheet(kernel: str, time: int, risk: float, band: str) -> dict[str, Any]:
        return {"blueprint_id": kernel, "issued_at_ns": time, "risk_score": risk, "hazard_band": band}

    layers = [
        {"blueprint_id": KERNELS[0], "exported_at_ns": 9, "parameter_count": 10},
        {"blueprint_id": KERNELS[1], "exported_at_ns": 5, "parameter_count": 30},
        {"blueprint_id": KERNELS[1], "exported_at_ns": 5, "parameter_count": 30},
        {"blueprint_id": KERNELS[1], "exported_at_ns": 1, "parameter_count": 7},
    ]
    found = kernel_descriptors(
        tables(
            blueprint=[
                blueprint(KERNELS[0], 9, "SAFE", 1),
                blueprint(KERNELS[0], None, "HIGH_RISK", 3),
                blueprint(KERNELS[1], 5, "HIGH_RISK", 3),
                blueprint("host-1", 5, "HIGH_RISK", 3),
            ],
            layer=layers,
            bsds=[sheet(KERNELS[0], 2, 0.1, "LOW"), sheet(KERNELS[0], 1, 0.9, "CRITICAL"), sheet(KERNELS[1], 1, 0.5, "HIGH")],
        )
    )
    column = {name: found[:, len(WORDS) + place].numpy() for place, name in enumerate(RECORDED)}
    for name in ("tier", "stage", "parameters", "sheet_risk", "hazard"):
        assert column[name][:2].tolist() == pytest.approx([-1.0, 1.0]), name
        assert not np.any(column[name][2:]), name
    assert not np.any(column["handling"])
