"""The declarations of derived tables: complete, consistent, and what each rule of them finds."""

import pandera.errors
import pytest

from schemas.artifacts import REGISTRIES
from schemas.contracts import TABLES
from schemas.contracts.reasons import REJECT_SCHEMA, declared_rejects
from schemas.derived.features import PACKET, feature_schema
from schemas.derived.tables import DECLARED, DERIVED
from schemas.features import GROUPS
from schemas.row_rules import breaches, pandera_schema, polars_frame, row_rules
from schemas.row_rules import wrong_columns as wrong_columns_of
from schemas.table_declaration import DeclaredTable
from tests.declared import mutations, sound_rows, wrong_columns

REJECTS = declared_rejects("rejects.tolaria_system_state")
EVERY = [*DECLARED.values(), *(table.declared for table in TABLES.values()), REJECTS]
every_table = pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)


def test_every_kind_of_derived_table_is_declared() -> None:
    assert {name.partition(".")[0] for name in DERIVED} == {
        "features",
        "coverage",
        "norms",
        "registries",
        "training",
        "telemetry",
        "operations",
    }
    assert {f"registries.{name}" for name in REGISTRIES} | {group.table for group in GROUPS} <= DERIVED.keys()
    assert DERIVED.keys() & TABLES.keys() == set()
    assert all(DERIVED[group.table].equals(feature_schema(group)) for group in GROUPS)
    assert REJECTS.arrow_schema.equals(REJECT_SCHEMA)


@every_table
def test_a_declaration_is_consistent(table: DeclaredTable) -> None:
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert table.identity and {name for key in (*table.keys, table.shown, *table.at_most) for name in key} <= set(names)
    assert [column.name for column in table.columns if not column.description] == []
    masks = {column.name: column.mask_of for column in table.columns if column.mask_of is not None}
    assert all(mask == f"{of}__mask" and table.column[of].nullable for mask, of in masks.items())
    assert len({rule.name for rule in row_rules(table)}) == len(row_rules(table))
    assert list(pandera_schema(table).columns) == table.arrow_schema.names == names


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.table)
def test_every_feature_has_a_mask_and_every_row_its_packet(group: object) -> None:
    table = DECLARED[group.table]  # type: ignore[attr-defined]
    assert [c.mask_of for c in table.columns if c.mask_of] == [f.name for f in group.features]  # type: ignore[attr-defined]
    assert table.keys[0][: len(PACKET)] == tuple(name for name, _ in PACKET)


@every_table
def test_rows_that_keep_the_declaration_pass_pandera_and_the_rules(table: DeclaredTable) -> None:
    rows = sound_rows(table)
    assert wrong_columns_of(table, rows.schema) is None
    assert breaches(table, rows) == breaches(table, rows.slice(0, 0)) == []
    pandera_schema(table).validate(polars_frame(rows), lazy=True)
    pandera_schema(table).validate(polars_frame(rows.slice(0, 0)), lazy=True)


@every_table
def test_every_rule_that_is_broken_is_named_with_its_row(table: DeclaredTable) -> None:
    said = {}
    for mutation in mutations(table):
        found = {breach.rule.name: breach for breach in breaches(table, mutation.rows)}
        if mutation.rule not in found:
            said[mutation.what] = f"found {sorted(found)}"
            continue
        breach = found[mutation.rule]
        assert breach.rows == (2 if breach.rule.key else 1), mutation.what
        assert all(name in breach.text for name in table.identity), mutation.what
        assert "expected" in breach.text and "found" in breach.text
    assert said == {}


@every_table
def test_the_pandera_schema_refuses_what_the_rules_refuse(table: DeclaredTable) -> None:
    accepted = []
    for mutation in list(mutations(table))[::3]:
        try:
            pandera_schema(table).validate(polars_frame(mutation.rows), lazy=True)
        except pandera.errors.SchemaErrors:
            continue
        accepted.append(mutation.what)
    assert accepted == []


@every_table
def test_wrong_columns_are_named(table: DeclaredTable) -> None:
    for mutation in wrong_columns(table):
        said = wrong_columns_of(table, mutation.rows.schema)
        assert said is not None and "expected" in said and mutation.rule in said


def test_rows_whose_keys_only_look_alike_are_no_copies() -> None:
    table = DECLARED["operations.versions"]
    rows = sound_rows(table).to_pylist()
    for row, (name, run) in zip(rows, [("a", "bc"), ("ab", "c"), ("a", None)], strict=True):
        row |= {"table": name, "training_run": run}
    assert breaches(table, sound_rows(table).from_pylist(rows, table.arrow_schema)) == []
