"""Features, coverage and graphs are rebuilt run by run: exactly the runs whose inputs changed, with the same bytes."""

import json
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import zstandard
from deltalake import write_deltalake

from gnn.graph.dataset import GraphDataset, current_shards
from gnn.norms.priors import DEFAULT_PRIORS
from gnn.norms.published import Norms, publish
from gnn.registry.refresh import Registries, Registry, load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.retirement import Retirements
from lake.settings import SAMPLE
from lake.store.increments import ALL_BUCKETS
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import registry_digest
from schemas.buckets import BUCKETS, bucket_of
from schemas.derived.tables import DERIVED
from tamiyo_assets.assets import coverage as coverage_assets
from tamiyo_assets.assets import features as feature_assets
from tamiyo_assets.assets.coverage import COVERAGE_TABLES, refresh_coverage
from tamiyo_assets.assets.features import FEATURE_TABLES, FeatureBuild, feature_increments
from tamiyo_assets.assets.graphs import DATASET, GraphBuild
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.instance import open_instance

FOLDERS = ("urza/blueprint", "tolaria/system_state", "kasmina/seed_state")


def put(root: Path, name: str, hosts: range) -> None:
    """Write the sample's exports of some hosts, and those that belong to no host with the first."""
    wanted = tuple(b"s7-%04d" % host for host in hosts)
    for folder in FOLDERS:
        for path in sorted((SAMPLE / folder).glob("*.ndjson.zst")):
            lines = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines(keepends=True)
            chosen = [one for one in lines if any(mark in one for mark in wanted) or (0 in hosts and b"s7-" not in one)]
            if chosen:
                target = root / "exports" / folder / f"{name}-{path.name.removesuffix('.zst')}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"".join(chosen))


