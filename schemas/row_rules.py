"""Derive a pandera (polars) schema from a table's declaration: the rules that rows must meet before a commit.

Rules are polars expressions. Rows to commit cost one pass: a single pandera check evaluates all rules in one query. One check
per column and rule, as in `pandera_schema`, costs ten times as much for a table of fifty columns. If the pass finds a fault,
each rule is evaluated alone to find the rows that break it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pandera.polars as pandera
import polars as pl
import pyarrow as pa
from pandera.api.polars.types import PolarsData
from pandera.errors import SchemaErrors

from schemas.table_declaration import DeclaredColumn, DeclaredTable, Part

SHOWN: Final = 3  # rows that are named for each broken rule
_TEXT: Final = 60  # characters of a value that are shown


@dataclass(frozen=True)
class RowRule:
    """One rule. `broken` is a boolean expression, true for rows that break it and never NULL.

    `presence`: the rule requires a value. `key`: the rule requires that no two rows share the values of the columns.
    """

    name: str
    columns: tuple[str, ...]
    expected: str
    broken: pl.Expr
    presence: bool = False
    key: bool = False


@dataclass(frozen=True)
class Breach:
    """A rule that rows break: how many rows, and the first of them, each with its name and the value found."""

    rule: RowRule
    rows: int
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        more = f" and {self.rows - len(self.examples)} more" if self.rows > len(self.examples) else ""
        return f"{self.rule.name}: expected {self.rule.expected}, found {self.rows} rows: {'; '.join(self.examples)}{more}"


def row_rules(table: DeclaredTable, part: Part = "all") -> tuple[RowRule, ...]:
    """Return the rules of a table, or a part of them: rules of columns, then of pairs of columns, then of keys."""
    of_columns = [rule for column in table.columns for rule in _column_rules(column)]
    pairs = [
        RowRule(f"{low}_at_most_{high}", (low, high), f"{low} at most {high}", (pl.col(low) > pl.col(high)).fill_null(False))
        for low, high in table.at_most
    ]
    keys = [
        RowRule(f"unique_{'_'.join(key)}", key, f"one row for each {', '.join(key)}", pl.struct(key).is_duplicated(), key=True)
        for key in table.keys
    ]
    return (*(() if part == "keys" else (*of_columns, *pairs)), *(() if part == "rows" else keys))


def _column_rules(column: DeclaredColumn) -> Iterator[RowRule]:
    name, value = column.name, pl.col(column.name)
    outside = []
    if not column.nullable:
        yield RowRule(f"{name}_present", (name,), f"a value of {name}", value.is_null(), presence=True)
    if column.low is not None:
        outside.append(value < column.low)
    if column.high is not None:
        outside.append(value > column.high)
    if outside:
        expected = f"{name} within {column.demands[0]}"
        yield RowRule(f"{name}_in_range", (name,), expected, pl.any_horizontal(outside).fill_null(False))
    if column.above is not None:
        broken = (value <= column.above).fill_null(False)
        yield RowRule(f"{name}_above", (name,), f"{name} above {column.above:g}", broken)
    if column.finite:
        yield RowRule(f"{name}_finite", (name,), f"a finite {name}", value.is_finite().not_().fill_null(False))
    if column.values:
        broken = value.is_in(column.values).not_().fill_null(False)
        yield RowRule(f"{name}_known", (name,), f"{name} to be one of {', '.join(column.values)}", broken)
    if column.mask_of is not None:
        measured = pl.col(column.mask_of).is_not_null()
        broken = (value.is_not_null() & ~value.is_in([0, 1])) | (value.eq_missing(1) != measured)
        expected = f"{name} 1 where {column.mask_of} has a value, else 0 or NULL"
        yield RowRule(f"{name}_tells_truth", (name, column.mask_of), expected, broken)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type with maps as lists of (key, value) structs, since polars has no map type."""
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([("key", kind.key_type), ("value", plain_type(kind.item_type))]))
    return kind


def polars_type(kind: pa.DataType) -> Any:
    """Return the polars type of a column of `polars_frame`."""
    series = pl.from_arrow(pa.array([], plain_type(kind)))
    return series.dtype if isinstance(series, pl.Series) else pl.Struct(series.schema)


def polars_frame(rows: pa.Table) -> pl.DataFrame:
    """Return rows as the frame that the pandera schema validates, with maps as lists of structs."""
    plain = pa.schema([pa.field(one.name, plain_type(one.type)) for one in rows.schema])
    frame = pl.from_arrow(rows if plain.equals(rows.schema) else rows.cast(plain))
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def pandera_schema(table: DeclaredTable) -> Any:
    """Return the schema of a `polars_frame`, for other tools: columns with their nullability, and one check per rule."""
    rules = [rule for rule in row_rules(table) if not rule.presence]
    columns = {
        one.name: pandera.Column(
            polars_type(one.type),
            checks=[_check(rule) for rule in rules if rule.columns == (one.name,)],
            nullable=one.nullable,
            description=one.description,
        )
        for one in table.columns
    }
    checks = [_check(rule) for rule in rules if len(rule.columns) > 1]
    return pandera.DataFrameSchema(columns, checks=checks, name=table.name, strict=True)


