"""The journal of retirements: durable, append-only, and the same whoever reads it."""

from pathlib import Path

import pyarrow as pa
import pytest

from lake.retirement import RETIREMENTS, TABLE, Retirements, applied_digest, known_runs, retired_runs, runs_digest, without
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.errors import StorageError


def test_a_run_is_retired_once_for_a_reason_and_taken_back_once(tmp_path: Path) -> None:
    journal = Retirements(tmp_path)
    assert (journal.current(), journal.digest()) == ({}, "")
    assert journal.retire(["b", "a", "a"], "no losses", "op", 5) == ["b", "a"]
    first = journal.digest()
    assert journal.retire(["a"], "no losses", "other", 6) == []
    assert journal.digest() == first
    assert journal.retire(["a"], "no layers", "op", 7) == ["a"]
    assert journal.digest() != first
    assert [(one.training_run_id, one.reason) for one in journal.current().values()] == [("a", "no layers"), ("b", "no losses")]
    assert journal.restore(["a", "c"], "", "op", 8) == ["a"]
    assert journal.restore(["a", "b"], "", "op", 9) == ["b"]
    assert (journal.current(), journal.digest()) == ({}, "")
    assert len((tmp_path / RETIREMENTS).read_bytes().splitlines()) == 5


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"event": "retired"}',
        '{"event": "lost", "training_run_id": "a", "reason": "r", "retired_at_ns": 1, "by": "b"}',
    ],
)
def test_a_damaged_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    journal = Retirements(tmp_path)
    journal.retire(["a"], "why", "op", 1)
    (tmp_path / RETIREMENTS).open("a").write(line + "\n")
    with pytest.raises(StorageError, match=r"line 2.*retire its run again"):
        journal.current()


def test_a_torn_last_line_never_counted(tmp_path: Path) -> None:
    journal = Retirements(tmp_path)
    journal.retire(["a"], "why", "op", 1)
    with (tmp_path / RETIREMENTS).open("a") as file:
        file.write('{"event": "restored", "training_run_id": "a"')
    assert list(journal.current()) == ["a"]
    assert journal.restore(["a"], "", "op", 2) == ["a"]
    assert journal.current() == {}


def test_the_table_says_what_was_applied(tmp_path: Path) -> None:
    tables, journal = TableStore(tmp_path, DERIVED), Retirements(tmp_path)
    assert (retired_runs(tables), applied_digest(tables)) == (frozenset(), "")
    journal.retire(["a", "b"], "why", "op", 1)
    assert applied_digest(tables) != journal.digest()
    versions = Versions(tmp_path, tables)
    for _ in range(2):
        versions.write(TABLE, journal.rows())
        assert applied_digest(tables) == journal.digest()
    assert retired_runs(TableStore(tmp_path)) == {"a", "b"}
    assert tables.version(TABLE) == 0
    journal.restore(["a", "b"], "", "op", 2)
    versions.write(TABLE, journal.rows())
    assert (retired_runs(tables), applied_digest(tables)) == (frozenset(), "")


def test_the_part_of_the_build_id_names_runs_alone() -> None:
    assert runs_digest(["b", "a"]) == runs_digest(["a", "b"]) != runs_digest(["a"]) != runs_digest([])


def test_rows_of_retired_runs_are_left_out_where_rows_belong_to_runs() -> None:
    rows = pa.table({"training_run_id": ["a", "b", "a"], "x": [1, 2, 3]})
    assert without(rows, ["a"]).to_pylist() == [{"training_run_id": "b", "x": 2}]
    assert without(rows, []) is rows
    assert without(rows.select(["x"]), ["a"]).num_rows == 3


def test_runs_are_known_from_every_table_that_names_one(tmp_path: Path) -> None:
    tables = TableStore(tmp_path)
    for name, run in (("tolaria.system_state", "a"), ("kasmina.seed_state", "b"), ("tamiyo.field_report", "c")):
        tables.write(name, pa.Table.from_pylist([{"training_run_id": run}], schema=TABLES[name].arrow_schema))
    assert known_runs(tables) == {"a", "b", "c"}