class Home:
    """A home, rebuilt up to its graphs without Dagster."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "home"
        self.tables = TableStore(self.home, DERIVED)
        self.registries: Registries | None = None

    def ingest(self) -> None:
        Ingest(self.home, Exports(self.root / "exports"), self.tables).refresh()
        contracts = self.tables.read_each({name: source_columns(name) for name in source_tables()})
        refresh(self.home / "registries", observed_keys(contracts), self.tables.read("simic.registry_snapshot"))

    def rebuild(self, buckets: Collection[int] = ALL_BUCKETS) -> dict[str, int]:
        """How many runs were joined, counted and encoded."""
        versions = Versions(self.home, self.tables)
        joined = [*FeatureBuild(self.tables, versions, buckets).refresh()]
        counted = [*refresh_coverage(self.tables, buckets)]
        build = GraphBuild(self.home, self.tables, self.registries or load(self.home / "registries"), buckets)
        list(build.refresh())
        return {
            "joined": joined[-1][1] if joined else 0,
            "counted": counted[-1][1] if counted else 0,
            "encoded": build.encoded,
        }

    def digests(self) -> dict[str, str]:
        versions = Versions(self.home, self.tables)
        found = {name: versions.of(name).digest for name in (*FEATURE_TABLES, *COVERAGE_TABLES)}
        return found | current_shards(self.home)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("by_run")
    put(root, "first", range(12))
    home = Home(root)
    home.ingest()
    assert home.rebuild() == {"joined": 12, "counted": 12, "encoded": 12}
    return home


def copied(home: Home, root: Path) -> Home:
    shutil.copytree(home.root, root, dirs_exist_ok=True)
    return Home(root)


def test_what_has_not_changed_is_not_made_again(built: Home) -> None:
    before = built.digests()
    assert built.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}
    assert built.digests() == before


def test_a_bucket_at_a_time_ends_as_one_go(built: Home, tmp_path: Path) -> None:
    home = Home(tmp_path)
    put(home.root, "first", range(12))
    home.ingest()
    parts = [home.rebuild([bucket]) for bucket in range(BUCKETS)]
    assert {what: sum(part[what] for part in parts) for what in parts[0]} == {"joined": 12, "counted": 12, "encoded": 12}
    assert max(part["joined"] for part in parts) < 12
    assert home.digests() == built.digests()
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}


def test_a_bucket_leaves_what_changed_in_the_others(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path)
    runs = [run for run in feature_increments(home.tables).load() if "s7-" in run]
    Retirements(home.home).retire(runs[:2], "a test", "me", 1)
    home.tables.write("operations.retired", Retirements(home.home).rows())
    ours = {bucket_of(runs[0])}
    home.rebuild(ours)
    left = feature_increments(home.tables).load()
    assert runs[0] not in left and (runs[1] in left) is (bucket_of(runs[1]) not in ours)
    home.rebuild()
    assert runs[1] not in feature_increments(home.tables).load()


def test_one_more_run_touches_no_other_and_ends_as_one_go(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "more")
    put(home.root, "second", range(12, 14))
    home.ingest()
    assert home.rebuild() == {"joined": 2, "counted": 2, "encoded": 2}
    fresh = Home(tmp_path / "fresh")
    put(fresh.root, "all", range(14))
    fresh.ingest()
    fresh.registries = load(home.home / "registries")  # indices depend on the order of refreshes, all else does not
    fresh.rebuild()
    assert fresh.digests() == home.digests()


def test_batches_of_any_size_give_the_same_bytes(built: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (feature_assets, coverage_assets):
        monkeypatch.setattr(module, "BATCH_ROWS", 500)
    home = copied(built, tmp_path / "batches")
    for name in (*FEATURE_TABLES, *COVERAGE_TABLES):
        home.tables.remove(name)
    assert home.rebuild()["joined"] == 12
    assert home.digests() == built.digests()


def test_a_refit_of_norms_rewrites_no_shard(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "refit")
    priors = {name: prior.model_copy(update={"mean": prior.mean + 1}) for name, prior in DEFAULT_PRIORS.items()}
    publish(home.home, replace(Norms.default(), priors=priors))
    assert home.rebuild()["encoded"] == 0
    assert home.digests() == built.digests()


def test_a_new_registry_key_encodes_exactly_the_runs_that_hold_it(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "key")
    whole = load(home.home / "registries")
    rows = home.tables.read("features.layer", columns=["training_run_id", "activation_type"]).to_pylist()
    holders = {
        kind: {r["training_run_id"] for r in rows if r["activation_type"] == kind} for kind in whole["activation_type"].entries
    }
    key = next(kind for kind, runs in sorted(holders.items()) if 0 < len(runs) < 12)
    registry = whole["activation_type"]
    entries = {name: index for name, index in registry.entries.items() if name != key}
    less = Registry(registry.spec, entries, registry.version, registry_digest(entries))
    home.registries = Registries({**whole, "activation_type": less})
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": len(holders[key])}
    home.registries = whole
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": len(holders[key])}
    assert home.digests() == built.digests()


def test_a_damaged_shard_is_encoded_again(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "damaged")
    shard = GraphDataset.open(home.home).shards[0]
    (shard.directory / "header.json").write_text("{}")
    (shard.directory.parent / ".killed.tmp").mkdir()
    put(home.root, "second", range(12, 13))  # one run more is stale beside those of the damaged shard
    home.ingest()
    found = home.rebuild()
    assert found["joined"] == 1 and found["encoded"] in (len(shard.run_ids), len(shard.run_ids) + 1)
    assert len(GraphDataset.open(home.home, verify=True)) > len(GraphDataset.open(built.home))
    assert not (shard.directory.parent / ".killed.tmp").exists()
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}


def test_a_shard_of_the_same_content_takes_the_place_of_a_damaged_one(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "same")
    shard = GraphDataset.open(home.home).shards[0]
    (shard.directory / "header.json").write_text("{}")
    assert home.rebuild()["encoded"] == len(shard.run_ids)
    assert home.digests() == built.digests()
    assert len(GraphDataset.open(home.home, verify=True)) == len(GraphDataset.open(built.home))


def test_a_run_that_is_gone_leaves_every_table_and_shard(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "gone")
    run = GraphDataset.open(home.home).shards[0].run_ids[0]
    states = home.tables.read("tolaria.system_state")
    home.tables.write("tolaria.system_state", states.slice(0, 0), runs=[run])
    assert home.rebuild() == {"joined": 0, "counted": 0, "encoded": 0}
    for name in (*FEATURE_TABLES, *COVERAGE_TABLES):
        assert run not in home.tables.read(name, columns=["training_run_id"]).column(0).to_pylist(), name
    assert run not in GraphDataset.open(home.home).keys.column("training_run_id").to_pylist()


def test_a_home_of_an_earlier_layout_is_built_again_and_says_so(built: Home, tmp_path: Path) -> None:
    home = copied(built, tmp_path / "old")
    (home.home / "layout.json").unlink()
    old = home.tables.read("features.layer").drop_columns(["ordinal", "placeholder"])
    home.tables.remove("features.layer")
    write_deltalake(home.tables.path("features.layer"), old)
    (home.home / "graphs" / ("a" * 64)).mkdir()
    registries = {path.name: path.read_bytes() for path in (home.home / "registries").glob("*.json")}
    report = Ingest(home.home, Exports(home.root / "exports"), home.tables).refresh()
    assert "layout of an earlier version" in report.rebuilt["home"]
    assert not home.tables.exists("features.layer")
    assert home.rebuild()["joined"] == 12
    assert home.digests() == built.digests()
    assert registries == {path.name: path.read_bytes() for path in (home.home / "registries").glob("*.json")}
    assert not (home.home / "graphs" / ("a" * 64)).exists()
    assert Ingest(home.home, Exports(home.root / "exports"), home.tables).refresh().rebuilt == {}


def job_in_processes() -> dg.JobDefinition:
    """Up to the graphs, each step in a process of its own; where comes from the environment."""
    definitions = build_definitions()
    selection = dg.AssetSelection.assets(DATASET, *(key_of(name) for name in COVERAGE_TABLES)).upstream()
    job = dg.define_asset_job("in_processes", selection, executor_def=dg.multiprocess_executor)
    resolved = dg.Definitions(assets=definitions.assets, jobs=[job], resources=definitions.resources)
    return resolved.resolve_job_def("in_processes")


def test_a_process_each_step_gives_the_same_digests(built: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "first", range(12))
    monkeypatch.setenv("TAMIYO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TAMIYO_EXPORTS", str(tmp_path / "exports"))
    config = {"execution": {"config": {"max_concurrent": 1}}}
    with open_instance(tmp_path / "dagster") as instance:
        done = dg.execute_job(dg.reconstructable(job_in_processes), instance, run_config=config, raise_on_error=False)
        assert done.success
    assert Home(tmp_path).digests() == built.digests()
    assert json.loads((tmp_path / "home" / "graphs" / "current.json").read_text()) == current_shards(built.home)
