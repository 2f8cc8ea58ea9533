"""Measure what loading the code location costs beside `import dagster`: `python -m benchmarks.load [--rounds N]`.

Each round starts one process that imports dagster and one that imports the code location, in turn. It prints the medians of
their CPU seconds (user and system, of the whole process), their ratio, and which heavy libraries came in with the code
location. Bytecode is cached aside and filled by a first, unmeasured round, as it is after an installation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from statistics import median

DAGSTER, LOCATION = "dagster", "tamiyo_assets.definitions"
HEAVY = ("deltalake", "duckdb", "matplotlib", "pandas", "pandera", "polars", "scipy", "sklearn", "torch", "torch_geometric")


def cpu_seconds(module: str, environment: Mapping[str, str]) -> float:
    """CPU seconds of a process that imports `module` and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], env=environment, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def heavy(environment: Mapping[str, str]) -> list[str]:
    """Heavy libraries that are imported with the code location."""
    code = f"import sys, {LOCATION}; print(*(m for m in {HEAVY} if m in sys.modules))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()


def measure(rounds: int) -> dict[str, object]:
    """Medians of both, in CPU milliseconds, and their ratio."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
        costs: dict[str, list[float]] = {DAGSTER: [], LOCATION: []}
        imported = heavy(environment)
        for _ in range(rounds):
            for module, found in costs.items():
                found.append(cpu_seconds(module, environment))
    a, b = (median(found) for found in costs.values())
    return {
        "command": f"python -m benchmarks.load --rounds {rounds}",
        f"import {DAGSTER}, cpu ms": round(1000 * a),
        f"import {LOCATION}, cpu ms": round(1000 * b),
        "ratio": round(b / a, 2),
        "heavy libraries imported": imported,
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(json.dumps(measure(parser.parse_args().rounds), indent=1))


if __name__ == "__main__":
    main()
