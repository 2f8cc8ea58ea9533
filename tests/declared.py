"""Rows that keep a table's declaration, and every way to break one of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.table_declaration import DeclaredColumn, DeclaredTable

ROWS = 3


@dataclass(frozen=True)
class Mutation:
    """What is done to a sound table, and the rule that it breaks (for columns: a word of the message)."""

    what: str
    rule: str
    rows: pa.Table

    def __str__(self) -> str:
        return self.what


def sound_rows(table: DeclaredTable) -> pa.Table:
    """Three rows that keep the declaration; the last has no value where none is needed."""
    rows = [{column.name: _value(column, row) for column in table.columns} for row in range(ROWS)]
    for column in table.columns:
        if column.nullable and column.mask_of is None and not any(column.name in key for key in table.keys):
            rows[-1][column.name] = None
    for column in table.columns:
        if column.mask_of is not None:
            for row in rows:
                row[column.name] = int(row[column.mask_of] is not None)
    return pa.Table.from_pylist(rows, schema=table.arrow_schema)


def _value(column: DeclaredColumn, row: int) -> Any:
    if column.values:
        return column.values[row % len(column.values)]
    if pa.types.is_integer(column.type):
        return int(column.low or 0) + row
    if pa.types.is_floating(column.type):
        return 0.5
    if pa.types.is_boolean(column.type):
        return bool(row % 2)
    if pa.types.is_binary(column.type):
        return b"x"
    if pa.types.is_nested(column.type):
        return _nested(column.type)
    return f"{column.name}-{row}"


def _nested(kind: pa.DataType) -> Any:
    if pa.types.is_map(kind):
        return [("a", _nested(kind.item_type))]
    if pa.types.is_list(kind):
        return [_nested(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _nested(field.type) for field in kind}
    return "a" if pa.types.is_string(kind) else 0.5 if pa.types.is_floating(kind) else 1


def mutations(table: DeclaredTable) -> Iterator[Mutation]:
    """Each rule of the declaration, broken by the second row (a mask that has no value to hide: by the third)."""
    sound = sound_rows(table).to_pylist()

    def broken(what: str, rule: str, values: Mapping[str, Any], row: int = 1) -> Mutation:
        rows = [dict(one) for one in sound]
        rows[row] |= values
        return Mutation(f"{table.name}: {what}", rule, pa.Table.from_pylist(rows, schema=table.arrow_schema))

    for column in table.columns:
        name = column.name
        if not column.nullable:
            yield broken(f"no {name}", f"{name}_present", {name: None})
        if column.low is not None:
            yield broken(f"{name} below its bound", f"{name}_in_range", {name: column.low - 1})
        if column.high is not None:
            yield broken(f"{name} past its bound", f"{name}_in_range", {name: column.high + 1})
        if column.above is not None:
            yield broken(f"{name} at its bound", f"{name}_above", {name: column.above})
        if column.finite:
            yield broken(f"{name} not a number", f"{name}_finite", {name: float("nan")})
            yield broken(f"{name} infinite", f"{name}_finite", {name: float("inf")})
        if column.values:
            yield broken(f"{name} unknown", f"{name}_known", {name: "stranger"})
        if column.mask_of is not None:
            for mask in (0, 2, None):
                yield broken(f"{name} {mask} beside a value", f"{name}_tells_truth", {name: mask})
            for mask in (1, 2):
                yield broken(f"{name} {mask} without a value", f"{name}_tells_truth", {name: mask}, ROWS - 1)
    for low, high in table.at_most:
        above = sound[1][high] + 0.25 if pa.types.is_floating(table.column[low].type) else 9
        yield broken(f"{low} above {high}", f"{low}_at_most_{high}", {low: above})
    for key in table.keys:
        yield broken(f"{', '.join(key)} twice", f"unique_{'_'.join(key)}", {name: sound[0][name] for name in key})


def wrong_columns(table: DeclaredTable) -> Iterator[Mutation]:
    """A column less, one more, two in another order, and each column of another type."""
    sound = sound_rows(table)
    first, second, *others = sound.column_names
    yield Mutation("a column less", first, sound.drop_columns([first]))
    yield Mutation("a column more", "stranger", sound.append_column("stranger", pa.nulls(ROWS, pa.int64())))
    yield Mutation("another order", "another order", sound.select([second, first, *others]))
    for place, field in enumerate(sound.schema):
        other = pa.int64() if not pa.types.is_int64(field.type) else pa.string()
        yield Mutation(f"{field.name} of another type", field.name, sound.set_column(place, field.name, pa.nulls(ROWS, other)))
