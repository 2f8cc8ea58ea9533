"""Kept rows against their table's declaration: which rules are broken, by how many rows, for example by which."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa
from pandera.errors import SchemaErrors

from schemas.contracts.models import polars_frame
from schemas.contracts.table import Rule, Severity, Table

# risk scores that each hazard band admits, inclusive
_BANDS: Final = {"LOW": (0.0, 0.5), "MEDIUM": (0.1, 0.75), "HIGH": (0.3, 1.0), "CRITICAL": (0.6, 1.0)}


@dataclass(frozen=True)
class BrokenRule:
    """One rule that some kept rows break."""

    rule: str
    severity: Severity
    cases: int
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.rule}: {self.cases} rows, e.g. {', '.join(self.examples)}"


def broken_rules(table: Table, rows: pa.Table, blueprints: Collection[str] = ()) -> list[BrokenRule]:
    """Every broken rule, ERROR before WARN; [] where all keep. `blueprints`: the ids that Urza has a record of."""
    if not rows.num_rows:
        return []
    frame = polars_frame(rows)
    return [*_errors(table, frame), *_warnings(table, frame, blueprints)]


def _errors(table: Table, frame: pl.DataFrame) -> Iterator[BrokenRule]:
    """Types, nullability, ranges and the key, by the table's pandera schema."""
    try:
        table.pandera().validate(frame, lazy=True)
    except SchemaErrors as errors:
        grouped = errors.failure_cases.group_by(["column", "check"], maintain_order=True)
        found = grouped.agg(pl.len(), pl.col("failure_case").cast(pl.String).first()).rows()
        for column, check, count, example in found:
            yield BrokenRule(f"{table.name}.{column} {check}", Severity.ERROR, count, (str(example),))


def _warnings(table: Table, frame: pl.DataFrame, blueprints: Collection[str]) -> Iterator[BrokenRule]:
    for rule in table.rules:
        broken = _condition(table, rule, blueprints) if rule.severity is Severity.WARN else None
        if broken is None:
            continue
        cases = frame.filter(broken)
        if len(cases):
            examples = cases[rule.columns[0]].cast(pl.String).unique(maintain_order=True).head(3).to_list()
            yield BrokenRule(f"{table.name} {rule.name}", Severity.WARN, len(cases), tuple(map(str, examples)))


def _condition(table: Table, rule: Rule, blueprints: Collection[str]) -> pl.Expr | None:
    """Which rows break a WARN rule; None for a rule that says nothing here."""
    column = pl.col(rule.columns[0])
    if rule.name == "band_agrees_with_score":
        score = pl.col("risk_score")
        inside = [(column == band) & score.is_between(low - 1e-6, high + 1e-6) for band, (low, high) in _BANDS.items()]
        return column.is_in(list(_BANDS)) & score.is_not_null() & ~pl.any_horizontal(inside)
    if rule.name == "blueprint_known":
        return column.is_not_null() & ~column.is_in(list(blueprints))
    enum = table.column[rule.columns[0]].enum_spec
    return column.is_not_null() & ~column.is_in(list(enum.short_names.values())) if enum else None
