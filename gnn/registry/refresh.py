"""Refresh the registries: append new keys by the rules (`registry.rules`) and publish one set (`registry.files`)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gnn.registry.files import LOCK, flat_bytes, parse_set, publish_set, read_set
from gnn.registry.rules import Outcome, holes, next_entries, retired_keys
from lake.durable.publish import lock, sweep
from schemas.artifacts import MISSING, REGISTRIES, RegistryRecord, RegistrySpec, VersionRecord, registry_digest
from schemas.errors import RegistryError

_READS = 5  # tries: a set may be replaced while it is read, and the next try then reads the new one


@dataclass(frozen=True)
class Registry:
    """One registry at one version. `retired` keys keep their index; `version` 0 means nothing is published yet."""

    spec: RegistrySpec
    entries: Mapping[str, int]
    version: int
    digest: str
    retired: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The registry's name, e.g. `layer_type`."""
        return self.spec.name

    @property
    def capacity(self) -> int:
        """The fixed number of rows of an embedding table: missing, entries, unknown."""
        return self.spec.capacity

    @property
    def unknown(self) -> int:
        """The index of a key that is not in this version."""
        return self.spec.unknown

    def index(self, key: str | None) -> int:
        """Return the index of one key: 0 for None and the empty string, capacity-1 for an unknown key."""
        return self.entries.get(self.spec.normal(key), self.unknown) if key else MISSING

    def encode(self, keys: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Return the indices (int64 [n]) of n keys: 0 for a missing key, capacity-1 for an unknown one."""
        if isinstance(keys, pa.ChunkedArray):
            keys = keys.combine_chunks()
        if isinstance(keys, pa.Array):
            coded = pc.dictionary_encode(keys, null_encoding="encode")
            table = np.array([self.index(key) for key in coded.dictionary.to_pylist()] or [MISSING], dtype=np.int64)
            return table[np.asarray(coded.indices, dtype=np.int64)]
        return np.fromiter((self.index(key) for key in keys), dtype=np.int64, count=len(keys))

    def flat(self) -> bytes:
        """Return the bytes of this version's flat file."""
        return flat_bytes(self.entries)


class Registries(Mapping[str, Registry]):
    """All registries of one published set, by name."""

    def __init__(self, registries: Mapping[str, Registry]) -> None:
        """Hold `registries`; a declared registry that is not among them is added as version 0, without entries."""
        empty = {name: Registry(spec, MappingProxyType({}), 0, registry_digest({})) for name, spec in REGISTRIES.items()}
        self._registries = empty | dict(registries)

    def __getitem__(self, name: str) -> Registry:
        return self._registries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registries)

    def __len__(self) -> int:
        return len(self._registries)

    def digests(self) -> dict[str, str]:
        """Return the digest by registry name."""
        return {name: registry.digest for name, registry in self.items()}


@dataclass(frozen=True)
class Change:
    """What a refresh did to one registry. `problem` is set if it keeps its last version: it has conflicts, or is full."""

    name: str
    version: int
    digest: str
    size: int
    capacity: int
    added: Mapping[str, int]
    retired: tuple[str, ...]
    conflicts: tuple[str, ...] = ()
    full: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the registry stays at its last version, or None."""
        if self.conflicts:
            return f"registry {self.name} conflicts with the Simic snapshot, version {self.version} stays: " + "; ".join(
                self.conflicts
            )
        return self.full


@dataclass(frozen=True)
class RefreshReport(Mapping[str, Change]):
    """What a refresh did, per registry; `wrote` says whether a new set was published."""

    changes: Mapping[str, Change]
    wrote: bool
    foreign: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Change:
        return self.changes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    @property
    def problems(self) -> dict[str, str]:
        """Why a registry keeps its last version, by registry name."""
        return {name: change.problem for name, change in self.changes.items() if change.problem is not None}


def load(directory: Path) -> Registries:
    """Return the published set in `directory` (or in a copy of it). Raises RegistryError, which names a damaged file."""
    for attempt in range(_READS):
        try:
            entries, records = read_set(directory)
        except RegistryError as error:
            # `current` may have moved on and its old target be gone: only then can another try succeed
            if attempt == _READS - 1 or not isinstance(error.__cause__, FileNotFoundError):
                raise
        else:
            return _registries(entries, records)
    raise RegistryError(f"{directory}: expected a set that stays for one read, found {_READS} replaced in a row; try again")


def load_bytes(files: Mapping[str, bytes], directory: Path) -> Registries:
    """Return the whole set in `files` (name -> bytes), which came from `directory`.

    Raises RegistryError, which names a damaged file.
    """
    return _registries(*parse_set(files, directory))


def load_records(directory: Path) -> dict[str, RegistryRecord]:
    """Return the records of `index.json` in `directory`, with each version's digest and additions; {} before a refresh."""
    return read_set(directory)[1]


def _registries(entries: Mapping[str, Mapping[str, int]], records: Mapping[str, RegistryRecord]) -> Registries:
    found = {}
    for name, own in entries.items():
        record = records.get(name)
        version, retired = (record.version, tuple(record.retired)) if record else (1, ())
        frozen = MappingProxyType(dict(sorted(own.items(), key=lambda pair: pair[1])))
        found[name] = Registry(REGISTRIES[name], frozen, version, registry_digest(own), retired)
    return Registries(found)


