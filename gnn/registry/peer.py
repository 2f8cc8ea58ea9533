"""Copy registries and norms for the existing system, which writes into the files that it loads.

That system adds `unknown` and the ids that it meets to its files, even through links. A hole in the indices makes it assign an
index twice, and it takes only a limited number of seeds and blueprints. So it gets files of its own, without links; if it could
not use them, the export is refused with the reason.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gnn.norms.published import NORMS, from_json
from gnn.registry.refresh import Registries, load
from lake.durable.publish import ensure_dir, publish_file
from schemas.errors import RegistryError

NAMES: Final = ("layer_type", "activation_type", "optimizer_family", "hazard_class", "blueprint", "seed", "schedule")
WITH_UNKNOWN: Final = ("layer_type", "activation_type")
UNKNOWN: Final = "unknown"
MOST: Final[Mapping[str, int]] = {"seed": 1022, "blueprint": 1022}


def export_peer(registries: Path, norms: Path, place: Path) -> list[Path]:
    """Write `<name>_registry.json` for each of `NAMES` and `gnn_norms.json` into `place`; return their paths.

    Raises RegistryError if `place` is not an empty or new directory, or with a list of everything that the existing system
    can't take; nothing is written then.
    """
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise RegistryError(
            f"{place}: expected a new or empty directory, found something there; the peer adds ids to its files, "
            "so that older ones are not replaced: name another directory"
        )
    published = load(registries)
    entries = {name: peer_entries(published, name) for name in NAMES}
    faults = [fault for name in NAMES for fault in faults_of(name, entries[name])]
    if faults:
        raise RegistryError("the existing system can't take these registries: " + "; ".join(faults))
    from_json(norms)  # NormsError if they are damaged
    ensure_dir(place)
    found = []
    for name in NAMES:
        path = place / f"{name}_registry.json"
        publish_file(path, (json.dumps(entries[name], sort_keys=True, indent=1) + "\n").encode("ascii"))
        found.append(path)
    publish_file(place / NORMS, norms.read_bytes())
    return [*found, place / NORMS]


def peer_entries(registries: Registries, name: str) -> dict[str, int]:
    """Return the entries of a registry for the peer, with `unknown` at the next index if the peer would add it itself."""
    entries = dict(registries[name].entries)
    if name in WITH_UNKNOWN and UNKNOWN not in entries:
        entries[UNKNOWN] = max(entries.values(), default=0) + 1
    return entries


def faults_of(name: str, entries: Mapping[str, int]) -> list[str]:
    """Return the reasons why the peer can't take a registry; empty if it can."""
    holes = sorted(set(range(1, max(entries.values(), default=0) + 1)) - set(entries.values()))
    faults = []
    if holes:
        shown = ", ".join(map(str, holes[:10])) + (", ..." if len(holes) > 10 else "")
        faults.append(f"registry {name}: expected indices without a hole, found {len(holes)} unused: {shown}")
    if len(entries) > MOST.get(name, len(entries)):
        faults.append(f"registry {name}: expected at most {MOST[name]} entries, found {len(entries)}")
    return faults
