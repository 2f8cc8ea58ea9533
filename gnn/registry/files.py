"""Read registry files strictly, and publish a whole set of them in one step.

`current` is a link to the newest of `generations/<n>/`, which holds `index.json` and every `<name>_registry.json`; the
files of the same names beside `current` are links through it. So one rename switches all of them at once, and a reader
always sees one published set. `versions/<name>/<version>.json` keeps every version.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from gnn.registry.rules import holes
from lake.durable.publish import beside, ensure_dir, fsync_dir, publish_dir, publish_file, switch_link, write_durable
from lake.durable.strict_json import dump_object, parse_object, read_object
from schemas.artifacts import REGISTRIES, RegistryIndex, RegistryRecord, RegistrySpec, registry_digest
from schemas.errors import RegistryError

INDEX = "index.json"
SPARE_INDEX = "index.spare.json"  # keys retired by an operator are recorded nowhere else
CURRENT = "current"
GENERATIONS = "generations"
VERSIONS = "versions"
LOCK = ".lock"
KEPT_GENERATIONS = 3


def flat_bytes(entries: Mapping[str, int]) -> bytes:
    """Return the bytes of the flat file of `entries`: one JSON object, keys sorted."""
    return dump_object({key: entries[key] for key in sorted(entries)})


def read_flat(path: Path, spec: RegistrySpec) -> dict[str, int]:
    """Return the entries in a flat file. Raises RegistryError, which names the file and what breaks the rules in it."""
    return _entries(read_object(path, RegistryError), path, spec)


def _entries(parsed: Mapping[str, object], path: Path, spec: RegistrySpec) -> dict[str, int]:
    seen: dict[int, str] = {}
    entries: dict[str, int] = {}
    for key, index in parsed.items():
        if not key or isinstance(index, bool) or not isinstance(index, int) or not 1 <= index <= spec.last:
            raise RegistryError(
                f"{path}: key {key!r}: expected a non-empty key and an index in 1..{spec.last}, found {index!r}; {_ADVICE}"
            )
        if index in seen:
            raise RegistryError(f"{path}: index {index}: expected one key, found {seen[index]!r} and {key!r}; {_ADVICE}")
        seen[index] = key
        entries[key] = index
    return entries


_ADVICE = "`tamiyo doctor` puts the newest kept version back"


def read_index(path: Path) -> dict[str, RegistryRecord]:
    """Return the records of `index.json`. Raises RegistryError, which names the file and the place of the damage."""
    return _records(read_object(path, RegistryError), path)


def _records(parsed: Mapping[str, object], path: Path) -> dict[str, RegistryRecord]:
    try:
        return RegistryIndex.model_validate(parsed).root
    except ValidationError as damage:
        first = damage.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RegistryError(f"{path}: at {place}: {first['msg']}, found {first.get('input')!r}; {_ADVICE}") from None


def check_flat(path: Path, spec: RegistrySpec, entries: Mapping[str, int], record: RegistryRecord) -> None:
    """Compare a flat file with its record in `index.json`. Raises RegistryError, which says what differs."""
    if record.capacity != spec.capacity:
        raise RegistryError(f"{path}: expected capacity {spec.capacity}, found {record.capacity} in {INDEX}; {_ADVICE}")
    if registry_digest(entries) == record.digest and len(entries) == record.size:
        return
    missing = sorted(set(holes(entries)) - set(record.holes))
    hole = f", indices {missing[:5]} are missing and not recorded as holes" if missing else ""
    raise RegistryError(
        f"{path}: expected {record.size} entries with digest {record.digest} (version {record.version} of {INDEX}), "
        f"found {len(entries)} with {registry_digest(entries)}{hole}; {_ADVICE}"
    )


def resolve(directory: Path) -> Path:
    """Return the directory that holds the current set: the target of `current`, or `directory` itself (a copy, a bundle)."""
    link = directory / CURRENT
    return directory / link.readlink() if link.is_symlink() else directory


def read_set(directory: Path) -> tuple[dict[str, dict[str, int]], dict[str, RegistryRecord]]:
    """Return the entries and records of the published set, checked against each other; both empty if nothing is published.

    Files without an `index.json` (an older system's) have entries but no record. If writers remove the generation while it
    is read, the newer one is read instead.
    """
    while True:
        root = resolve(directory)
        try:
            return _read_generation(directory, root)
        except (RegistryError, OSError):
            if resolve(directory) == root:
                raise


def parse_set(files: Mapping[str, bytes], directory: Path) -> tuple[dict[str, dict[str, int]], dict[str, RegistryRecord]]:
    """Return the entries and records of a whole set from the bytes of its files, by name; `directory` is where they were.

    Raises RegistryError, which names a damaged file, or the registries that the index lacks or adds.
    """
    records = _records(parse_object(files[INDEX], directory / INDEX, RegistryError), directory / INDEX)
    odd = sorted(records.keys() ^ REGISTRIES.keys())
    if odd:
        raise RegistryError(f"{directory / INDEX}: expected the registries {', '.join(REGISTRIES)}, odd are {odd[:20]}")
    entries = {}
    for name, spec in REGISTRIES.items():
        path = directory / spec.file
        entries[name] = _entries(parse_object(files[spec.file], path, RegistryError), path, spec)
        check_flat(path, spec, entries[name], records[name])
    return entries, records


def _read_generation(directory: Path, root: Path) -> tuple[dict[str, dict[str, int]], dict[str, RegistryRecord]]:
    index_file = root / INDEX
    if index_file.exists():
        records = read_index(index_file)
    elif (directory / CURRENT).is_symlink() or any((directory / VERSIONS).glob("*/2.json")):
        raise RegistryError(f"{index_file}: expected the index of {directory / VERSIONS}, found none; {_ADVICE}")
    else:
        records = {}
    entries: dict[str, dict[str, int]] = {}
    for name, spec in REGISTRIES.items():
        path = root / spec.file
        if name in records:
            entries[name] = read_flat(path, spec)
            check_flat(path, spec, entries[name], records[name])
            _check_outer(directory, spec, records[name])
        elif not index_file.exists() and path.exists():
            entries[name] = read_flat(path, spec)
    return entries, records


def _check_outer(directory: Path, spec: RegistrySpec, record: RegistryRecord) -> None:
    """Check the file that outside readers open, if it is not the link that we made."""
    outer = directory / spec.file
    if (directory / CURRENT).is_symlink() and not outer.is_symlink():
        check_flat(outer, spec, read_flat(outer, spec), record)


def publish_set(
    directory: Path, entries: Mapping[str, Mapping[str, int]], records: Mapping[str, RegistryRecord], changed: set[str]
) -> None:
    """Publish one whole set; the caller must hold the lock. `changed` are the registries with a new version."""
    for name in sorted(changed):
        kept = directory / VERSIONS / name / f"{records[name].version}.json"
        publish_file(kept, flat_bytes(entries[name]), workplace=directory)
    old = resolve(directory)
    generations = directory / GENERATIONS
    ensure_dir(generations)
    number = 1 + max((int(p.name) for p in generations.iterdir() if p.name.isdigit()), default=0)
    temporary = beside(generations / str(number))
    temporary.mkdir()
    for name in sorted(entries):
        _place(temporary / REGISTRIES[name].file, old, entries[name], reuse=name not in changed and old != directory)
    index = (RegistryIndex(dict(sorted(records.items()))).model_dump_json() + "\n").encode("utf-8")
    for name in (INDEX, SPARE_INDEX):
        write_durable(temporary / name, index)
    publish_dir(temporary, generations / str(number))
    if (directory / CURRENT).is_dir() and not (directory / CURRENT).is_symlink():
        shutil.rmtree(directory / CURRENT)  # a copy that followed the links: the outer files hold the same
    _link_outer(directory, records, before=True)
    switch_link(directory / CURRENT, f"{GENERATIONS}/{number}")
    _link_outer(directory, records, before=False)
    _drop_old(generations, number)


def _place(path: Path, old: Path, entries: Mapping[str, int], *, reuse: bool) -> None:
    """Put one flat file into a new generation: a hard link to the old file if it is unchanged, else a new file."""
    if reuse:
        try:
            os.link(old / path.name, path)
            return
        except OSError:
            # the file system has no hard links: a copy is written instead
            pass
    write_durable(path, flat_bytes(entries))


def _link_outer(directory: Path, records: Mapping[str, RegistryRecord], *, before: bool) -> None:
    """Make the outer names links through `current`.

    Absent names are linked before the switch, while the links still lead nowhere, so that all files appear with it. An
    adopted file is replaced after the switch, when both hold the same.
    """
    for name in [*(REGISTRIES[n].file for n in sorted(records)), INDEX]:
        outer = directory / name
        if not outer.is_symlink() and outer.exists() is not before:
            switch_link(outer, f"{CURRENT}/{name}")


def _drop_old(generations: Path, number: int) -> None:
    """Remove generations so old that no reader should still be reading them."""
    old = [p for p in generations.iterdir() if p.name.isdigit() and int(p.name) <= number - KEPT_GENERATIONS]
    for path in old:
        shutil.rmtree(path)
    if old:
        fsync_dir(generations)
