"""Define contract tables, columns and export folders; everything else about a contract derives from these values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

import pyarrow as pa

from schemas.contracts.enums import ENUMS, EnumSpec
from schemas.table_declaration import DeclaredColumn, DeclaredTable

_EXTENSIONS: Final = (".ndjson.gz", ".ndjson.zst", ".ndjson", ".binpb", ".wal", ".parquet", ".json")
_SPELLINGS: Final = tuple(
    (spelled, extension)
    for extension in _EXTENSIONS
    for spelled in dict.fromkeys((extension, extension.replace(".ndjson", ".jsonl")))
)
STRINGS: Final = pa.list_(pa.string())
FLOATS: Final = pa.map_(pa.string(), pa.float32())
ATTRIBUTES: Final = pa.map_(pa.string(), pa.string())

_PROVENANCE: Final = (
    pa.field("non_finite", STRINGS),
    pa.field("export_digest", pa.string()),
    pa.field("position", pa.int64()),
)
# descriptions of the columns that ingest adds to a contract table
PROVENANCE: Final[Mapping[str, str]] = {
    "arrival": "Sequence number of the arrival of the row's export; orders rows of one key that have no event time.",
    "non_finite": "Numbers of the record that were NaN or infinite, NULL here: fields by column, map entries as <map>.<key>.",
    "export_digest": "SHA-256 (hex) of the export that the kept copy was read from.",
    "position": "Byte offset, line or row of the record in its export.",
}


class Presence(StrEnum):
    """When a value counts as sent (contracts.md section 2)."""

    IMPLICIT = "implicit"  # zero, "" and an empty bare list or map are missing
    ZERO_OK = "zero ok"  # absent is zero, and both are present
    EXPLICIT = "explicit"  # present if sent, even as zero or empty
    DERIVED = "derived"  # filled by the decoder, not read from a field


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, and where a message of the contract holds it.

    `path` is the dotted path of proto field names (the column's own name unless given). `enum` names a Leyline enum whose
    short names the column holds. `low` and `high` are the bounds that the contract states (inclusive).
    """

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    presence: Presence = Presence.IMPLICIT
    nullable: bool = True
    path: str = ""
    enum: str | None = None
    low: float | None = None
    high: float | None = None

    @cached_property
    def field_path(self) -> str:
        """Dotted path of proto field names inside the message."""
        return self.path or self.name

    @cached_property
    def enum_spec(self) -> EnumSpec | None:
        """The enum behind the column, if any."""
        return ENUMS[self.enum] if self.enum else None

    @cached_property
    def measured(self) -> bool:
        """Whether the column holds floats, in which NaN and infinities count as missing."""
        return bool(pa.types.is_floating(self.type))

    @cached_property
    def bounded(self) -> bool:
        """Whether the contract states bounds."""
        return self.low is not None or self.high is not None

    @cached_property
    def is_text(self) -> bool:
        """Whether the column holds strings."""
        return bool(pa.types.is_string(self.type))

    @cached_property
    def is_time(self) -> bool:
        """Whether the column holds nanoseconds since 1970."""
        return self.name.endswith("_ns") and bool(pa.types.is_integer(self.type))


class Severity(StrEnum):
    """What a broken rule does: ERROR rejects the record, WARN is reported with the ids."""

    ERROR = "ERROR"
    WARN = "WARN"


@dataclass(frozen=True)
class Rule:
    """One contract rule: its name, severity, what it demands, and the columns that it reads.

    `refers`: table and column in which the first column's value must occur. `bands`: range (inclusive) of the second column by
    value of the first.
    """

    name: str
    severity: Severity
    description: str
    columns: tuple[str, ...]
    refers: tuple[str, str] | None = None
    bands: tuple[tuple[str, float, float], ...] = ()


def known(column: str, table: str, refers: str, description: str) -> Rule:
    """Return the WARN rule `<what>_known`: ids in `column` must occur in column `refers` of another table."""
    name = f"{refers.removesuffix('_id')}_known"
    return Rule(name, Severity.WARN, description, (column,), refers=(table, refers))


