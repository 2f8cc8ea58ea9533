"""Find damage in a registry directory, and restore the last good set from what is kept twice.

Every version is kept as a file, and `index.json` lists what each one added: either can be rebuilt from the other, and the
flat files from both. Nothing is guessed: a rebuilt file must have the digest in the index, and a rebuilt index takes its
digests from the kept files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gnn.registry.files import (
    CURRENT,
    GENERATIONS,
    INDEX,
    LOCK,
    SPARE_INDEX,
    VERSIONS,
    flat_bytes,
    publish_set,
    read_flat,
    read_index,
    read_set,
    resolve,
)
from gnn.registry.rules import holes
from lake.durable.publish import lock, publish_file, switch_link
from schemas.artifacts import REGISTRIES, RegistryRecord, VersionRecord, registry_digest
from schemas.errors import RegistryError


@dataclass(frozen=True)
class Damage:
    """One fault of a file, and what was done about it (None if nothing)."""

    path: Path
    problem: str
    repaired: str | None = None


def examine(directory: Path, *, repair: bool = False) -> list[Damage]:
    """Check every file of a registry directory: the current set, every kept version, every link; fix them if `repair`."""
    if not directory.is_dir():
        return []
    with lock(directory / LOCK):
        found = list(_set(directory, repair=repair))
        if any(damage.repaired is None for damage in found):
            return found
        if not (resolve(directory) / INDEX).exists():
            return found
        found += _versions(directory, repair=repair)
        found += _links(directory, repair=repair)
        return found


def _set(directory: Path, *, repair: bool) -> Iterator[Damage]:
    """Yield the damage of the current set as a whole."""
    try:
        read_set(directory)
    except RegistryError as error:
        if not repair:
            yield Damage(directory, str(error))
            return
        try:
            entries, records = _rebuilt(directory)
        except RegistryError as hopeless:
            yield Damage(directory, f"{error}; beyond repair: {hopeless}")
            return
        publish_set(directory, entries, records, set(records))
        yield Damage(directory, str(error), "the set was published anew from the kept versions")


def _rebuilt(directory: Path) -> tuple[dict[str, dict[str, int]], dict[str, RegistryRecord]]:
    """Return entries and records by the current index if it can be read, else by an older one and the versions kept since."""
    current = _current_index(directory)
    if current is None:
        known = _older_index(directory)
        histories = {name: _history(directory, name) for name in REGISTRIES}
        lost = [name for name in REGISTRIES if not histories[name]]
        if lost:
            raise RegistryError(f"registries {', '.join(lost)}: no kept version is there; restore a backup")
        records = {name: _record(name, history, known.get(name)) for name, history in histories.items()}
        return {name: history[-1] for name, history in histories.items()}, records
    return {name: cumulative(record, record.version) for name, record in current.items()}, current


def _current_index(directory: Path) -> dict[str, RegistryRecord] | None:
    """Return the records of the current set from its index or the spare one; None if neither can be read."""
    for name in (INDEX, SPARE_INDEX):
        try:
            return read_index(resolve(directory) / name)
        except RegistryError:
            continue
    return None


def _older_index(directory: Path) -> Mapping[str, RegistryRecord]:
    """Return the records of the newest readable index among older generations; {} if none can be read."""
    folder = directory / GENERATIONS
    numbers = sorted((int(p.name) for p in folder.iterdir() if p.name.isdigit()), reverse=True) if folder.is_dir() else []
    for number in numbers:
        try:
            return read_index(folder / str(number) / INDEX)
        except RegistryError:
            continue
    return {}


def cumulative(record: RegistryRecord, version: int) -> dict[str, int]:
    """Return the entries of one version from what each version added. Raises RegistryError if their digest differs."""
    entries: dict[str, int] = {}
    for step in record.versions[:version]:
        entries |= step.added
    expected = record.versions[version - 1].digest
    if registry_digest(entries) != expected:
        raise RegistryError(f"{INDEX}: version {version}: expected what was added to give digest {expected}, found another one")
    return entries


def _history(directory: Path, name: str) -> list[dict[str, int]]:
    """Return the kept entries of versions 1, 2, ..., up to the first that is missing.

    Raises RegistryError, which names a damaged one.
    """
    found: list[dict[str, int]] = []
    while (path := directory / VERSIONS / name / f"{len(found) + 1}.json").exists():
        entries = read_flat(path, REGISTRIES[name])
        if found and not found[-1].items() <= entries.items():
            raise RegistryError(f"{path}: expected every entry of the version before, found some moved or lost")
        found.append(entries)
    return found


def _record(name: str, history: list[dict[str, int]], known: RegistryRecord | None) -> RegistryRecord:
    """Return a record from all kept versions, with the retired keys of the last index that could be read."""
    before: dict[str, int] = {}
    versions = []
    for number, entries in enumerate(history, start=1):
        added = {key: entries[key] for key in sorted(entries.keys() - before.keys())}
        versions.append(VersionRecord(version=number, digest=registry_digest(entries), added=added))
        before = entries
    return RegistryRecord(
        version=len(history),
        capacity=REGISTRIES[name].capacity,
        size=len(before),
        digest=registry_digest(before),
        retired=known.retired if known else [],
        retired_by_operator=known.retired_by_operator if known else [],
        holes=holes(before),
        versions=versions,
    )


def _versions(directory: Path, *, repair: bool) -> Iterator[Damage]:
    """Yield the damage of kept versions, each compared with its digest in the index."""
    _, records = read_set(directory)
    for name, record in records.items():
        for version in record.versions:
            path = directory / VERSIONS / name / f"{version.version}.json"
            try:
                found = registry_digest(read_flat(path, REGISTRIES[name]))
                if found == version.digest:
                    continue
                problem = f"{path}: expected digest {version.digest}, found {found}"
            except RegistryError as error:
                problem = str(error)
            if not repair:
                yield Damage(path, problem)
                continue
            publish_file(path, flat_bytes(cumulative(record, version.version)), workplace=directory)
            yield Damage(path, problem, f"rebuilt from {INDEX}")


def _links(directory: Path, *, repair: bool) -> Iterator[Damage]:
    """Yield the outer names that do not lead through `current`."""
    if not (directory / CURRENT).is_symlink():
        return
    for file in [*(spec.file for spec in REGISTRIES.values()), INDEX]:
        outer, target = directory / file, f"{CURRENT}/{file}"
        if outer.is_symlink() and str(outer.readlink()) == target:
            continue
        found = f"a link to {outer.readlink()}" if outer.is_symlink() else "a file" if outer.exists() else "nothing"
        problem = f"{outer}: expected a link to {target}, found {found}"
        if repair:
            switch_link(outer, target)
        yield Damage(outer, problem, "linked anew" if repair else None)
