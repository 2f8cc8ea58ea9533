"""Kept rows against their table's declaration: which rules are broken, how often, by which rows."""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from pandera.errors import SchemaErrors

from schemas.contracts.models import polars_frame
from schemas.contracts.table import Table


@dataclass(frozen=True)
class BrokenRule:
    """One rule that some kept rows break."""

    rule: str
    severity: str
    cases: int
    example: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.rule}: {self.cases} rows, e.g. {self.example}"


def broken_rules(table: Table, rows: pa.Table) -> list[BrokenRule]:
    """Every broken rule of the table's pandera schema, WARN rules included; [] where all keep."""
    if not rows.num_rows:
        return []
    try:
        table.pandera().validate(polars_frame(rows), lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        grouped = cases.group_by(["column", "check"], maintain_order=True).agg(pl.len(), pl.col("failure_case").first())
        return [
            BrokenRule(f"{table.name}.{column} {check}", "ERROR", count, str(example))
            for column, check, count, example in grouped.rows()
        ]
    return []
