"""Digests of single rows, for the few places where equal times need an order."""

import hashlib
import json

import pyarrow as pa

_PROVENANCE = ("export_digest", "position", "arrival")


def row_digests(table: pa.Table) -> list[str]:
    """SHA-256 (hex) of the canonical content of each row, without provenance."""
    names = [name for name in table.column_names if name not in _PROVENANCE]
    rows = table.select(names).to_pylist()
    return [
        hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode("utf-8")).hexdigest()
        for row in rows
    ]
