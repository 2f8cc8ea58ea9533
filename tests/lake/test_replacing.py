"""Replacing the rows of training runs: whatever their number, the rows of all others stay, in one commit."""

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

import lake.store.replacing as replacing_module
import lake.store.table_store as store_module
from lake.store.table_store import TableStore
from schemas.buckets import bucket_of

NUMBERS = "features.numbers"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path)


def numbered(runs: Sequence[str], value: int) -> pa.Table:
    return pa.table({"training_run_id": pa.array(runs, pa.string()), "value": pa.array([value] * len(runs), pa.int64())})


def values(store: TableStore) -> dict[str | None, list[int]]:
    found: dict[str | None, list[int]] = {}
    for row in store.read(NUMBERS).to_pylist():
        found.setdefault(row["training_run_id"], []).append(row["value"])
    return found


def test_more_runs_than_a_condition_may_name_are_replaced(store: TableStore) -> None:
    """A condition that named all of them overflowed the stack of the library, which ended the process."""
    runs = [f"run-{number:06d}" for number in range(40_000)]
    store.write(NUMBERS, numbered(runs, 1))
    assert store.write(NUMBERS, numbered(runs[:35_000], 2), runs=runs[:35_000]) == 1
    assert values(store) == {run: [2 if number < 35_000 else 1] for number, run in enumerate(runs)}


@pytest.mark.parametrize("bucketed", [True, False])
def test_many_runs_are_replaced_as_few_are(store: TableStore, monkeypatch: pytest.MonkeyPatch, *, bucketed: bool) -> None:
    monkeypatch.setattr(replacing_module, "MOST_NAMED", 3)
    monkeypatch.setattr(store_module, "MOST_NAMED", 3)
    monkeypatch.setattr(store_module, "BUCKETED", frozenset({"features"}) if bucketed else frozenset())
    chance = random.Random(5)
    names = [f"run {letter}'" for letter in "abcdefghijklmnop"]
    expected: dict[str, list[int]] = {}
    for step in range(30):
        chosen = chance.sample(names, chance.randint(1, len(names)))
        written = chance.sample(chosen, chance.randint(0, len(chosen)))
        store.write(NUMBERS, numbered(written, step), runs=chosen)
        expected = {run: found for run, found in expected.items() if run not in chosen} | {run: [step] for run in written}
        assert values(store) == expected
        assert store.is_bucketed(NUMBERS) is bucketed
    assert store.version(NUMBERS) == 29


def test_many_runs_keep_columns_of_others_and_rows_of_no_run(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing_module, "MOST_NAMED", 1)
    monkeypatch.setattr(store_module, "MOST_NAMED", 1)
    rows = numbered(["a", "b", "c"], 1)
    store.write(NUMBERS, rows.append_column("more", pa.array(["x", "y", "z"])))
    store.write(NUMBERS, pa.table({"training_run_id": pa.array([None], pa.string()), "value": [0]}), append=True)
    store.write(NUMBERS, numbered(["a", "b"], 2).to_reader(), runs=["a", "b"])
    found = sorted(store.read(NUMBERS).to_pylist(), key=lambda row: str(row["training_run_id"]))
    assert [tuple(row.values()) for row in found] == [(None, 0, None), ("a", 2, None), ("b", 2, None), ("c", 1, "z")]


def test_runs_between_the_replaced_ones_stay_in_their_files_if_none_of_their_bucket_is_replaced(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing_module, "MOST_NAMED", 1)
    monkeypatch.setattr(store_module, "MOST_NAMED", 1)
    runs = [f"run-{number:03d}" for number in range(200)]
    store.write(NUMBERS, numbered(runs, 1))
    chosen = sorted(run for run in runs if bucket_of(run) == 3)[1:-1]
    files = set(store.files(NUMBERS))
    store.write(NUMBERS, numbered(chosen, 2), runs=chosen)
    assert {file.parent.name for file in files - set(store.files(NUMBERS))} == {"run_bucket=3"}
    assert values(store) == {run: [2 if run in chosen else 1] for run in runs}