@dataclass(frozen=True)
class Table:
    """One contract table of contracts.md section 5.

    `key`: the columns that identify a row; among records of one key the newest `event_time` wins (NULL: by arrival).
    `nullable_key`: key columns that may be NULL. `scope`: the column by which rows are replaced, None for the whole table.
    `message`: the Leyline message behind a row, if there is one. `ranked`: maps values of a column to a rank that breaks ties
    of the event time (lower wins).
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str | None
    scope: str | None = None
    message: str | None = None
    nullable_key: tuple[str, ...] = ()
    by_arrival: bool = False
    ranked: tuple[str, tuple[str, ...]] | None = None
    warnings: tuple[Rule, ...] = ()

    @property
    def schema(self) -> str:
        """The SQL schema, e.g. `tolaria`."""
        return self.name.partition(".")[0]

    @property
    def short(self) -> str:
        """The table's name inside its schema."""
        return self.name.partition(".")[2]

    @property
    def system(self) -> str:
        """The upstream system to ask about its rows; rows of `telemetry` come from many."""
        return self.schema

    @cached_property
    def column(self) -> dict[str, Column]:
        """Column by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def sent(self) -> tuple[Column, ...]:
        """The columns that are read from fields of a message."""
        return tuple(column for column in self.columns if column.presence is not Presence.DERIVED)

    @cached_property
    def floats(self) -> tuple[Column, ...]:
        """The columns of `sent` that hold float32."""
        return tuple(column for column in self.sent if column.type == pa.float32())

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The key columns that must have a value."""
        return tuple(name for name in self.key if name not in self.nullable_key)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the contract's own columns, without provenance."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema of stored rows: the columns, `arrival` where rows are ordered by it, `non_finite`, provenance."""
        fields = [pa.field(column.name, column.type) for column in self.columns]
        if self.by_arrival:
            fields.append(pa.field("arrival", pa.int64()))
        return pa.schema([*fields, *_PROVENANCE])

    @cached_property
    def declared(self) -> DeclaredTable:
        """The declaration of stored rows: columns that must have a value, ranges, unique keys. It has no WARN rules."""
        columns = []
        for field in self.arrow_schema:
            column = self.column.get(field.name)
            if column is None:
                columns.append(DeclaredColumn(field.name, field.type, PROVENANCE[field.name], nullable=True))
                continue
            nullable = column.nullable and (field.name not in self.key or field.name in self.nullable_key)
            described = column.description
            columns.append(DeclaredColumn(field.name, field.type, described, nullable, low=column.low, high=column.high))
        return DeclaredTable(self.name, tuple(columns), keys=(self.key,))

    @cached_property
    def content_schema(self) -> pa.Schema:
        """Arrow schema of the columns that equality and digests use: all but `arrival`, `export_digest` and `position`."""
        return pa.schema([f for f in self.arrow_schema if f.name not in ("arrival", "export_digest", "position")])

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule of the contract: key, range and enum rules from the columns, then the table's own WARN rules."""
        keys = [Rule(f"{name}_present", Severity.ERROR, f"{name} is part of the key.", (name,)) for name in self.required]
        ranges = [
            Rule(f"{c.name}_in_range", Severity.ERROR, f"{c.name} lies within {c.low}..{c.high}.", (c.name,))
            for c in self.columns
            if c.low is not None or c.high is not None
        ]
        enums = [
            Rule(f"{c.name}_known", Severity.WARN, f"{c.name} is a value of {c.enum} that this version knows.", (c.name,))
            for c in self.columns
            if c.enum
        ]
        return (*keys, *ranges, *enums, *self.warnings)

    def empty(self) -> pa.Table:
        """Return a typed table without rows."""
        return self.arrow_schema.empty_table()


@dataclass(frozen=True)
class Folder:
    """One folder of the exports root: `<system>/<contract>`, and the tables that its files fill.

    `tables[0]` holds the folder's records; the other tables hold what is inside these records. `reject_table` holds bad
    records. If a record is good but a row of another table inside it is bad, that row goes to `reject_tables[table]`.
    """

    path: str
    description: str
    tables: tuple[str, ...]
    extensions: tuple[str, ...] = (".binpb", ".wal", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet")
    messages: tuple[str, ...] = ()

    @property
    def system(self) -> str:
        """The upstream system that writes here."""
        return self.path.partition("/")[0]

    @property
    def contract(self) -> str:
        """The contract's name, the second part of the path."""
        return self.path.partition("/")[2]

    def extension(self, name: str) -> str | None:
        """Return which of the folder's extensions `name` ends in; None if it ends in none of them.

        Upper and lower case count as the same, and `.jsonl` as `.ndjson`.
        """
        lower = name.lower()
        for spelled, extension in _SPELLINGS:
            if extension in self.extensions and lower.endswith(spelled):
                return extension
        return None

    @property
    def reject_table(self) -> str:
        """`rejects.<system>_<contract>`."""
        return f"rejects.{self.system}_{self.contract}"

    @property
    def record(self) -> str:
        """The name under which whole records of the folder are counted: its first table, or its path if it has no table."""
        return self.tables[0] if self.tables else self.path.replace("/", ".")

    def reject_table_of(self, table: str) -> str:
        """Return the rejects table for bad rows of `table` that came through this folder."""
        if table == self.record:
            return self.reject_table
        schema, _, short = table.partition(".")
        return f"rejects.{self.system}_{schema}_{short}" if schema == "telemetry" else f"rejects.{schema}_{short}"
