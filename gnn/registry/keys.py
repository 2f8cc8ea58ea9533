"""Collect the categories that upstream systems name now; a refresh of the registries appends or retires keys by them.

Placeholders (`guard_tensor` layers and their activations) give no keys. Enum registries take none, because they are closed.
"""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

# registry -> the (table, column) pairs that name its keys; a row of a list column names several
SOURCES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "seed": (("kasmina.seed_state", "seed_id"),),
    "blueprint": (
        ("urza.blueprint", "blueprint_id"),
        ("tolaria.system_state", "blueprint_id"),
        ("kasmina.seed_state", "blueprint_id"),
    ),
    "schedule": (
        ("kasmina.seed_state", "alpha_schedule_method"),
        ("kasmina.seed_state", "capabilities_allowed_blending_methods"),
        ("urza.blueprint", "capabilities_allowed_blending_methods"),
    ),
    "layer_type": (("urza.layer", "type"),),
    "activation_type": (("urza.layer", "activation_type"), ("urza.activation", "type")),
    "optimizer_family": (
        ("tolaria.parameter_telemetry", "optimizer_family"),
        ("urza.blueprint", "optimizer_family"),
        ("kasmina.seed_state", "capabilities_allowed_optimizer_families"),
    ),
    "policy_version": (("kasmina.seed_state", "policy_version"),),
    "isolation_exemption": (("kasmina.seed_state", "capabilities_isolation_exemptions"),),
    "grafting_strategy": (("urabrask.bsds", "grafting_strategies"),),
    "parameter_target": (("urza.parameter", "target"),),
}

PLACEHOLDER: Final = "is_placeholder"


def source_tables() -> tuple[str, ...]:
    """Return the names of the contract tables that `observed_keys` reads, sorted."""
    return tuple(sorted({table for sources in SOURCES.values() for table, _ in sources}))


def source_columns(table: str) -> tuple[str, ...]:
    """Return the columns of contract table `table` that name keys, sorted, with the placeholder flag if it has one."""
    named = {column for sources in SOURCES.values() for name, column in sources if name == table}
    return tuple(sorted(named | ({PLACEHOLDER} if table in ("urza.layer", "urza.activation") else set())))


def observed_keys(tables: Mapping[str, pa.Table]) -> dict[str, set[str]]:
    """Return registry -> keys in the given contract tables; an absent table gives no keys, and missing values are not keys."""
    found: dict[str, set[str]] = {}
    for registry, sources in SOURCES.items():
        keys: set[str] = set()
        for table, column in sources:
            if table in tables:
                keys.update(_values(tables[table], column))
        found[registry] = keys
    return found


def _values(rows: pa.Table, column: str) -> set[str]:
    """Return the distinct non-empty strings of a string or list column, without the rows of placeholders."""
    if PLACEHOLDER in rows.column_names:
        rows = rows.filter(pc.invert(pc.fill_null(rows.column(PLACEHOLDER), False)))
    values = rows.column(column)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    return {key for key in pc.unique(values).to_pylist() if key}
