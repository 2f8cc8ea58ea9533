"""Refresh the registries, one asset each, from what upstream says now and from the newest Simic snapshot."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.registry.refresh import Change, Registries, load, load_records, refresh
from gnn.registry.rules import SOURCES, observed_keys, source_columns, source_tables
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.derived.tables import DERIVED
from schemas.errors import RegistryFull, RowsRefused
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.problems import Problem, check_result
from tamiyo_assets.assets.reports import (
    AFTER_COVERAGE,
    COLUMNS,
    ROWS,
    Reporter,
    derived_columns,
    key_of,
    kinds_of,
    schema_specs,
)

CONFLICT = "registry_conflict"
CAPACITY = "registry_capacity"
_SNAPSHOT = key_of("simic.registry_snapshot")
_ADDED_SHOWN = 50
_CHECKS: Final = {CONFLICT: "Simic's newest snapshot agrees with it.", CAPACITY: "It has room for new keys."}


def registry_key(name: str) -> dg.AssetKey:
    """Return the asset key of a registry, which is the key of its table."""
    return key_of(f"registries.{name}")


@dg.multi_asset(
    name="registries",
    specs=[
        dg.AssetSpec(
            registry_key(name),
            deps=[_SNAPSHOT, *(key_of(table) for table in sorted({table for table, _ in SOURCES.get(name, ())}))],
            group_name="registries",
            skippable=True,
            kinds=kinds_of(registry_key(name), "json"),
            owners=["team:tamiyo"],
            description=f"The {name} vocabulary: append-only, capacity {spec.capacity}; an index never moves.",
            metadata={COLUMNS: derived_columns(f"registries.{name}")},
        )
        for name, spec in REGISTRIES.items()
    ],
    check_specs=[
        *(
            dg.AssetCheckSpec(check, asset=registry_key(name), description=description)
            for name in REGISTRIES
            for check, description in _CHECKS.items()
        ),
        *schema_specs(f"registries.{name}" for name in REGISTRIES),
    ],
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def registries(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Refresh all registries; one in conflict keeps its last version and fails its check, the others go on."""
    from gnn.norms.pictures import growth

    named = {name: source_columns(name) for name in source_tables()}
    contracts, reporter = tables.read_each(named | {"simic.registry_snapshot": None}), Reporter(context, versions)
    directory = registries_directory(settings.home)
    report = refresh(directory, observed_keys(contracts), contracts["simic.registry_snapshot"])
    current, records = load(directory), load_records(directory)
    refused: list[RowsRefused] = []
    for name, change in report.items():
        try:
            versions.write(f"registries.{name}", registry_rows(current, name))
        except RowsRefused as error:
            refused.append(error)
            yield from reporter.refused(error)
            continue
        yield from reporter.schema(f"registries.{name}")
        if registry_key(name) in context.selected_asset_keys:
            digest, draw = f"{change.version}-{change.digest}", partial(growth, name, records[name])
            alt = f"growth of {name}"
            shown = picture_metadata(settings.home, f"registries.{name}", "growth", digest, draw, alt, thumbnail=False)
            yield reporter.asset(registry_key(name), change.digest, _described(change) | shown)
    for check in sorted(context.selected_asset_check_keys):
        change = report[check.asset_key.path[-1]]
        if check.name == CONFLICT:
            yield _conflict(check, change)
        elif check.name == CAPACITY:
            yield _capacity(check, change, settings.registry_capacity)
    full = [change.full for change in report.values() if change.full]
    if full:
        raise RegistryFull("; ".join(full))
    if refused:
        raise refused[0]


def _conflict(check: dg.AssetCheckKey, change: Change) -> dg.AssetCheckResult:
    """Fail with ERROR if a key of Simic's newest snapshot has another index; the registry then keeps its last version."""
    conflicts = [Problem(change.name, change.problem or "", ("simic",))] if change.conflicts else []
    return check_result(conflicts, "no conflict", check=check)


def _capacity(check: dg.AssetCheckKey, change: Change, most: float) -> dg.AssetCheckResult:
    """Warn if more than `most` of the usable indices are taken; indices 0 and capacity - 1 are reserved."""
    last = REGISTRIES[change.name].last
    text = f"registry {change.name}: {change.size} of {last} indices are used, expected at most {most:.0%}"
    advice = "retire the producer of throw-away keys, or raise the capacity in a new major version"
    near = [Problem(change.name, f"{text}, {advice}")] if change.size > most * last else []
    return check_result(near, "room for new keys", severity=dg.AssetCheckSeverity.WARN, check=check)


def registries_directory(home: Path) -> Path:
    """Return the directory of a home's flat registry files."""
    return home / "registries"


def registry_rows(current: Registries, name: str) -> pa.Table:
    """Return the registry as rows (key, index, retired), by index."""
    registry = current[name]
    retired = set(registry.retired)
    ordered = sorted(registry.entries.items(), key=lambda entry: entry[1])
    return pa.table(
        [[key for key, _ in ordered], [index for _, index in ordered], [key in retired for key, _ in ordered]],
        schema=DERIVED[f"registries.{name}"],
    )


def _described(change: Change) -> dict[str, Any]:
    """Return numbers of a registry, and the keys that a refresh added, if any."""
    numbers = {
        ROWS: change.size,
        "version": change.version,
        "capacity_used": change.size / change.capacity,
        "added": len(change.added),
        "retired": len(change.retired),
    }
    added = dict(list(change.added.items())[:_ADDED_SHOWN])
    return numbers | ({"added_keys": dg.MetadataValue.json(added)} if added else {})


REGISTRY_ASSETS = (registries,)
