"""Write the reference page of the contracts from their declarations: `python -m schemas.contract_reference`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.contracts import FOLDERS, REASONS, TABLES, Column, Rule, Table
from schemas.contracts.enums import ENUMS
from schemas.contracts.lock import VERSION
from schemas.decode.limits import Limits

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reference" / "contracts.md"


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([*_head(), *_folders(), *_tables(), *_rejects(), *_limits(), *_enums()]) + "\n"


def _head() -> Iterator[str]:
    yield "# Contract tables"
    yield ""
    yield f"Contracts version {VERSION}, made from `schemas/contracts/` by `python -m schemas.contract_reference`; do not edit."
    yield ""
    yield "Every table also has `non_finite` (names of numbers that were NaN or infinite: fields by column, map entries as"
    yield "`map.key`), `export_digest` and `position` (where the kept copy came from); those ordered by arrival have `arrival`."
    yield "Missing is NULL. Presence: *implicit*: zero and empty are missing; *zero ok*: absent is zero; *explicit*: present"
    yield "when sent, also as zero; *derived*: filled by the decoder."
    yield ""


def _row(*cells: object) -> str:
    return "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in cells) + " |"


def _header(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---|" * len(names)


def _folders() -> Iterator[str]:
    yield "## Folders"
    yield ""
    yield from _header("folder", "holds", "extensions", "tables", "rejects")
    for folder in FOLDERS.values():
        names = ", ".join(folder.tables) or "those of the messages inside"
        yield _row(f"`{folder.path}`", folder.description, " ".join(folder.extensions), names, f"`{folder.reject_table}`")
    yield ""


def _tables() -> Iterator[str]:
    for table in TABLES.values():
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield table.description
    yield ""
    order = table.event_time or "arrival"
    order += ", else arrival" if table.event_time and table.by_arrival else ""
    yield f"Key: {', '.join(table.key)}. The newest wins by: {order}. Replaced per: {table.scope or 'key, in the whole table'}."
    yield ""
    yield from _header("column", "type", "unit", "presence", "NULL", "values", "what")
    for column in table.columns:
        null = "yes" if column.nullable else "no"
        values = _values(column)
        yield _row(f"`{column.name}`", column.type, column.unit, column.presence.value, null, values, column.description)
    yield ""
    for rule in table.rules:
        yield f"- {rule.severity}: `{rule.name}`: {rule.description}{_demands(rule)}"
    yield ""


def _demands(rule: Rule) -> str:
    """Return the values or columns that a rule compares with, as Markdown."""
    if rule.refers is not None:
        return f" `{rule.columns[0]}` occurs in `{rule.refers[0]}.{rule.refers[1]}`."
    return "".join(f" {band}: {low:g}..{high:g}." for band, low, high in rule.bands)


def _values(column: Column) -> str:
    if column.enum:
        return column.enum
    if column.low is None and column.high is None:
        return ""
    return f"{'' if column.low is None else f'{column.low:g}'}..{'' if column.high is None else f'{column.high:g}'}"


def _rejects() -> Iterator[str]:
    yield "## Rejects"
    yield ""
    yield "Columns: export_digest, file, position (byte offset, line from 1, or row), reason, message, raw, records (how many"
    yield "records the row stands for: 1, or those of a damaged part; NULL of older versions: 1)."
    yield ""
    yield from _header("reason", "meaning")
    for reason, meaning in REASONS.items():
        yield _row(f"`{reason.value}`", meaning)
    yield ""


def _limits() -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield from _header("limit", "default", "bounds")
    for name, found in Limits.model_fields.items():
        yield _row(f"`{name}`", found.default, found.description)
    yield ""


def _enums() -> Iterator[str]:
    yield "## Enums"
    yield ""
    yield "Zero is missing; a number that is not listed is kept in decimal and counted."
    yield ""
    yield from _header("enum", "wire prefix", "values")
    for spec in ENUMS.values():
        yield _row(spec.name, f"`{spec.prefix}`", ", ".join(f"{name}={number}" for number, name in spec.short_names.items()))


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
