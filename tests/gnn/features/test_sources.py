"""Sources hand out typed tables, and of Urza's graphs only what the newest record of a blueprint holds."""

import pyarrow as pa
import pytest

from gnn.join.sources import Sources, newest_records
from schemas.contracts import TABLES


def rows(name: str, *values: dict[str, object]) -> pa.Table:
    schema = TABLES[name].arrow_schema
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in schema} for row in values], schema=schema)


def layers(*values: tuple[str, int | None, int | None]) -> pa.Table:
    return rows(
        "urza.layer",
        *({"blueprint_id": "b", "layer_id": n, "index": 0, "exported_at_ns": t, "arrival": a} for n, t, a in values),
    )


@pytest.mark.parametrize(
    ("time", "arrival", "found"),
    [
        (None, 2, ["new"]),  # by arrival: the layer of the first record was left out of the second
        (None, 1, ["old"]),
        (20, 1, ["dated"]),  # by time, whatever the arrival
        (30, 3, []),
    ],
)
def test_a_layer_that_the_newest_record_left_out_is_gone(time: int | None, arrival: int, found: list[str]) -> None:
    blueprint = rows("urza.blueprint", {"blueprint_id": "b", "exported_at_ns": time, "arrival": arrival})
    stored = layers(("old", None, 1), ("new", None, 2), ("dated", 20, 9))
    sources = Sources({"urza.blueprint": blueprint, "urza.layer": stored})
    assert sources["urza.layer"].column("layer_id").to_pylist() == found


def test_elements_of_a_blueprint_without_a_record_are_kept() -> None:
    stored = layers(("a", None, 1), ("b", 20, 2))
    assert Sources({"urza.layer": stored})["urza.layer"].num_rows == 2


def test_every_contract_table_is_there_and_typed() -> None:
    sources = Sources({})
    assert {name: sources[name].schema for name in sources} == {name: table.arrow_schema for name, table in TABLES.items()}


def test_the_newest_records_alone_are_left() -> None:
    stored = layers(("old", 10, 1), ("new", 20, 2), ("undated", None, 3))
    records = [{"blueprint_id": "b", "exported_at_ns": time, "arrival": 1} for time in (10, 20, None)]
    blueprints = rows("urza.blueprint", *records)
    assert newest_records(stored, blueprints).column("layer_id").to_pylist() == ["new"]
    assert newest_records(blueprints, blueprints).column("exported_at_ns").to_pylist() == [20]
