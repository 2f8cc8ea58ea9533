"""Define how a stored table is declared: its columns, what a row may hold, and its keys. Imports only Arrow.

The Arrow schema, the descriptions in the UI and the checks before a commit (`schemas.row_rules`) derive from these values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

Part = Literal["all", "rows", "keys"]  # which rules: all, those about single rows, those about keys


@dataclass(frozen=True)
class DeclaredColumn:
    """One column: its Arrow type, and what a value may be.

    `low` and `high` are inclusive bounds of numbers, `above` is an exclusive lower bound; `values` are the only allowed texts.
    NULL breaks none of these. `mask_of` names the column whose mask this is: 1 if that column has a value, else 0 or NULL.
    `finite`: neither NaN nor infinity.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    values: tuple[str, ...] = ()
    mask_of: str | None = None
    finite: bool = False

    @property
    def demands(self) -> list[str]:
        """The demands on a value, in words."""
        found = []
        if self.low is not None or self.high is not None:
            found.append(f"{_number(self.low)}..{_number(self.high)}")
        if self.above is not None:
            found.append(f"above {_number(self.above)}")
        if self.values:
            found.append(f"one of {', '.join(self.values)}")
        if self.mask_of is not None:
            found.append(f"1 where {self.mask_of} has a value, else 0 or NULL")
        if self.finite:
            found.append("finite")
        return found


@dataclass(frozen=True)
class DeclaredTable:
    """One stored table. Each of `keys` lists columns whose values no two rows share; the first key names rows in messages.

    `shown`: columns that name a row if there is no key. `at_most`: pairs of columns, the first never above the second.
    """

    name: str
    columns: tuple[DeclaredColumn, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    shown: tuple[str, ...] = ()
    at_most: tuple[tuple[str, str], ...] = ()

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema of its rows."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    @cached_property
    def column(self) -> Mapping[str, DeclaredColumn]:
        """Column by name."""
        return {column.name: column for column in self.columns}

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that name a row in messages."""
        return self.keys[0] if self.keys else self.shown


def _number(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"
