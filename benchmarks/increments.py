"""What one more export costs, in a store of few and of many training runs: `python -m benchmarks.increments [--runs N]`.

Two stores, of 2 and of N training runs, one export a run, ingested one after the other (with `--together`: by one refresh).
Then exports are added to both in turn, each followed by a refresh as a process of its own would do it (nothing is remembered
but what is on disk): a new run, later packets of a stored run, and stored packets delivered again beside as many new ones.
The medians of CPU and wall time of each kind, and their ratios.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.packets import FOLDER
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.leyline import leyline_pb2 as pb

NEW, LATER, AGAIN = "new run", "later packets", "delivered again"
KINDS = (NEW, LATER, AGAIN)


def export(run: str, first: int, count: int) -> bytes:
    """`count` packets of a run from step `first` on, as a `.wal` file."""
    found = bytearray()
    for step in range(first, first + count):
        packet = pb.SystemStatePacket(
            packet_id=f"{run}-{step}", training_run_id=run, timestamp_ns=1_795_412_039_000_000_000 + step, global_step=step
        )
        packet.training_loss = 1 / (1 + step)
        packet.training_metrics.update({"loss": 1 / (1 + step), "gradient_norm": step / 7})
        packet.seed_states.add(seed_id="seed-0", stage=3, alpha=0.5, gradient_norm=step / 3)
        payload = packet.SerializeToString()
        found += len(payload).to_bytes(4, "little") + payload
    return bytes(found)


@dataclass
class Site:
    """One store with its exports. `costs`: CPU and wall seconds of the refreshes by kind of export."""

    root: Path
    packets: int
    costs: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def put(self, name: str, content: bytes) -> None:
        """Put an export."""
        path = self.root / "exports" / FOLDER.path / f"{name}.wal"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def refresh(self, kind: str = "") -> None:
        """Refresh as a process of its own."""
        home = self.root / "home"
        start = time.process_time(), time.perf_counter()
        Ingest(home, Exports(self.root / "exports"), TableStore(home)).refresh()
        self.costs.setdefault(kind, []).append((time.process_time() - start[0], time.perf_counter() - start[1]))

    def fill(self, runs: int, *, together: bool) -> None:
        """Ingest an export of each of `runs` runs, one after the other or together."""
        for number in range(runs):
            self.put(f"run-{number:03d}", export(f"run-{number:03d}", 0, self.packets))
            if not together or number == runs - 1:
                self.refresh()

    def add(self, kind: str, number: int) -> None:
        """Add the export of one kind and refresh."""
        size = self.packets
        if kind == NEW:
            self.put(f"new-{number}", export(f"new-{number}", 0, size))
        elif kind == LATER:
            self.put(f"later-{number}", export("run-000", (2 * number + 1) * size, size))
        else:
            self.put(f"again-{number}", export("run-001", (number + 1) * size // 2, size))
        self.refresh(kind)


def measure(runs: int, packets: int, rounds: int, *, together: bool = False) -> dict[str, object]:
    """Median milliseconds by kind in both stores, and the ratios."""
    root = Path(tempfile.mkdtemp())
    try:
        few, many = Site(root / "few", packets), Site(root / "many", packets)
        few.fill(2, together=together)
        many.fill(runs, together=together)
        for number in range(rounds):
            for kind in KINDS:
                few.add(kind, number)
                many.add(kind, number)
    finally:
        shutil.rmtree(root)
    found: dict[str, object] = {"runs": runs, "packets": packets, "rounds": rounds, "together": together}
    for kind in KINDS:
        for clock, name in enumerate(("cpu", "wall")):
            a, b = (1000 * median(cost[clock] for cost in site.costs[kind]) for site in (few, many))
            found[f"{kind}, {name}"] = {"2 runs ms": round(a, 1), f"{runs} runs ms": round(b, 1), "ratio": round(b / a, 2)}
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--packets", type=int, default=1_000, help="packets of one export")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--together", action="store_true", help="fill the stores by one refresh")
    options = parser.parse_args()
    print(json.dumps(measure(options.runs, options.packets, options.rounds, together=options.together), indent=1))


if __name__ == "__main__":
    main()
