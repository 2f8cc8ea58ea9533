"""A bad day: a mandatory key that is sent no more, records that are refused, a feed that falls silent, nothing that serves.

As a script: HOME, for the pictures in the documentation.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from lake.exports.ledger import LEDGER
from lake.settings import Settings
from tests.exports import part_of
from tests.tamiyo_assets.pipelines import run, settings

RUN = "run-s7-0505"
SOUND_PACKETS = 6
KEY = "context.throughput"
REFUSED = 12
SILENT = "urabrask"
SILENT_FOR = timedelta(hours=61)
_SAMPLE = Path(__file__).resolve().parents[2] / "recorder" / "sample"


def bad_exports(sample: Path, exports: Path, batches: int = 1) -> int:
    """Make the exports; return the time [ns] of the first packet of `RUN` without the key.

    Tolaria sends the first packets of `RUN` whole and the others without their throughput; Kasmina sends seeds of no run.
    """
    part_of(sample, exports, batches=batches)
    since = 0
    for path in sorted((exports / "tolaria" / "system_state").iterdir()):
        packets = [json.loads(line) for line in lines_of(path)]
        own = sorted((p for p in packets if p["training_run_id"] == RUN), key=lambda p: int(p["timestamp_ns"]))
        for packet in own[SOUND_PACKETS:]:
            since = since or int(packet["timestamp_ns"])
            del packet["training_metrics"]["samples_per_s"]
        write_lines(path, [json.dumps(packet) for packet in packets])
    seeds = [
        {"seed_id": f"seed-{n}", "stage": "SEED_STAGE_DORMANT", "timestamp_ns": "1795437029378142056"} for n in range(REFUSED)
    ]
    write_lines(exports / "kasmina" / "seed_state" / "adrift.ndjson.zst", [json.dumps(seed) for seed in seeds])
    return since


def bad_day(root: Path, sample: Path = _SAMPLE, batches: int = 1) -> tuple[Settings, int]:
    """Run the pipeline on a bad day; return its settings, and the time [ns] since when the key is missing."""
    since = bad_exports(sample, root / "exports", batches)
    found = settings(root, root / "exports")
    outcome = run(found)
    assert [(check.asset, check.check) for check in outcome.errors] == [("coverage/by_key", "mandatory_coverage")]
    fall_silent(found.home, SILENT)
    return found, since


def fall_silent(home: Path, system: str) -> None:
    """Write the arrivals of a system down as some days old."""
    at = (datetime.now(UTC) - SILENT_FOR).isoformat(timespec="seconds")
    path = home / LEDGER
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    old = [entry | ({"at": at} if entry["folder"].startswith(f"{system}/") else {}) for entry in entries]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in old))


def lines_of(path: Path) -> list[str]:
    """Lines of a compressed export."""
    with path.open("rb") as compressed:
        return zstandard.ZstdDecompressor().stream_reader(compressed).read().decode().splitlines()


def write_lines(path: Path, lines: list[str]) -> None:
    """Replace a compressed export."""
    path.write_bytes(zstandard.ZstdCompressor().compress("".join(f"{line}\n" for line in lines).encode()))


if __name__ == "__main__":
    bad_day(Path(sys.argv[1]))
