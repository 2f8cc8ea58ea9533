"""What other tools read of a contract table: a pandera (polars) schema and a JSON Schema, derived from the declaration."""

from typing import Any, Final

import pandera.polars as pandera
import polars as pl
import pyarrow as pa

from schemas.contracts.table import Column, Table

_JSON_TYPES: Final = ((pa.types.is_boolean, "boolean"), (pa.types.is_integer, "integer"), (pa.types.is_floating, "number"))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with maps as lists of (key, value) structs, which pandera can check."""
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([("key", kind.key_type), ("value", plain_type(kind.item_type))]))
    return kind


def polars_frame(rows: pa.Table) -> pl.DataFrame:
    """Rows as the frame that the pandera schema validates: maps as lists of structs."""
    plain = rows.cast(pa.schema([pa.field(one.name, plain_type(one.type)) for one in rows.schema]))
    frame = pl.from_arrow(plain)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def polars_type(kind: pa.DataType) -> Any:
    """The polars type of a column of `polars_frame`."""
    series = pl.from_arrow(pa.array([], plain_type(kind)))
    return series.dtype if isinstance(series, pl.Series) else pl.Struct(series.schema)


def _checks(column: Column) -> list[Any]:
    checks = []
    if column.low is not None:
        checks.append(pandera.Check.ge(column.low))
    if column.high is not None:
        checks.append(pandera.Check.le(column.high))
    return checks


def pandera_schema(table: Table) -> Any:
    """Schema of a `polars_frame` of stored rows: types, nullability, ranges, one row a key. Collect a LazyFrame first."""
    columns = {}
    for one in table.arrow_schema:
        column = table.column.get(one.name)
        nullable = column is None or column.nullable
        checks = [] if column is None else _checks(column)
        columns[one.name] = pandera.Column(polars_type(one.type), checks=checks, nullable=nullable, description=_about(column))
    return pandera.DataFrameSchema(columns, unique=list(table.key), name=table.name, strict=True)


def _about(column: Column | None) -> str | None:
    return None if column is None else column.description


def json_type(kind: pa.DataType) -> dict[str, Any]:
    """JSON Schema of a value of an Arrow type."""
    for test, name in _JSON_TYPES:
        if test(kind):
            return {"type": name}
    if pa.types.is_map(kind):
        return {"type": "object", "additionalProperties": json_type(kind.item_type)}
    if pa.types.is_list(kind):
        return {"type": "array", "items": json_type(kind.value_type)}
    if pa.types.is_struct(kind):
        return {"type": "object", "properties": {one.name: json_type(one.type) for one in kind}}
    return {"type": "string"}


def _property(column: Column) -> dict[str, Any]:
    found = json_type(column.type)
    if column.nullable:
        found["type"] = [found["type"], "null"]
    found["description"] = f"{column.description} [{column.unit}]" if column.unit else column.description
    if column.low is not None:
        found["minimum"] = column.low
    if column.high is not None:
        found["maximum"] = column.high
    if column.enum_spec is not None:
        found["examples"] = list(column.enum_spec.short_names.values())
    return found


def json_schema(table: Table) -> dict[str, Any]:
    """JSON Schema (2020-12) of one row; an enum lists its names as examples, since an unknown number is kept in decimal."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": table.name,
        "description": table.description,
        "type": "object",
        "properties": {column.name: _property(column) for column in table.columns},
        "required": [column.name for column in table.columns if not column.nullable],
    }