def refresh(directory: Path, observed: Mapping[str, Collection[str]], simic: pa.Table | None = None) -> RefreshReport:
    """Append new keys under a lock, and publish the set in one step; nothing is written if nothing changed.

    `observed`: the keys that upstream sends now, by registry; in a registry that it lacks, no key is retired. `simic`: rows of
    simic.registry_snapshot. A registry that has conflicts or is full keeps its last version; the others are updated.
    """
    with lock(directory / LOCK):
        _clean(directory)
        entries, records = read_set(directory)
        adopted = _adopt_files(entries, records)
        if adopted:
            publish_set(directory, entries, adopted, set(adopted))
            records = dict(adopted)
        snapshots = newest_snapshot(simic)
        outcomes = {
            name: next_entries(spec, entries.get(name), snapshots.get(name, []), observed.get(name, ()))
            for name, spec in REGISTRIES.items()
        }
        after = {
            name: _record(records.get(name), spec, outcomes[name], snapshots.get(name, []), observed.get(name))
            for name, spec in REGISTRIES.items()
        }
        wrote = after != records
        if wrote:
            changed = {n for n in after if n not in records or after[n].version != records[n].version}
            publish_set(directory, {n: outcomes[n].entries for n in REGISTRIES}, after, changed)
    changes = {name: _change(name, entries.get(name, {}), after[name], outcomes[name]) for name in REGISTRIES}
    return RefreshReport(changes, wrote or bool(adopted), tuple(sorted(set(snapshots) - set(REGISTRIES))))


def retire(directory: Path, name: str, key: str) -> None:
    """Mark `key` of registry `name` as retired by an operator: it stays listed, and its index is never freed.

    Raises RegistryError if the registry or the key is unknown.
    """
    spec = REGISTRIES.get(name)
    if spec is None:
        raise RegistryError(f"registry {name!r}: expected one of {', '.join(REGISTRIES)}")
    with lock(directory / LOCK):
        _clean(directory)
        entries, records = read_set(directory)
        if name not in records or spec.normal(key) not in entries[name]:
            raise RegistryError(f"registry {name}: expected the key {key!r}, found no such entry; see `tamiyo registry show`")
        record = records[name]
        by_operator = sorted({*record.retired_by_operator, spec.normal(key)})
        update = {"retired": sorted({*record.retired, *by_operator}), "retired_by_operator": by_operator}
        if record.retired_by_operator != by_operator:
            publish_set(directory, entries, records | {name: record.model_copy(update=update)}, set())


def newest_snapshot(simic: pa.Table | None) -> dict[str, list[tuple[str, int]]]:
    """Return for each registry the (key, index) pairs of the newest Simic snapshot in rows of simic.registry_snapshot."""
    if simic is None or simic.num_rows == 0:
        return {}
    newest: dict[str, int] = {}
    rows = simic.select(["registry", "key", "index", "arrival"]).to_pylist()
    for row in rows:
        newest[row["registry"]] = max(newest.get(row["registry"], -1), _arrival(row["arrival"]))
    found: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        if _arrival(row["arrival"]) == newest[row["registry"]]:
            found.setdefault(row["registry"], []).append((row["key"], row["index"]))
    return found


def _arrival(value: int | None) -> int:
    return -1 if value is None else value


def _clean(directory: Path) -> None:
    sweep(directory)
    sweep(directory / "generations")


def _adopt_files(entries: Mapping[str, Mapping[str, int]], records: Mapping[str, RegistryRecord]) -> dict[str, RegistryRecord]:
    """Return records of version 1 for files of an older system; empty if there are none, or if a set is published."""
    if records:
        return {}
    return {name: _first(REGISTRIES[name], own) for name, own in entries.items()}


def _first(spec: RegistrySpec, entries: Mapping[str, int]) -> RegistryRecord:
    digest = registry_digest(entries)
    return RegistryRecord(
        version=1,
        capacity=spec.capacity,
        size=len(entries),
        digest=digest,
        retired=[],
        retired_by_operator=[],
        holes=holes(entries),
        versions=[VersionRecord(version=1, digest=digest, added=dict(sorted(entries.items())))],
    )


def _record(
    old: RegistryRecord | None,
    spec: RegistrySpec,
    outcome: Outcome,
    simic: Sequence[tuple[str, int]],
    observed: Collection[str] | None,
) -> RegistryRecord:
    """Return the record after a refresh: the old one, with one more version if entries were added."""
    base = old if old is not None else _first(spec, outcome.entries)
    digest = registry_digest(outcome.entries)
    if digest != base.digest:
        known = {key for version in base.versions for key in version.added}
        added = {key: index for key, index in sorted(outcome.entries.items()) if key not in known}
        version = VersionRecord(version=base.version + 1, digest=digest, added=added)
        base = base.model_copy(
            update={
                "version": version.version,
                "size": len(outcome.entries),
                "digest": digest,
                "holes": holes(outcome.entries),
                "versions": [*base.versions, version],
            }
        )
    gone = None if outcome.held else retired_keys(spec, outcome.entries, simic, observed)
    if gone is not None:
        base = base.model_copy(update={"retired": sorted(gone | set(base.retired_by_operator))})
    return base


def _change(name: str, before: Mapping[str, int], record: RegistryRecord, outcome: Outcome) -> Change:
    return Change(
        name=name,
        version=record.version,
        digest=record.digest,
        size=record.size,
        capacity=record.capacity,
        added={key: index for key, index in outcome.entries.items() if key not in before},
        retired=tuple(record.retired),
        conflicts=outcome.conflicts,
        full=outcome.full,
    )