def _check(rule: RowRule) -> Any:
    """Return the pandera check of one rule; it names the rows that break the rule."""
    return pandera.Check(lambda data: data.lazyframe.select(rule.broken.not_()), name=rule.name, error=rule.expected)


def _sound(data: PolarsData, rules: Sequence[RowRule]) -> bool:
    """Return whether no row breaks a rule, in one pass; if hashes of keys are equal, compare the keys themselves."""
    queries = [_suspected(rule).alias(str(place)) for place, rule in enumerate(rules)]
    suspected = data.lazyframe.select(queries).collect().row(0)
    if not any(suspected):
        return True
    left = [rule.broken.any().alias(str(place)) for place, rule in enumerate(rules) if suspected[place]]
    return not any(data.lazyframe.select(left).collect().row(0))


def _suspected(rule: RowRule) -> pl.Expr:
    return pl.struct(rule.columns).hash().n_unique() != pl.len() if rule.key else rule.broken.any()


def wrong_columns(table: DeclaredTable, schema: pa.Schema) -> str | None:
    """Describe what is wrong with the columns of rows; None if names, order and types are those declared."""
    declared, found = table.arrow_schema, schema
    if found.names != declared.names:
        lacking = [name for name in declared.names if name not in found.names]
        foreign = [name for name in found.names if name not in declared.names]
        said = [f"without {', '.join(lacking)}"] if lacking else []
        said += [f"with {', '.join(foreign)}"] if foreign else []
        return f"expected the columns {', '.join(declared.names)}, found them {' and '.join(said) or 'in another order'}"
    wrong = [one for one in declared if found.field(one.name).type != one.type]
    return "; ".join(f"expected {one.name} of type {one.type}, found {found.field(one.name).type}" for one in wrong) or None


@cache
def _commit_schema(table: DeclaredTable, part: Part, *, nulls: bool) -> tuple[tuple[str, ...], Any]:
    """Return the columns that a part of the rules reads, and the pandera schema of a frame of these.

    `wrong_columns` compares columns and types in Arrow at no cost; pandera takes 0.1 ms per column. `nulls=False` says that no
    column that must have a value holds a NULL: presence rules are then left out, and so are columns that no other rule reads,
    since making them polars columns would copy their texts.
    """
    rules = [rule for rule in row_rules(table, part) if nulls or not rule.presence]
    names = {name for rule in rules for name in rule.columns}
    check = pandera.Check(lambda data: _sound(data, rules), name=f"rules of {table.name}")
    chosen = tuple(column.name for column in table.columns if column.name in names)
    return chosen, pandera.DataFrameSchema(checks=[check], name=table.name)


def _holds_nulls(table: DeclaredTable, rows: pa.Table) -> bool:
    """Return whether a column that must have a value holds a NULL; cheap, since Arrow counts NULLs."""
    present = (column.name for column in table.columns if not column.nullable and column.name in rows.column_names)
    return any(rows.column(name).null_count for name in present)


def breaches(table: DeclaredTable, rows: pa.Table, part: Part = "all") -> list[Breach]:
    """Return every rule that some rows break, [] if none. `rows` needs only the columns that the rules read."""
    names, schema = _commit_schema(table, part, nulls=_holds_nulls(table, rows))
    if not rows.num_rows or not names:
        return []
    try:
        schema.validate(polars_frame(rows.select(list(names))), lazy=True)
    except SchemaErrors as errors:
        found = [breach for rule in row_rules(table, part) if (breach := _breach(table, rule, rows)) is not None]
        return found or [_unnamed(table, rows, str(errors))]
    return []


def _breach(table: DeclaredTable, rule: RowRule, rows: pa.Table) -> Breach | None:
    identity = [name for name in table.identity if name in rows.column_names]
    names = list(dict.fromkeys((*identity, *rule.columns)))
    broken = polars_frame(rows.select(names)).filter(rule.broken)
    if not len(broken):
        return None
    found = [] if rule.key else [name for name in rule.columns if name not in identity]
    examples = (_example(row, identity, found) for row in broken.head(SHOWN).to_dicts())
    return Breach(rule, len(broken), tuple(examples))


def _unnamed(table: DeclaredTable, rows: pa.Table, errors: str) -> Breach:
    """Return a breach for rows that pandera refuses although they break no single rule."""
    rule = RowRule("pandera", (), f"rows that the pandera schema of {table.name} accepts", pl.lit(False))
    return Breach(rule, rows.num_rows, (_shown(errors),))


def _example(row: dict[str, Any], identity: Sequence[str], found: Sequence[str]) -> str:
    named = ", ".join(f"{name}={_shown(row[name])}" for name in identity)
    values = ", ".join(f"{name}={_shown(row[name])}" for name in found)
    return f"{values} ({named})" if values and named else values or named


def _shown(value: object) -> str:
    if value is None:
        return "NULL"
    text = repr(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."
