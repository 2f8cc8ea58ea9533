"""Measure one registry refresh, by the number of kept versions: `python -m benchmarks.registries`."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from gnn.registry.refresh import refresh

FEW, MANY = 10, 1_000
TRIES = 31
BASE = 1_200  # keys from the start, so that the two differ in kept versions alone


def grown(home: Path, versions: int) -> set[str]:
    """A registry with `versions` versions and as many keys as any other; its keys."""
    keys = {f"seed-{number:05d}" for number in range(BASE + MANY - versions)}
    refresh(home, {"seed": keys})
    for number in range(versions - 1):
        keys.add(f"later-{number:05d}")
        refresh(home, {"seed": keys})
    return keys


def cost(home: Path, keys: set[str]) -> float:
    """Median seconds of one refresh that appends one key."""
    seconds = []
    for number in range(TRIES):
        keys.add(f"new-{number:05d}")
        start = time.perf_counter()
        refresh(home, {"seed": keys})
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure() -> tuple[float, float]:
    """Cost with few and with many kept versions, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        keys = grown(few, FEW), grown(many, MANY)
        return cost(few, keys[0]), cost(many, keys[1])


def main() -> None:
    """Print both costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    few, many = measure()
    if as_json:
        print(json.dumps({"few_ms": few * 1e3, "many_ms": many * 1e3, "ratio": many / few}))
        return
    print(f"one refresh: {few * 1e3:.1f} ms with {FEW} kept versions, {many * 1e3:.1f} ms with {MANY}, ratio {many / few:.2f}")


if __name__ == "__main__":
    main()
