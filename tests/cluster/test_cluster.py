"""`make cluster` as plain processes: a backfill of the sample over its workers, of which one is killed, and the broker too.

The result is that of one process; the rebuild after it finds everything done.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARENT_RUN_ID_TAG

from gnn.graph.dataset import current_shards
from gnn.norms.published import Norms, publish
from gnn.registry.refresh import load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from lake.writes import WRITES
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets.coverage import COVERAGE_TABLES, refresh_coverage
from tamiyo_assets.assets.features import FEATURE_TABLES, FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild
from tamiyo_assets.assets.model import RESULTS
from tests.browser.webserver import Interface, free_port
from tests.components import IN_CI, program, required
from tests.postgres import open_to_others, require_postgres

Found = TypeVar("Found")
PATIENCE_S = 1800.0
DONE = dg.DagsterRunStatus.SUCCESS


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs, and how to speak to it."""

    place: Path
    process: "subprocess.Popen[str]"
    ui: Interface

    @property
    def environment(self) -> dict[str, str]:
        lines = (self.place / "environment").read_text().splitlines()
        return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}

    def pid(self, name: str) -> int:
        return int(dict(line.split() for line in (self.place / "pids").read_text().splitlines())[name])

    def until(self, what: str, found: Callable[[], Found | None]) -> Found:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()[0][-4000:]
            value = found()
            if value:
                return value
            time.sleep(0.2)
        pytest.fail(f"waited in vain for {what}; the logs are in {self.place / 'logs'}")


pytestmark = pytest.mark.skipif(not IN_CI, reason="five minutes on two cores: CI runs it, and so does CI=true here")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Cluster]:
    program("redis-server", purpose="a cluster")
    require_postgres("a cluster")
    for module in ("dagster_celery", "dagster_postgres"):
        required(find_spec(module), f"a cluster needs {module}; install the extra `cluster`")
    place = tmp_path_factory.mktemp("cluster")
    open_to_others(place)
    port = str(free_port())
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tamiyo.cluster", str(place)],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={n: value for n, value in os.environ.items() if not n.startswith(("TAMIYO_", "DAGSTER_"))} | {"PORT": port},
    )
    found = Cluster(place, process, Interface(f"http://127.0.0.1:{port}"))
    try:
        found.until("the cluster's start", lambda: (place / "pids").exists())
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


class Watched:
    """The runs of the newest backfill, as the cluster's instance has them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        backfill = self.instance.get_backfills(limit=1)[0].backfill_id
        return self.instance.get_runs(dg.RunsFilter(statuses=[*statuses] or None, tags={BACKFILL_ID_TAG: backfill}))

    def of_buckets(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        return [run for run in self.runs(*statuses) if run.tags.get(WRITES, "").startswith("bucket-")]


@pytest.fixture(scope="module")
def watched(cluster: Cluster) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        with dg.DagsterInstance.get() as instance:
            yield Watched(instance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """The same sample, made by one process."""
    home = tmp_path_factory.mktemp("alone")
    tables = TableStore(home, DERIVED)
    Ingest(home, Exports(sample), tables).refresh()
    contracts = tables.read_each({name: source_columns(name) for name in source_tables()})
    refresh(home / "registries", observed_keys(contracts), tables.read("simic.registry_snapshot"))
    made(home)
    return home


def made(home: Path) -> dict[str, int]:
    """Make what has changed, and return of how many runs."""
    tables = TableStore(home, DERIVED)
    joined = [*FeatureBuild(tables, Versions(home, tables)).refresh()]
    counted = [*refresh_coverage(tables)]
    graphs = GraphBuild(home, tables, load(home / "registries"))
    list(graphs.refresh())
    return {"joined": len(joined), "counted": len(counted), "encoded": graphs.encoded}


def digests(home: Path) -> dict[str, str]:
    versions = Versions(home, TableStore(home, DERIVED))
    return {name: versions.of(name).digest for name in (*FEATURE_TABLES, *COVERAGE_TABLES)} | current_shards(home)


def test_a_backfill_over_workers_that_die_gives_what_one_process_gives(
    cluster: Cluster, watched: Watched, alone: Path, repository: Path
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tamiyo", "backfill", "--json"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as backfill:
        beside = cluster.until("two buckets beside each other", lambda: _two_at_once(watched))
        os.killpg(cluster.pid("worker-1"), signal.SIGKILL)  # with the process of its run, as a machine dies
        victims = cluster.until("the end of the run that was killed", lambda: _gone(watched))
        cluster.until("the next one", lambda: len(watched.of_buckets(DONE)) > 4)
        os.kill(cluster.pid("redis"), signal.SIGKILL)
        said = json.loads(backfill.communicate()[0])
    assert backfill.returncode == 0, said
    assert said["status"] == "COMPLETED_SUCCESS"
    assert len({run.tags["tamiyo/pid"] for run in beside}) == 2, "one worker each"
    for victim in victims:
        again = [run for run in watched.runs(DONE) if run.tags.get(PARENT_RUN_ID_TAG) == victim.run_id]
        assert [run.tags[WRITES] for run in again] == [victim.tags[WRITES]], "tried again, on its bucket"
    home = Path(cluster.environment["TAMIYO_HOME"])
    assert digests(home) == digests(alone)


def test_what_the_backfill_made_is_not_made_again(cluster: Cluster) -> None:
    home = Path(cluster.environment["TAMIYO_HOME"])
    before = TableStore(home).versions()
    assert made(home) == {"joined": 0, "counted": 0, "encoded": 0}
    assert TableStore(home).versions() == before


TRAINING = """
[training]
epochs = 1
rounds_epochs = 1
steps = 2
bootstrap = 20
boosting = false
gaussian_process = false

[training.launch]
where = "pipes"
processes = 2
"""


def test_a_training_goes_to_its_queue_and_from_there_to_processes_of_its_own(cluster: Cluster, watched: Watched) -> None:
    home = Path(cluster.environment["TAMIYO_HOME"])
    (home / "pipeline.toml").write_text(TRAINING)
    publish(home, Norms.default())
    keys = [*(name.replace(".", "/") for name in RESULTS), "bundle/tamiyo_gnn_v1"]
    run = cluster.ui.finished(cluster.ui.launch(*keys), PATIENCE_S)
    said = [entry.message for entry in watched.instance.all_logs(run["runId"])]
    assert run["status"] == "SUCCESS", said
    assert run["tags"]["dagster-celery/queue"] == "training"
    assert any("process 1 of 2: published: epoch 1 of at most 1" in message for message in said), said
    assert len([path for path in (home / "bundles").iterdir() if path.is_dir()]) == 1


def _two_at_once(watched: Watched) -> list[dg.DagsterRun] | None:
    if not watched.instance.get_backfills(limit=1):
        return None
    found = [run for run in watched.of_buckets(dg.DagsterRunStatus.STARTED) if "tamiyo/pid" in run.tags]
    return found if len(found) == 2 else None


def _gone(watched: Watched) -> list[dg.DagsterRun]:
    """Runs that were failed because their process was gone."""
    found = []
    for run in watched.of_buckets(dg.DagsterRunStatus.FAILURE):
        said = watched.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        found += [run] if any("is gone" in event.message for event in said) else []
    return found
