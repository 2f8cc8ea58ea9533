"""Declare every contract table and export folder of contracts.md section 5.

Arrow schema, pandera model, JSON Schema, column docs, rejects and the decoders all derive from these declarations.
"""

from typing import Final

from schemas.contracts import kasmina, oona, simic, tamiyo, telemetry, tezzeret, tolaria, urabrask, urza
from schemas.contracts.reasons import REASONS, REJECT_SCHEMA, Reason
from schemas.contracts.table import Column, Folder, Presence, Rule, Severity, Table

TABLES: Final[dict[str, Table]] = {
    table.name: table
    for module in (tolaria, kasmina, urza, urabrask, simic, tezzeret, telemetry, tamiyo)
    for table in module.TABLES
}

FOLDERS: Final[dict[str, Folder]] = {
    folder.path: folder
    for module in (tolaria, kasmina, urza, urabrask, simic, tezzeret, telemetry, tamiyo, oona)
    for folder in module.FOLDERS
}

__all__ = [
    "FOLDERS",
    "REASONS",
    "REJECT_SCHEMA",
    "TABLES",
    "Column",
    "Folder",
    "Presence",
    "Reason",
    "Rule",
    "Severity",
    "Table",
]
