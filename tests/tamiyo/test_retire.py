"""`tamiyo retire`: what it records, refuses and shows."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from lake.retirement import RETIREMENTS, TABLE, Retirements
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from tamiyo.cli import app
from tamiyo.doctor import examine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which two runs sent a packet, one of them with coverage."""
    monkeypatch.setenv("TAMIYO_EXPORTS", str(tmp_path / "exports"))
    tables = TableStore(tmp_path, DERIVED)
    states = [{"training_run_id": run, "packet_id": "p", "timestamp_ns": 1} for run in ("run-7", "run-8")]
    tables.write("tolaria.system_state", pa.Table.from_pylist(states, schema=TABLES["tolaria.system_state"].arrow_schema))
    key = {"training_run_id": "run-8", "key": "layer.loss", "family": "node.layer", "system": "tolaria", "mandatory": True}
    rows = [key | {"measured": 1, "elements": 1, "ratio": 1.0}]
    tables.write("coverage.by_key", pa.Table.from_pylist(rows, schema=DERIVED["coverage.by_key"]))
    return tmp_path


def tamiyo(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home)])


def test_a_run_is_retired_listed_and_taken_back(home: Path) -> None:
    assert "No training run is retired" in tamiyo(home, "retire").output
    done = tamiyo(home, "retire", "run-7", "--reason", "no losses")
    assert done.exit_code == 0
    assert "run-7: retired" in done.output and "next rebuild applies it" in done.output
    (one,) = json.loads(tamiyo(home, "retire", "--json").output)["retired"]
    assert (one["training_run_id"], one["reason"], one["applied"]) == ("run-7", "no losses", False)
    assert one["by"] and one["retired_at_ns"] > 0
    again = json.loads(tamiyo(home, "retire", "run-7", "run-8", "--reason", "no losses", "--json").output)
    assert (again["changed"], again["unchanged"]) == (["run-8"], ["run-7"])
    Versions(home, TableStore(home, DERIVED)).write(TABLE, Retirements(home).rows())
    assert "by the next rebuild" not in tamiyo(home, "retire").output
    back = tamiyo(home, "retire", "run-7", "--undo")
    assert (back.exit_code, "run-7: taken back in" in back.output) == (0, True)
    nothing = tamiyo(home, "retire", "run-7", "--undo")
    assert (nothing.exit_code, "Nothing changed." in nothing.output) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run-9", "run-7", "--reason", "x"], "near: run-8, run-7"),
        (["run-7"], "--reason: expected why"),
        (["run-7", "--reason", "  "], "--reason: expected why"),
        (["--reason", "x"], "RUN: expected"),
        (["--undo"], "RUN: expected"),
        (["nothing-like-it", "--undo"], "found none. Nothing was changed"),
    ],
)
def test_what_can_not_be_done_is_status_2_and_changes_nothing(home: Path, arguments: list[str], told: str) -> None:
    found = tamiyo(home, "retire", *arguments)
    assert found.exit_code == 2
    assert told in found.output
    assert not (home / RETIREMENTS).exists()


def test_coverage_says_what_is_left_out(home: Path) -> None:
    assert json.loads(tamiyo(home, "coverage", "--json").output)["retired"] == []
    tamiyo(home, "retire", "run-7", "--reason", "no losses")
    assert "1 retired training run is left out" in tamiyo(home, "coverage").output
    assert json.loads(tamiyo(home, "coverage", "--json").output)["retired"][0]["training_run_id"] == "run-7"
    missing = tamiyo(home, "coverage", "--run", "run-7")
    assert (missing.exit_code, "found it retired: no losses" in missing.output) == (1, True)


def test_the_doctor_finds_a_damaged_journal_and_leaves_it(home: Path) -> None:
    tamiyo(home, "retire", "run-7", "--reason", "no losses")
    assert not [one for one in examine(home) if RETIREMENTS in one.part]
    (home / RETIREMENTS).open("a").write("damage\n")
    (found,) = (one for one in examine(home, repair=True) if RETIREMENTS in one.part)
    assert (found.repaired, "line 2" in found.problem) == (None, True)
    assert tamiyo(home, "retire").exit_code == 1
