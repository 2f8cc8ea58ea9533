"""The exports of the existing system, odd ones on purpose: what their rows and rejects must be."""

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.contracts import FOLDERS, TABLES
from schemas.contracts.models import pandera_schema, polars_frame
from schemas.decode import decode_file
from schemas.decode.shape.merge import merge

Rows = dict[str, pa.Table]


@pytest.fixture(scope="module")
def decoded(esper_exports: Path) -> tuple[Rows, Counter[tuple[str, str]]]:
    """Merged rows by table, and rejects by table and reason."""
    parts: dict[str, list[pa.Table]] = {}
    reasons: Counter[tuple[str, str]] = Counter()
    for path in sorted(path for path in esper_exports.rglob("*") if path.is_file()):
        file = path.relative_to(esper_exports)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for chunk in decode_file(path, FOLDERS["/".join(file.parts[:2])], file=file.as_posix(), digest=digest):
            for name, rows in chunk.tables.items():
                parts.setdefault(name, []).append(rows)
            for name, rejects in chunk.rejects.items():
                reasons.update((name, reason) for reason in rejects.column("reason").to_pylist())
    return {name: merge(TABLES[name], None, pa.concat_tables(found)).rows for name, found in parts.items()}, reasons


def test_rows_and_rejects(decoded: tuple[Rows, Counter[tuple[str, str]]]) -> None:
    rows, reasons = decoded
    assert rows["tolaria.system_state"].num_rows == 241
    assert rows["urza.blueprint"].num_rows == 40
    assert reasons == {("rejects.kasmina_seed_state", "missing_training_run_id"): 200}


def test_completion_markers_are_flagged(decoded: tuple[Rows, Counter[tuple[str, str]]]) -> None:
    states = decoded[0]["tolaria.system_state"].to_pylist()
    marks = [row for row in states if row["is_completion"]]
    assert marks
    assert all(row["validation_accuracy"] == 1.0 and row["training_loss"] is None for row in marks)


def test_placeholders_are_marked(decoded: tuple[Rows, Counter[tuple[str, str]]]) -> None:
    for name in ("urza.layer", "urza.activation"):
        assert set(decoded[0][name].column("is_placeholder").to_pylist()) == {True}


def test_every_table_keeps_its_model(decoded: tuple[Rows, Counter[tuple[str, str]]]) -> None:
    for name, rows in decoded[0].items():
        assert rows.schema.equals(TABLES[name].arrow_schema)
        assert len(pandera_schema(TABLES[name]).validate(polars_frame(rows), lazy=True)) == rows.num_rows
