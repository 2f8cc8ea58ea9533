"""What one more export costs, in a store of few and of many training runs: `python -m benchmarks.increments [--runs N]`.

Two stores, of 2 and of N training runs, one export a run, ingested one after the other. Then exports are added to both in turn,
each followed by a refresh as a process of its own would do it (nothing is remembered but what is on disk): a new run, later
packets of a stored run, and stored packets delivered again beside new ones. The least CPU time of each kind, and the ratio.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.packets import FOLDER
from schemas.leyline import leyline_pb2 as pb
from tamiyo_assets.ingest import Ingest
from tamiyo_assets.resources.exports import Exports
from tamiyo_assets.resources.tables import TableStore

KINDS = ("new run", "later packets", "delivered again")


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
    """One store with its exports. `costs`: CPU seconds of the refreshes by kind of export."""

    root: Path
    packets: int
    costs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, content: bytes, kind: str = "") -> None:
        """Put an export and refresh."""
        path = self.root / "exports" / FOLDER.path / f"{name}.wal"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        home = self.root / "home"
        start = time.process_time()
        Ingest(home, Exports(self.root / "exports"), TableStore(home)).refresh()
        self.costs.setdefault(kind, []).append(time.process_time() - start)

    def fill(self, runs: int) -> None:
        """Ingest an export of each of `runs` runs, one after the other."""
        for number in range(runs):
            self.add(f"run-{number:03d}", export(f"run-{number:03d}", 0, self.packets))

    def round(self, number: int) -> None:
        """Add one export of each kind."""
        size = self.packets
        self.add(f"new-{number}", export(f"new-{number}", 0, size), KINDS[0])
        self.add(f"later-{number}", export("run-000", (2 * number + 1) * size, size), KINDS[1])
        self.add(f"again-{number}", export("run-001", size * number + size // 2, size), KINDS[2])


def measure(runs: int, packets: int, rounds: int) -> dict[str, object]:
    """Least CPU milliseconds by kind in both stores, and the ratios."""
    root = Path(tempfile.mkdtemp())
    try:
        few, many = Site(root / "few", packets), Site(root / "many", packets)
        few.fill(2)
        many.fill(runs)
        for number in range(rounds):
            few.round(number)
            many.round(number)
    finally:
        shutil.rmtree(root)
    found: dict[str, object] = {"runs": runs, "packets": packets, "rounds": rounds}
    for kind in KINDS:
        least = [min(site.costs[kind]) for site in (few, many)]
        milliseconds = [round(1000 * cost, 1) for cost in least]
        found[kind] = {"2 runs ms": milliseconds[0], f"{runs} runs ms": milliseconds[1], "ratio": round(least[1] / least[0], 2)}
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--packets", type=int, default=1_000, help="packets of one export")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(options.runs, options.packets, options.rounds), indent=1))


if __name__ == "__main__":
    main()
