"""Many refreshes at once lose no key and give no index twice, and readers meanwhile see whole sets."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from gnn.registry.refresh import load, refresh
from schemas.artifacts import registry_digest

PROCESSES = 16
KEYS = 12


def append(home: str, process: int) -> list[dict[str, int]]:
    """Add keys one by one in a process of its own; what it read in between."""
    seen = []
    for number in range(KEYS):
        refresh(Path(home), {"seed": {f"seed-{process}-{number}"}})
        seen.append(dict(load(Path(home))["seed"].entries))
    return seen


def test_16_processes_append_at_once(place: Path) -> None:
    home = place / "registries"
    context = get_context("forkserver")
    context.set_forkserver_preload(["gnn.registry.refresh"])
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        reads = list(pool.map(append, [str(home)] * PROCESSES, range(PROCESSES)))
    final = dict(load(home)["seed"].entries)
    assert set(final) == {f"seed-{process}-{number}" for process in range(PROCESSES) for number in range(KEYS)}
    assert sorted(final.values()) == list(range(1, PROCESSES * KEYS + 1))
    assert all(seen.items() <= final.items() for process in reads for seen in process)
    record = json.loads((home / "index.json").read_text())["seed"]
    assert record["version"] == PROCESSES * KEYS
    for version in record["versions"]:
        kept = json.loads((home / "versions" / "seed" / f"{version['version']}.json").read_text())
        assert registry_digest(kept) == version["digest"]
        assert kept.items() <= final.items()
