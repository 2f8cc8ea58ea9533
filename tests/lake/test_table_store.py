"""The table store: atomic writes, versions, typed empties, transactions, damage that names its file."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest

from lake.store.table_store import ABSENT, TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.errors import StorageError

SCHEMA = pa.schema([("training_run_id", pa.string()), ("value", pa.int64()), ("metrics", pa.map_(pa.string(), pa.float32()))])


def rows(run: str, *values: int) -> pa.Table:
    return pa.table(
        {"training_run_id": [run] * len(values), "value": list(values), "metrics": [[("loss", 0.5)]] * len(values)},
        schema=SCHEMA,
    )


def values(store: TableStore, **how: object) -> list[int]:
    return sorted(store.read("features.numbers", **how).column("value").to_pylist())


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path)


def test_a_contract_table_that_was_never_written_is_typed_and_empty(store: TableStore) -> None:
    read = store.read("tolaria.system_state")
    assert read.num_rows == 0
    assert read.schema == TABLES["tolaria.system_state"].arrow_schema
    assert store.version("tolaria.system_state") is None
    assert store.count("tolaria.system_state") == 0


def test_an_undeclared_table_that_was_never_written_is_an_error_that_names_it(store: TableStore) -> None:
    with pytest.raises(StorageError, match=r"features\.numbers"):
        store.read("features.numbers")


@pytest.mark.parametrize("name", ["layer", "../x.y", "a.b.c", "A.b", ""])
def test_other_names_are_refused(store: TableStore, name: str) -> None:
    with pytest.raises(StorageError):
        store.read(name)


def test_only_the_runs_named_are_replaced_and_old_versions_stay_readable(store: TableStore) -> None:
    first = store.write("features.numbers", pa.concat_tables([rows("a", 1, 2), rows("b'; --", 3)]))
    second = store.write("features.numbers", rows("b'; --", 4, 5), runs=["b'; --"])
    assert values(store) == [1, 2, 4, 5]
    assert values(store, version=first) == [1, 2, 3]
    assert values(store, runs=["b'; --"]) == [4, 5]
    assert store.versions() == {"features.numbers": second}
    assert store.read("features.numbers").schema == SCHEMA


def test_a_run_without_rows_any_more_is_emptied(store: TableStore) -> None:
    store.write("features.numbers", pa.concat_tables([rows("a", 1), rows("b", 2)]))
    store.write("features.numbers", rows("a"), runs=["a"])
    assert values(store) == [2]


def test_transactions_and_metadata_are_part_of_the_commit(store: TableStore) -> None:
    store.write("features.numbers", rows("a", 1), transactions={"export": 3}, metadata={"tamiyo.digest": "d"})
    assert store.transaction("features.numbers", "export") == 3
    assert store.transaction("features.numbers", "other") is None
    assert store.metadata("features.numbers")["tamiyo.digest"] == "d"
    store.write("features.numbers", rows("a", 1), append=True)
    assert store.transaction("features.numbers", "export") == 3


def test_a_stream_is_written_as_one_commit(store: TableStore) -> None:
    batches = pa.RecordBatchReader.from_batches(SCHEMA, (b for n in range(5) for b in rows("a", n).to_batches()))
    assert store.write("features.numbers", batches, runs=["a"]) == 0
    assert values(store) == [0, 1, 2, 3, 4]


def test_a_column_that_came_later_is_null_in_older_versions(store: TableStore) -> None:
    store.write("tolaria.layer_telemetry", pa.table({"training_run_id": ["a"], "layer_id": ["x"]}))
    read = store.read("tolaria.layer_telemetry", columns=["layer_id", "loss"])
    assert read.to_pydict() == {"layer_id": ["x"], "loss": [None]}


def test_damage_is_an_error_that_names_the_table(store: TableStore) -> None:
    store.write("features.numbers", rows("a", 1))
    (file,) = store.files("features.numbers")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StorageError, match=r"features/numbers.*doctor"):
        store.read("features.numbers")


def commits(home: str, run: int) -> int:
    """Five commits of one run, in a process of its own."""
    store = TableStore(Path(home))
    return max(store.write("features.numbers", rows(f"r{run}", number), runs=[f"r{run}"]) for number in range(5))


def test_processes_commit_at_once_from_the_first_commit_on(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(commits, [str(tmp_path)] * 3, range(3)))
    assert values(TableStore(tmp_path)) == [4, 4, 4]
    assert TableStore(tmp_path).version("features.numbers") == 14


def test_a_pinned_set_stays_while_others_commit(store: TableStore) -> None:
    store.write("features.numbers", rows("a", 1))
    pinned = store.at({"features.numbers": 0, "tolaria.system_state": ABSENT})
    store.write("features.numbers", rows("a", 2))
    store.write("tolaria.system_state", TABLES["tolaria.system_state"].empty())
    assert values(pinned) == [1]
    assert (pinned.version("features.numbers"), store.version("features.numbers")) == (0, 1)
    assert pinned.version("tolaria.system_state") is None
    assert pinned.read("tolaria.system_state").num_rows == 0
    with pytest.raises(StorageError, match="pinned"):
        pinned.write("features.numbers", rows("a", 3))


def test_a_table_that_is_built_again_is_not_taken_for_the_old_one(store: TableStore) -> None:
    versions = Versions(store.home, store)
    store.write("features.numbers", rows("a", 1))
    first = versions.of("features.numbers").digest
    store.remove("features.numbers")
    store.write("features.numbers", rows("a", 2))
    assert store.version("features.numbers") == 0
    assert versions.of("features.numbers").digest != first


def test_digests_of_a_pinned_set_do_not_see_later_commits(store: TableStore) -> None:
    versions = Versions(store.home, store)
    name = "tamiyo.command"
    before = versions.at({})
    schema = TABLES[name].arrow_schema
    first = store.write(name, pa.Table.from_pylist([{"command_id": "a"}], schema))
    pinned = versions.at({name: first})
    store.write(name, pa.Table.from_pylist([{"command_id": "b"}], schema))
    assert versions.at({name: first}) == pinned
    assert versions.at({}) == before
    assert len({digests[name] for digests in (before, pinned, versions.at(store.versions()))}) == 3


def test_batches_of_some_runs_leave_no_row_of_theirs_out(store: TableStore) -> None:
    names = ["a", "b", "run-" + "x" * 100 + "1", "run-" + "x" * 100 + "2", "\u00e9", "z'"]
    for number, name in enumerate(names):
        store.write("features.numbers", rows(name, number), append=True)
    store.write("features.numbers", pa.concat_tables([rows("b", 100), rows("z'", 101)]), append=True)
    for wanted in ([name] for name in names):
        found = pa.Table.from_batches(list(store.batches("features.numbers", runs=wanted)), schema=SCHEMA)
        assert sorted(found.column("value").to_pylist()) == values(store, runs=wanted)
    assert list(store.batches("features.numbers", runs=["m"])) == []
    assert list(store.batches("features.numbers", runs=[])) == []
    assert values(store, runs=[]) == []
    assert sum(batch.num_rows for batch in store.batches("features.numbers", columns=["value"])) == 8
