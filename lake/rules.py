"""Kept rows against their table's declaration: which rules are broken, by how many rows, for example by which."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from schemas.contracts.table import Rule, Severity, Table

if TYPE_CHECKING:
    import polars as pl

_LISTED: Final = 50  # ids of broken rows that are named
_SHOWN: Final = 3
_ROUNDING: Final = 1e-6  # of float32 scores beside their bounds

References = Mapping[tuple[str, str], Collection[str]]  # ids that exist, by (table, column)


@dataclass(frozen=True)
class BrokenRule:
    """One rule that some kept rows break. `examples`: their ids or values, the first 50."""

    rule: str
    severity: Severity
    cases: int
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.rule}: {self.cases} rows, e.g. {', '.join(self.examples[:_SHOWN])}"


def references(tables: Iterable[Table]) -> frozenset[tuple[str, str]]:
    """(table, column) of all ids that rules of `tables` compare with."""
    return frozenset(rule.refers for table in tables for rule in table.rules if rule.refers is not None)


def broken_rules(table: Table, rows: pa.Table, known: References | None = None) -> list[BrokenRule]:
    """Every broken rule, ERROR before WARN; [] where all keep. `known`: the ids that exist, for all `references`."""
    if not rows.num_rows:
        return []
    return [*_errors(table, rows), *_warnings(table, rows, known or {})]


def _errors(table: Table, rows: pa.Table) -> Iterator[BrokenRule]:
    """Types, nullability, ranges and the key, by the table's pandera schema."""
    from schemas.row_rules import breaches, wrong_columns

    wrong = wrong_columns(table.declared, rows.schema)
    if wrong is not None:
        yield BrokenRule(f"{table.name} columns", Severity.ERROR, rows.num_rows, (wrong,))
        return
    for breach in breaches(table.declared, rows):
        yield BrokenRule(f"{table.name} {breach.rule.name}", Severity.ERROR, breach.rows, breach.examples)


def _warnings(table: Table, rows: pa.Table, known: References) -> Iterator[BrokenRule]:
    import polars as pl

    from schemas.row_rules import polars_frame

    frame = polars_frame(rows)

    for rule in table.rules:
        broken = _condition(table, rule, known) if rule.severity is Severity.WARN else None
        if broken is None:
            continue
        cases = frame.filter(broken)
        if len(cases):
            named = cases[table.key[0] if rule.bands else rule.columns[0]].cast(pl.String).unique(maintain_order=True)
            yield BrokenRule(f"{table.name} {rule.name}", Severity.WARN, len(cases), tuple(map(str, named.head(_LISTED))))


def _condition(table: Table, rule: Rule, known: References) -> "pl.Expr | None":
    """Which rows break a WARN rule; None for a rule that says nothing here."""
    import polars as pl

    column = pl.col(rule.columns[0])
    if rule.bands:
        score = pl.col(rule.columns[1])
        inside = [(column == band) & score.is_between(low - _ROUNDING, high + _ROUNDING) for band, low, high in rule.bands]
        return column.is_in([band for band, *_ in rule.bands]) & score.is_not_null() & ~pl.any_horizontal(inside)
    if rule.refers is not None:
        return column.is_not_null() & ~column.is_in(list(known.get(rule.refers, ())))
    enum = table.column[rule.columns[0]].enum_spec
    return column.is_not_null() & ~column.is_in(list(enum.short_names.values())) if enum else None
