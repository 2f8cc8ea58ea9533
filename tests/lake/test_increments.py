"""What one more export costs does not depend on what is stored: tables opened, files hashed, files written, runs digested."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import lake.store.storage_format as layout_module
import lake.store.versions as versions_module
from lake.exports.pending import targets_of
from lake.store.commit_log import newest_version
from lake.store.increments import batches_of, by_bucket
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from lake.upkeep import SMALL_FILES, maintain
from schemas.buckets import bucket_of
from schemas.contracts import FOLDERS, TABLES
from schemas.digest import part_digests
from schemas.errors import StorageError
from tests.lake.test_ingest import Site, packet

FOLDER = "tolaria/system_state"
STATES = "tolaria.system_state"
SCHEMA = TABLES[STATES].arrow_schema


def states(run: str, *steps: int, loss: float = 0.5) -> pa.Table:
    found = [
        {"training_run_id": run, "packet_id": f"p{step}", "timestamp_ns": step, "training_loss": loss, "is_completion": False}
        for step in steps
    ]
    return pa.Table.from_pylist([row | {"export_digest": "d", "position": 0} for row in found], SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path)


class Opened:
    """Counts the tables that are opened while it is in place of `DeltaTable`."""

    def __init__(self) -> None:
        self.tables: Counter[str] = Counter()

    def __call__(self, path: Path, **how: object) -> DeltaTable:
        self.tables[f"{path.parent.name}.{path.name}"] += 1
        return OPEN(path, **how)  # type: ignore[arg-type]


OPEN = DeltaTable


def one_more(tmp_path: Path, runs: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], dict[str, int]]:
    """Tables opened, and files that came and went by table, when an export is added to a store of some runs."""
    site = Site(tmp_path / f"{kind}-{runs}")
    for number in range(runs):
        site.put(f"{FOLDER}/{number}.ndjson", packet(f"r{number:03d}", 1), packet(f"r{number:03d}", 2))
        site.ingest.refresh()
    before = {name: set(site.tables.files(name)) for name in site.tables.names()}
    digests = Versions(site.home, site.tables).of(STATES).runs
    run, steps = {"new run": ("x", (1,)), "later packets": ("r000", (3,)), "delivered again": ("r000", (2, 3))}[kind]
    site.put(f"{FOLDER}/more.ndjson", *(packet(run, step, training_loss=0.25) for step in steps))
    opened = Opened()
    with monkeypatch.context() as patch:
        patch.setattr("deltalake.DeltaTable", opened)
        site.ingest.refresh()
    assert site.balanced()
    after = Versions(site.home, site.tables).of(STATES).runs
    assert {one for one in after if after[one] != digests.get(one)} == {run}
    return opened.tables, {name: len(before[name] ^ set(site.tables.files(name))) for name in before}


@pytest.mark.parametrize("kind", ["new run", "later packets", "delivered again"])
def test_as_many_tables_are_opened_and_files_written_whatever_is_stored(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (one_more(tmp_path, runs, kind, monkeypatch) for runs in (2, 12))
    assert few == many
    opened, files = few
    assert opened == dict.fromkeys(targets_of(FOLDERS[FOLDER]), 1)
    assert 0 < sum(files.values()) <= 9


def test_a_refresh_with_nothing_new_opens_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.put(f"{FOLDER}/a.ndjson", packet("a", 1))
    site.ingest.refresh()
    opened = Opened()
    monkeypatch.setattr("deltalake.DeltaTable", opened)
    assert not site.ingest.refresh().wrote
    assert not opened.tables


def test_replacing_a_run_leaves_most_files_of_others(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "SMALLEST", 1 << 16)
    store.write(STATES, pa.concat_tables([states(f"r{run:02d}", *range(2000)) for run in range(40)]))
    before = set(store.files(STATES))
    assert 5 < len(before) < 40
    store.write(STATES, states("r07", 1, 2, loss=0.25), runs=["r07"])
    assert len(before - set(store.files(STATES))) <= 2
    assert store.count(STATES) == 39 * 2000 + 2
    by_file = store.runs_by_file(STATES)
    assert sorted({run for runs in by_file.values() for run in runs if run}) == [f"r{run:02d}" for run in range(40)]


def test_a_held_table_follows_its_own_commits_and_finds_compaction(store: TableStore) -> None:
    for number in range(SMALL_FILES):
        store.write(STATES, states(f"r{number:02d}", 1), append=True)
    held = store.held()
    assert held.count(STATES) == SMALL_FILES
    (done,) = maintain(store)
    in_bucket = Counter(bucket_of(f"r{number:02d}") for number in range(SMALL_FILES))
    assert done.merged == sum(files for files in in_bucket.values() if files > 1)
    assert (held.version(STATES), store.version(STATES)) == (SMALL_FILES - 1, SMALL_FILES)
    held.renew(STATES)
    held.write(STATES, states("r03", 1, 2), runs=["r03"], transactions={"seen": 7})
    assert held.count(STATES) == store.count(STATES) == SMALL_FILES + 1
    assert held.transaction(STATES, "seen") == store.transaction(STATES, "seen") == 7


def test_pinned_tables_can_not_be_held(store: TableStore) -> None:
    with pytest.raises(StorageError, match="pinned"):
        store.at({}).held()


def test_transactions_are_those_of_the_newest_commit_that_has_them(store: TableStore) -> None:
    store.write(STATES, states("a", 1), transactions={"one": 1, "two": 1})
    store.write(STATES, states("a", 2), append=True, transactions={"two": 2})
    for number in range(12):
        store.write(STATES, states("a", 3 + number), append=True)
    assert store.transactions(STATES, ["one", "two", "three"]) == [1, 2, None]
    pinned = store.at({STATES: 0})
    assert pinned.transactions(STATES, ["one", "two"]) == [1, 1]
    newest = sorted((store.path(STATES) / "_delta_log").glob("*.json"))[-1]
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.raises(StorageError, match="doctor"):
        store.transaction(STATES, "one")


def test_digests_of_what_changed_are_those_of_the_whole_table(store: TableStore, tmp_path: Path) -> None:
    chance = random.Random(1)
    versions = Versions(store.home, store)
    for number in range(30):
        names = chance.sample("abcdef", chance.randint(1, 3))
        rows = pa.concat_tables([states(name, *chance.sample(range(9), chance.randint(0, 4)), loss=number) for name in names])
        kind = chance.choice(["append", "replace", "replace", "nothing", "whole", "compact"])
        if kind == "compact":
            OPEN(store.path(STATES)).optimize.compact()
        elif kind == "nothing":
            store.write(STATES, SCHEMA.empty_table(), append=True)
        else:
            store.write(STATES, rows, runs=names if kind == "replace" else None, append=kind == "append")
        if chance.random() < 0.7:
            assert versions.of(STATES) == Versions(tmp_path / f"fresh-{number}", store).of(STATES)


def test_only_the_runs_that_a_commit_touched_are_digested(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in "abcd":
        store.write(STATES, states(run, 1, 2), append=True)
    versions = Versions(store.home, store)
    before = versions.of(STATES)
    store.write(STATES, states("b", 1), runs=["b"])
    digested: list[str] = []

    def spied(*given: Any) -> dict[str, tuple[str, int]]:
        found = part_digests(*given)
        digested.extend(found)
        return found

    monkeypatch.setattr(versions_module, "part_digests", spied)
    after = versions.of(STATES)
    assert digested == ["b"]
    assert {run for run in after.runs if after.runs[run] != before.runs[run]} == {"b"}


def test_a_derived_table_that_gets_rows_of_no_run_is_digested_whole(store: TableStore, tmp_path: Path) -> None:
    schema = pa.schema([("training_run_id", pa.string()), ("value", pa.int64())])
    versions = Versions(store.home, store)
    store.write("features.numbers", pa.table({"training_run_id": ["a", "b"], "value": [1, 2]}, schema=schema))
    assert set(versions.of("features.numbers").runs) == {"a", "b"}
    store.write("features.numbers", pa.table({"training_run_id": ["a", None], "value": [3, 4]}, schema=schema), append=True)
    found = versions.of("features.numbers")
    assert found == Versions(tmp_path / "fresh", store).of("features.numbers")
    assert (found.rows, dict(found.runs)) == (4, {})


def test_a_table_that_gets_a_column_is_digested_whole(store: TableStore, tmp_path: Path) -> None:
    versions = Versions(store.home, store)
    for run in "ab":
        store.write("features.numbers", pa.table({"training_run_id": [run], "value": [1]}), append=True)
    old = versions.of("features.numbers").run("a")
    store.write("features.numbers", pa.table({"training_run_id": ["b"], "value": [3], "more": [4]}), runs=["b"])
    found = versions.of("features.numbers")
    assert found == Versions(tmp_path / "fresh", store).of("features.numbers")
    assert found.run("a") != old


def test_the_newest_version_is_known_without_opening(store: TableStore) -> None:
    path = store.path(STATES)
    assert newest_version(path) is None
    for number in range(23):
        store.write(STATES, states("a", number), append=True)
        assert newest_version(path) == OPEN(path).version() == number
    for old in range(19):
        (path / "_delta_log" / f"{old:020d}.json").unlink()
    assert newest_version(path) == 22
    for late in range(19, 23):
        (path / "_delta_log" / f"{late:020d}.json").unlink()
    assert newest_version(path) is None
    assert store.version(STATES) == 19  # that of the checkpoint


def test_the_log_of_a_table_holds_statistics_of_the_training_run_alone(store: TableStore) -> None:
    store.write(STATES, pa.concat_tables([states("b", 1), states("a", 1)]))
    store.write("telemetry.metric", TABLES["telemetry.metric"].empty())
    store.write(
        "telemetry.metric", pa.Table.from_pylist([{"packet_id": "p", "index": 0}], TABLES["telemetry.metric"].arrow_schema)
    )
    names = {name: pa.table(OPEN(store.path(name)).get_add_actions(flatten=True)) for name in (STATES, "telemetry.metric")}
    kept = {name: sorted(c for c in found.schema.names if c.startswith(("min.", "max."))) for name, found in names.items()}
    assert kept == {STATES: ["max.training_run_id", "min.training_run_id"], "telemetry.metric": []}
    assert names[STATES].column("num_records").to_pylist() == [2]


def test_batches_of_runs_by_bucket_touch_few_buckets() -> None:
    runs = [f"run-{number}" for number in range(200)]
    ordered = by_bucket(runs)
    assert sorted(ordered) == sorted(runs)
    buckets = [[bucket_of(run) for run in batch] for batch in batches_of(ordered, dict.fromkeys(runs, 1), 20)]
    assert [bucket for batch in buckets for bucket in batch] == sorted(bucket_of(run) for run in runs)
    assert max(len(set(batch)) for batch in buckets) <= 4
