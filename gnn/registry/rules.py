"""Decide what a registry holds: the keys that upstream systems name, and the index that each takes. Pure rules, without files.

Placeholders (`guard_tensor` layers and their activations) give no keys. Enum registries take none, because they are closed.
The first refresh adds the seeds, then the newest Simic snapshot at Simic's indices, then new keys, sorted. Later ones add
Simic's keys, then new keys, sorted. A new key takes the lowest index never used. Indices are never changed, freed or reused.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RegistrySpec

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


@dataclass(frozen=True)
class Outcome:
    """The outcome of a refresh of one registry.

    `entries` is what to publish. `conflicts` names every disagreement with Simic; `full` is a message if no index is free.
    In either case the entries stay as they were.
    """

    entries: dict[str, int]
    conflicts: tuple[str, ...] = ()
    full: str | None = None

    @property
    def held(self) -> bool:
        """Whether the registry keeps its last version."""
        return bool(self.conflicts) or self.full is not None


def next_entries(
    spec: RegistrySpec, old: Mapping[str, int] | None, simic: Sequence[tuple[str, int]], observed: Collection[str]
) -> Outcome:
    """Return the outcome of one refresh of `old` (None before the first) with a Simic snapshot and upstream keys."""
    entries, late_seeds = _seeded(spec, old or {})
    keep = dict(old) if old is not None else dict(entries)
    conflicts = _adopt(spec, entries, simic)
    if conflicts:
        return Outcome(keep, conflicts=tuple(conflicts))
    wanted = set() if spec.closed else {spec.normal(key) for key in observed if key}
    new = [*late_seeds, *sorted(wanted - entries.keys() - set(late_seeds))]
    free = list(_free(spec, entries, len(new)))
    if len(free) < len(new):
        newest = ", ".join(repr(key) for key in new[len(free) :][:5])
        full = (
            f"registry {spec.name} is full: {len(entries)} of {spec.last} indices are used, {len(new)} new keys came, "
            f"{len(new) - len(free)} have no place, the first of them {newest}; the last version stays. "
            "Retire the producer of throw-away keys, or raise the capacity in a new major version"
        )
        return Outcome(keep, full=full)
    entries.update(zip(new, free, strict=True))
    return Outcome(entries)


def _seeded(spec: RegistrySpec, old: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """Return `old` with the seeds at their own indices, and the seeds whose index an adopted file gave to another key."""
    entries = dict(old)
    used = set(entries.values())
    late = []
    for index, key in enumerate(spec.seeded, start=1):
        if key in entries:
            continue
        if index in used:
            late.append(key)
        else:
            entries[key] = index
    return entries, late


def _adopt(spec: RegistrySpec, entries: dict[str, int], simic: Sequence[tuple[str, int]]) -> list[str]:
    """Add Simic's keys to `entries` at Simic's indices, and return all conflicts."""
    keys = {index: key for key, index in entries.items()}
    conflicts = []
    for raw, index in sorted(simic, key=lambda pair: (pair[1], pair[0])):
        key = spec.normal(raw)
        if entries.get(key) == index:
            continue
        if key in entries:
            conflicts.append(f"{key!r}: Simic says {index}, the registry has {entries[key]}")
        elif not key or not 1 <= index <= spec.last:
            conflicts.append(f"{raw!r}: Simic says {index}, expected a non-empty key and an index in 1..{spec.last}")
        elif index in keys:
            conflicts.append(f"index {index}: Simic says {key!r}, the registry has {keys[index]!r}")
        elif spec.closed:
            conflicts.append(f"{key!r}: Simic says {index}, the enum does not have it")
        else:
            entries[key] = index
            keys[index] = key
    return conflicts


def _free(spec: RegistrySpec, entries: Mapping[str, int], count: int) -> Iterator[int]:
    """Yield up to `count` of the lowest indices never used."""
    used = set(entries.values())
    for index in range(1, spec.last + 1):
        if count == 0:
            return
        if index not in used:
            count -= 1
            yield index


def holes(entries: Mapping[str, int]) -> list[int]:
    """Return the unused indices below the highest used one, ascending."""
    used = set(entries.values())
    return [index for index in range(1, max(used, default=0)) if index not in used]


def retired_keys(
    spec: RegistrySpec, entries: Mapping[str, int], simic: Sequence[tuple[str, int]], observed: Collection[str] | None
) -> set[str] | None:
    """Return the entries that no upstream names any more; None if nothing is known about upstream, empty for an enum."""
    if observed is None:
        return None
    if spec.closed:
        return set()
    known = {spec.normal(key) for key in observed} | {spec.normal(key) for key, _ in simic} | set(spec.seeded)
    return set(entries) - known
