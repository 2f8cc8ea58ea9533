"""Decide how a registry grows: pure rules, without files.

The first refresh adds the seeds, then the newest Simic snapshot at Simic's indices, then new keys, sorted. Later ones add
Simic's keys, then new keys, sorted. A new key takes the lowest index never used. Indices are never changed, freed or reused.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.artifacts import RegistrySpec


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
