"""The declarations: what derives from them, and the lock that tells additive changes from breaking ones."""

import json
from pathlib import Path
from typing import Any

import pandera.errors
import polars as pl
import pyarrow as pa
import pytest

from schemas.contract_reference import PAGE, page
from schemas.contracts import FOLDERS, TABLES, Presence
from schemas.contracts.enums import ENUMS
from schemas.contracts.lock import Lock, check, compare, current, load, write
from schemas.contracts.models import json_schema, pandera_schema, polars_frame
from schemas.decode.read.batches import descriptor
from schemas.errors import ContractError
from tests.schemas.decoding import decode_lines

SHEET = {"blueprint_id": "b", "issued_at": "2026-01-01T00:00:00Z", "risk_score": 0.5}


def changed(**places: Any) -> Lock:
    """The current lock with values replaced, given as tables__kasmina0seed_state__key ("0" for the dot)."""
    value = json.loads(current().model_dump_json())
    for place, new in places.items():
        *path, last = (key.replace("0", ".") for key in place.split("__"))
        holder = value
        for key in path:
            holder = holder[key]
        if new is None:
            del holder[last]
        else:
            holder[last] = new
    return Lock.model_validate(value)


COLUMN = {"type": "float", "nullable": True, "presence": "explicit", "path": "x"}


def test_the_committed_lock_is_that_of_the_declarations() -> None:
    changes = check(load(), current())
    assert changes == [], "run `python -m schemas.contracts.lock` to take additive changes into the lock"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"tables__kasmina0seed_state__columns__alpha": None}, "kasmina.seed_state.alpha"),
        ({"tables__kasmina0seed_state__columns__alpha__type": "double"}, "kasmina.seed_state.alpha"),
        ({"tables__kasmina0seed_state__columns__alpha__unit": "percent"}, "kasmina.seed_state.alpha"),
        ({"tables__kasmina0seed_state__columns__alpha__presence": "implicit"}, "kasmina.seed_state.alpha"),
        ({"tables__kasmina0seed_state__columns__new": COLUMN | {"nullable": False}}, "kasmina.seed_state.new"),
        ({"tables__kasmina0seed_state__key": ["seed_id"]}, "kasmina.seed_state.key"),
        ({"tables__kasmina0seed_state": None}, "kasmina.seed_state"),
        ({"folders__kasmina/seed_state": None}, "kasmina/seed_state"),
        ({"folders__kasmina/seed_state__extensions": [".binpb"]}, "kasmina/seed_state"),
        ({"enums__HazardBand__LOW": 7}, "HazardBand.LOW"),
        ({"enums__HazardBand__LOW": None}, "HazardBand.LOW"),
        ({"enums__HazardBand__ALSO_LOW": 1}, "HazardBand.ALSO_LOW"),
    ],
)
def test_a_breaking_change_without_a_new_major_version_fails_and_names_the_field(change: dict[str, Any], where: str) -> None:
    new = changed(**change)
    with pytest.raises(ContractError, match=where):
        check(current(), new)
    assert check(current(), new.model_copy(update={"version": "3.0"}))


@pytest.mark.parametrize(
    "change",
    [
        {"tables__kasmina0seed_state__columns__new": COLUMN},
        {"enums__HazardBand__EXTREME": 5},
        {"folders__kasmina/seed_state__extensions": [*FOLDERS["kasmina/seed_state"].extensions, ".avro"]},
    ],
)
def test_an_additive_change_passes_and_is_reported(change: dict[str, Any]) -> None:
    changes = check(current(), changed(**change))
    assert len(changes) == 1
    assert not changes[0].breaking
    assert compare(current(), current()) == []


def test_a_lock_is_only_replaced_by_what_does_not_break_it(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    with pytest.raises(ContractError, match=r"lock\.json"):
        load(path)
    write(path)
    assert load(path) == current()
    broken = changed(tables__tamiyo0command__columns__extra=COLUMN)
    path.write_text(broken.model_dump_json())
    with pytest.raises(ContractError, match=r"tamiyo\.command\.extra"):
        write(path)


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m schemas.contract_reference`"


@pytest.mark.parametrize("table", TABLES.values(), ids=str)
def test_every_declaration_is_consistent(table: Any) -> None:
    assert set(table.key) <= set(table.names)
    assert all(not table.column[name].nullable for name in table.key if name not in table.nullable_key) or table.scope is None
    assert table.event_time is None or table.event_time in table.names
    assert len(set(table.names)) == len(table.names)
    assert table.arrow_schema.names[-3:] == ["non_finite", "export_digest", "position"]
    assert all(column.description for column in table.columns)
    assert all(column.enum is None or column.enum in ENUMS for column in table.columns)
    assert {rule.name for rule in table.rules} >= {f"{name}_present" for name in table.key if name not in table.nullable_key}
    assert json_schema(table)["required"] == [column.name for column in table.columns if not column.nullable]
    pandera_schema(table).validate(polars_frame(table.empty()))


@pytest.mark.parametrize("table", [table for table in TABLES.values() if table.message], ids=str)
def test_every_column_of_a_message_names_a_field_and_every_field_has_a_column(table: Any) -> None:
    declared = descriptor(table.message).fields_by_name
    heads = {column.field_path.split(".")[0] for column in table.columns if column.presence is not Presence.DERIVED}
    assert heads <= set(declared)
    inside = {"seed_states", "layers", "activations", "parameters", "connections", "rollback_payload"}
    assert set(declared) - heads - inside - set(table.names) == set()


def test_the_pandera_model_finds_what_the_declaration_forbids(tmp_path: Path) -> None:
    table = TABLES["urabrask.bsds"]
    frame = polars_frame(decode_lines(tmp_path, "urabrask/bsds", SHEET).tables[table.name])
    pandera_schema(table).validate(frame)
    bad = [
        frame.with_columns(risk_score=pl.lit(1.5, pl.Float32)),
        frame.with_columns(blueprint_id=pl.lit(None, pl.String)),
        frame.with_columns(issued_at_ns=pl.lit("x")),
        frame.drop("hazard_band"),
        pl.concat([frame, frame]),
    ]
    for wrong in bad:
        with pytest.raises((pandera.errors.SchemaError, pandera.errors.SchemaErrors)):
            pandera_schema(table).validate(wrong)


def test_rejects_have_a_table_of_their_own_per_contract_table() -> None:
    for folder in FOLDERS.values():
        names = [folder.reject_table_of(table) for table in folder.tables]
        assert len(set(names)) == len(names)
        assert not folder.tables or folder.reject_table_of(folder.tables[0]) == folder.reject_table
    assert pa.types.is_map(TABLES["tolaria.system_state"].arrow_schema.field("training_metrics").type)
