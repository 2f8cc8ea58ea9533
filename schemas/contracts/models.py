"""Derive a pandera (polars) schema and a JSON Schema, for other tools, from a contract table's declaration."""

from typing import Any, Final

import pyarrow as pa

from schemas.contracts.table import Column, Table
from schemas.row_rules import pandera_schema as schema_of
from schemas.row_rules import plain_type as plain_type
from schemas.row_rules import polars_frame as polars_frame

_JSON_TYPES: Final = ((pa.types.is_boolean, "boolean"), (pa.types.is_integer, "integer"), (pa.types.is_floating, "number"))


def pandera_schema(table: Table) -> Any:
    """Return the schema of a `polars_frame` of stored rows: types, nullability, ranges, unique keys. Not for a LazyFrame."""
    return schema_of(table.declared)


def json_type(kind: pa.DataType) -> dict[str, Any]:
    """Return the JSON Schema of a value of an Arrow type."""
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
    """Return the JSON Schema (2020-12) of one row.

    An enum lists its names as examples only, since a number without a name is kept as decimal text.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": table.name,
        "description": table.description,
        "type": "object",
        "properties": {column.name: _property(column) for column in table.columns},
        "required": [column.name for column in table.columns if not column.nullable],
    }
