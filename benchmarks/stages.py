"""CPU seconds, bytes and peak memory of each stage from exports to graphs, in one process; and of one run bucket of sixteen.

    python -m benchmarks.stages [EXPORTS]

CPU seconds are those of this process with all its threads, without what it waits for.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gnn.graph.dataset import GraphDataset
from gnn.registry.refresh import load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.settings import SAMPLE
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets.coverage import refresh_coverage
from tamiyo_assets.assets.features import STATES, FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild


def size(path: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main(exports: Path, home: Path) -> None:
    """Print one line for each stage."""
    tables = TableStore(home, DERIVED)

    def stage(name: str, work: Callable[[], object]) -> None:
        before, held = time.process_time(), size(home)
        work()
        print(
            json.dumps(
                {
                    "stage": name,
                    "cpu_s": round(time.process_time() - before, 2),
                    "mb": round((size(home) - held) / 1e6, 2),
                    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            ),
            flush=True,
        )

    stage("contract tables", lambda: Ingest(home, Exports(exports), tables).refresh())
    contracts = {name: source_columns(name) for name in source_tables()}
    stage(
        "registries",
        lambda: refresh(
            home / "registries", observed_keys(tables.read_each(contracts)), tables.read("simic.registry_snapshot")
        ),
    )
    stage("digests of contract tables", lambda: Versions(home, tables).of(STATES))
    stage("features", lambda: list(FeatureBuild(tables, Versions(home, tables)).refresh()))
    stage("coverage", lambda: list(refresh_coverage(tables)))
    stage("graphs", lambda: list(GraphBuild(home, tables, load(home / "registries")).refresh()))
    stage("all of it again", lambda: _again(home, tables))
    runs = len(Versions(home, tables).of(STATES).runs)
    print(json.dumps({"runs": runs, "packets": tables.count(STATES), "graphs": len(GraphDataset.open(home))}))


def _again(home: Path, tables: TableStore) -> None:
    list(FeatureBuild(tables, Versions(home, tables)).refresh())
    list(refresh_coverage(tables))
    list(GraphBuild(home, tables, load(home / "registries")).refresh())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE, Path(place))
