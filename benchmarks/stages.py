"""CPU seconds, bytes and peak memory of each stage from exports to graphs, each in a process of its own.

    python -m benchmarks.stages [EXPORTS] [--home HOME]

CPU seconds are those of a process with all its threads, from the end of its imports on, without what it waits for; memory is
that of its own pages, imports included. `python -m benchmarks.copies` makes exports of 100,000 runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.ingest import resident_peak
from gnn.graph.dataset import GraphDataset
from gnn.registry.refresh import load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.settings import SAMPLE
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets.coverage import refresh_coverage
from tamiyo_assets.assets.features import STATES, FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild


def size(path: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def ingested(exports: Path, home: Path, tables: TableStore) -> None:
    """Read the exports into contract tables."""
    Ingest(home, Exports(exports), tables).refresh()


def registered(_: Path, home: Path, tables: TableStore) -> None:
    """Append the observed keys to the registries, and say which registry is full."""
    contracts = {name: source_columns(name) for name in source_tables()}
    observed = observed_keys(tables.read_each(contracts))
    report = refresh(home / "registries", observed, tables.read("simic.registry_snapshot"))
    for problem in report.problems.values():
        print(problem, file=sys.stderr)


def digested(_: Path, home: Path, tables: TableStore) -> None:
    """Digest every contract table, as a rebuild does."""
    for name in TABLES:
        Versions(home, tables).of(name)


def joined(_: Path, home: Path, tables: TableStore) -> None:
    """Join the features of what has changed."""
    list(FeatureBuild(tables, Versions(home, tables)).refresh())


def counted(_: Path, home: Path, tables: TableStore) -> None:
    """Count the coverage of what has changed."""
    list(refresh_coverage(tables))


def encoded(_: Path, home: Path, tables: TableStore) -> None:
    """Encode the graphs of what has changed."""
    list(GraphBuild(home, tables, load(home / "registries")).refresh())


def again(exports: Path, home: Path, tables: TableStore) -> None:
    """Find that nothing has changed."""
    for stage in (joined, counted, encoded):
        stage(exports, home, tables)


STAGES: Final[Mapping[str, Callable[[Path, Path, TableStore], None]]] = {
    "contract tables": ingested,
    "registries": registered,
    "digests of contract tables": digested,
    "features": joined,
    "coverage": counted,
    "graphs": encoded,
    "nothing has changed": again,
}


def measured(name: str, exports: Path, home: Path) -> dict[str, object]:
    """Measure one stage in this process."""
    before, held, began = time.process_time(), size(home), time.monotonic()
    STAGES[name](exports, home, TableStore(home, DERIVED))
    cpu, wall = time.process_time() - before, time.monotonic() - began
    mb = (size(home) - held) / 1e6
    return {"stage": name, "cpu_s": round(cpu, 2), "wall_s": round(wall, 1), "mb": round(mb, 2), "peak_mb": resident_peak()}


def main(exports: Path, home: Path) -> None:
    """Print one line for each stage, and one with what was made."""
    home.mkdir(parents=True, exist_ok=True)
    for name in STAGES:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.stages", exports, "--home", home, "--only", name]
        subprocess.run(command, check=True)
    tables = TableStore(home, DERIVED)
    runs = len(Versions(home, tables).of(STATES).runs)
    print(json.dumps({"runs": runs, "packets": tables.count(STATES), "graphs": len(GraphDataset.open(home))}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--home", type=Path, help="a directory to keep; without it, everything is removed afterwards")
    parser.add_argument("--only", choices=STAGES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measured(chosen.only, chosen.exports, chosen.home)), flush=True)
    elif chosen.home:
        main(chosen.exports, chosen.home)
    else:
        with tempfile.TemporaryDirectory() as place:
            main(chosen.exports, Path(place))
