"""Rules of kept rows: each can be broken, and says by which rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.rules import broken_rules, judge, references
from lake.store.table_store import TableStore
from schemas.contracts import TABLES, Severity

SHEET = {"blueprint_id": "b", "issued_at_ns": 1, "source": "bsds", "risk_score": 0.3, "hazard_band": "LOW"}
SEED = {"training_run_id": "r", "seed_id": "s", "timestamp_ns": 1, "source": "export", "stage": "TRAINING", "blueprint_id": "b"}

KNOWN = {("urza.blueprint", "blueprint_id"): ["b"], ("tamiyo.command", "command_id"): ["c"]}
STATE = {"training_run_id": "r", "packet_id": "p", "timestamp_ns": 1, "blueprint_id": "b", "is_completion": False}
REPORT = {"training_run_id": "r", "report_id": "x", "issued_at_ns": 1, "blueprint_id": "b", "command_id": "c"}
COMMAND = {"command_id": "c", "seed_operation_blueprint_id": "b", "command_type": "SEED"}
KERNEL = {"blueprint_id": "b", "source": "update", "status": "COMPILED"}


def rows(table: str, *values: dict[str, object]) -> pa.Table:
    schema = TABLES[table].arrow_schema
    return pa.Table.from_pylist([{name: value.get(name) for name in schema.names} for value in values], schema=schema)


def broken(table: str, *values: dict[str, object]) -> dict[str, tuple[Severity, int]]:
    found = broken_rules(TABLES[table], rows(table, *values), KNOWN)
    return {rule.rule.split(" ", 1)[1].split()[0]: (rule.severity, rule.cases) for rule in found}


def test_sound_rows_break_nothing() -> None:
    assert broken("urabrask.bsds", SHEET) == {}
    assert broken("kasmina.seed_state", SEED, SEED | {"timestamp_ns": 2, "blueprint_id": None}) == {}
    assert broken("urabrask.bsds") == {}
    sound = {"tolaria.system_state": STATE, "tamiyo.field_report": REPORT, "tamiyo.command": COMMAND, "tezzeret.kernel": KERNEL}
    for name, row in sound.items():
        assert broken(name, row) == {}


@pytest.mark.parametrize(
    ("table", "row", "rule", "severity"),
    [
        ("urabrask.bsds", SHEET | {"risk_score": 0.9}, "band_agrees_with_score", Severity.WARN),
        ("urabrask.bsds", SHEET | {"hazard_band": "CRITICAL"}, "band_agrees_with_score", Severity.WARN),
        ("urabrask.bsds", SHEET | {"hazard_band": "9"}, "hazard_band_known", Severity.WARN),
        ("urabrask.bsds", SHEET | {"blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
        ("kasmina.seed_state", SEED | {"blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
        ("kasmina.seed_state", SEED | {"stage": "77"}, "stage_known", Severity.WARN),
        ("tolaria.system_state", STATE | {"blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
        ("tamiyo.field_report", REPORT | {"blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
        ("tamiyo.field_report", REPORT | {"command_id": "stranger"}, "command_known", Severity.WARN),
        ("tamiyo.command", COMMAND | {"seed_operation_blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
        ("tezzeret.kernel", KERNEL | {"blueprint_id": "stranger"}, "blueprint_known", Severity.WARN),
    ],
)
def test_a_broken_rule_is_named_with_its_severity(table: str, row: dict[str, object], rule: str, severity: Severity) -> None:
    assert broken(table, row) == {rule: (severity, 1)}


def test_what_the_decoder_should_have_rejected_is_an_error() -> None:
    errors = broken_rules(TABLES["urabrask.bsds"], rows("urabrask.bsds", SHEET | {"risk_score": 1.5}), KNOWN)
    assert errors[0].severity is Severity.ERROR and "risk_score" in errors[0].rule
    assert any(
        rule.severity is Severity.ERROR
        for rule in broken_rules(TABLES["urabrask.bsds"], rows("urabrask.bsds", SHEET, SHEET), KNOWN)
    )


def test_the_text_names_examples() -> None:
    (rule,) = broken_rules(TABLES["urabrask.bsds"], rows("urabrask.bsds", SHEET | {"blueprint_id": "stranger"}), KNOWN)
    assert "stranger" in rule.text and "1 rows" in rule.text


def test_every_referential_and_band_rule_names_columns_that_exist() -> None:
    for table in TABLES.values():
        for rule in table.warnings:
            assert set(rule.columns) <= set(table.names)
            assert rule.refers is not None or rule.bands
    assert references(TABLES.values()) == set(KNOWN)
    assert all(column in TABLES[name].names for name, column in references(TABLES.values()))


def test_all_offending_ids_are_listed_and_a_band_names_its_sheets() -> None:
    strangers = [SHEET | {"blueprint_id": f"s{n}", "risk_score": 0.9} for n in range(9)]
    found = {
        rule.rule.split()[1]: rule for rule in broken_rules(TABLES["urabrask.bsds"], rows("urabrask.bsds", *strangers), KNOWN)
    }
    assert found["blueprint_known"].examples == found["band_agrees_with_score"].examples == tuple(f"s{n}" for n in range(9))


def test_files_are_judged_once_and_again_where_other_ids_may_change_what_they_break(tmp_path: Path) -> None:
    class Counted(TableStore):
        """Tables that note which files are read."""

        def read(self, name: str, **how: Any) -> pa.Table:
            reads.append(len(how.get("files") or ()))
            return super().read(name, **how)

    reads: list[int] = []
    tables, sheets = Counted(tmp_path), TABLES["urabrask.bsds"]
    tables.write(sheets.name, rows(sheets.name, SHEET))
    tables.write(sheets.name, rows(sheets.name, SHEET | {"blueprint_id": "later"}), append=True)
    (unknown,) = judge(tables, sheets, KNOWN)
    assert (unknown.cases, unknown.examples, reads) == (1, ("later",), [1, 1])
    assert judge(tables, sheets, KNOWN) == [unknown] and len(reads) == 2
    tables.write(sheets.name, rows(sheets.name, SHEET | {"issued_at_ns": 2, "hazard_band": "9"}), append=True)
    assert {rule.cases for rule in judge(tables, sheets, KNOWN)} == {1} and len(reads) == 3
    grown = KNOWN | {("urza.blueprint", "blueprint_id"): ["b", "later"]}
    (band,) = judge(tables, sheets, grown)
    assert "hazard_band_known" in band.rule and len(reads) == 4, "the file with the unknown blueprint alone is read again"
    gone = KNOWN | {("urza.blueprint", "blueprint_id"): ["later"]}
    assert {rule.cases for rule in judge(tables, sheets, gone)} == {1, 2}
    (tmp_path / "digests" / "urabrask.bsds.rules.json").write_text("{")
    assert judge(tables, sheets, grown) == [band]
