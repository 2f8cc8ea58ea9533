"""Runs that are killed at random moments: `python -m tests.crash.killed_runs PLACE KILLS SEED` prints the counts as JSON.

One process imports everything and forks a child for each run and each look at what it left, so that a kill costs no import.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gnn.norms import published as norms
from gnn.registry import refresh as registries
from gnn.registry.rules import observed_keys, source_tables
from lake import warehouse
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.artifacts import PriorNorm
from schemas.contracts import TABLES
from schemas.digest import table_digest

WRITTEN = ("tolaria.system_state", "tolaria.layer_telemetry", "kasmina.seed_state")


@dataclass
class Counts:
    """What happened."""

    kills: int = 0
    finished: int = 0
    torn: int = 0
    lost: int = 0
    incomplete: int = 0


def export(root: Path, number: int) -> None:
    """One more file of packets, some of them again, with a bad line and a new seed."""
    folder = root / "tolaria" / "system_state"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["not json"]
    for step in range(max(0, number * 3 - 2), number * 3 + 3):
        seeds = [{"seed_id": f"seed-{number}", "stage": "SEED_STAGE_TRAINING"}]
        layers = [{"layer_id": "l", "loss": 0.5}]
        packet = {"training_run_id": f"run-{step % 4}", "packet_id": f"p-{step}", "timestamp_ns": str(step + 1)}
        lines.append(json.dumps(packet | {"training_loss": 0.5, "layers": layers, "seed_states": seeds}))
    (folder / f"{number:05d}.ndjson").write_text("\n".join(lines) + "\n")


def publish_all(home: Path, root: Path) -> None:
    """What a run publishes before it trains."""
    tables = TableStore(home)
    Ingest(home, Exports(root), tables).refresh(["tolaria/system_state"])
    keys = observed_keys({name: tables.read(name) for name in source_tables()})
    registries.refresh(home / "registries", keys)
    count = tables.count("tolaria.system_state")
    norms.publish(home, norms.Norms.of({"momentum": PriorNorm(mean=float(count), var=1.0, transform="identity")}, {}))
    warehouse.publish(home, tables)


def look(home: Path) -> tuple[list[str], dict[str, int]]:
    """Torn things that a reader meets, and the seeds that it finds."""
    torn = []
    store = TableStore(home)
    seeds: dict[str, int] = {}
    for what, read in (
        ("registries", lambda: seeds.update(registries.load(home / "registries")["seed"].entries)),
        ("norms", lambda: norms.load(home)),
        *((name, lambda name=name: store.read(name)) for name in store.names()),
    ):
        try:
            read()
        except Exception as error:  # noqa: BLE001 - whatever it is, a reader met it
            torn.append(f"{what}: {error}")
    for spec in (home / "registries").glob("*_registry.json"):
        if spec.exists():
            json.loads(spec.read_text())
    return torn, seeds


def digests(home: Path) -> dict[str, str]:
    """Content digests of the tables, and whether their records add up."""
    store = TableStore(home)
    ingest = Ingest(home, Exports(home), store)
    found = {name: table_digest(TABLES[name], store.read(name)) for name in WRITTEN}
    return found | {f"{name} balanced": str(ingest.accounting(name).balanced) for name in WRITTEN}


def forked(work: Callable[[], object], *, kill_after: float | None = None) -> tuple[bool, object]:
    """Run `work` in a child, kill it after some seconds; whether it finished, and what it returned."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 1
        try:
            os.write(write, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return status == 0, json.loads(answer) if answer else None


def main(place: Path, kills: int, seed: int) -> Counts:
    """Kill runs at random moments; after each, look, and finish with a run that is left alone."""
    chance = random.Random(seed)
    home, root, counts = place / "home", place / "exports", Counts()
    known: dict[str, int] = {}
    length = 1.0
    number = 0
    while counts.kills < kills:
        export(root, number)
        number += 1
        finished, _ = forked(lambda: publish_all(home, root), kill_after=chance.uniform(0, length))
        counts.finished += finished
        counts.kills += not finished
        _, seen = forked(lambda: look(home))
        torn, seeds = seen if isinstance(seen, list) else (["no reader"], {})
        counts.torn += len(torn)
        counts.lost += any(seeds.get(key) != index for key, index in known.items())
        known = seeds
        if number % 5 == 0:
            start = time.monotonic()
            whole, _ = forked(lambda: publish_all(home, root))
            counts.incomplete += not whole
            length = time.monotonic() - start
    forked(lambda: publish_all(home, root))
    forked(lambda: publish_all(place / "fresh", root))
    _, killed = forked(lambda: digests(home))
    _, fresh = forked(lambda: digests(place / "fresh"))
    counts.incomplete += killed != fresh or "False" in dict(killed or {}).values()
    return counts


if __name__ == "__main__":
    print(json.dumps(asdict(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
