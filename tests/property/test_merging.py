"""Contracts.md section 1: which record wins does not depend on the order, grouping or repetition of what is merged."""

import random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contracts import TABLES, Table
from schemas.decode.shape.merge import merge
from schemas.digest import part_digests, row_digests, table_digest

SEEDS = TABLES["kasmina.seed_state"]
BLUEPRINTS = TABLES["urza.blueprint"]
KERNELS = TABLES["tezzeret.kernel"]
SNAPSHOTS = TABLES["simic.registry_snapshot"]


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a contract table from partial values."""
    found = TABLES[name]
    full = [{"non_finite": [], "export_digest": "e", "position": index} | row for index, row in enumerate(rows)]
    return pa.Table.from_pylist(full, schema=found.arrow_schema)


_ROWS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "kasmina.seed_state": st.fixed_dictionaries(
        {
            "training_run_id": st.sampled_from(["r", "q"]),
            "seed_id": st.sampled_from(["s", "t"]),
            "timestamp_ns": st.sampled_from([1, 2]),
            "source": st.sampled_from(["export", "packet"]),
            "alpha": st.sampled_from([None, 0.0, 0.5]),
            "metrics": st.sampled_from([None, [("a", 1.0)], [("a", 1.0), ("b", 2.0)]]),
            "monitored_layers": st.sampled_from([None, [], ["l"], ["l", "m"]]),
            "export_digest": st.sampled_from(["e", "f", "g"]),
            "position": st.integers(0, 5),
        }
    ),
    "urza.blueprint": st.fixed_dictionaries(
        {
            "blueprint_id": st.sampled_from(["b", "c"]),
            "exported_at_ns": st.sampled_from([None, 1, 2]),
            "descriptor_name": st.sampled_from(["x", "y"]),
            "monitors": st.sampled_from([None, [], [{"seed": "s", "layer_id": "l", "weight": None}]]),
            "arrival": st.integers(1, 3),
            "export_digest": st.sampled_from(["e", "f"]),
            "position": st.integers(0, 5),
        }
    ),
    "tolaria.system_state": st.fixed_dictionaries(
        {
            "training_run_id": st.just("r"),
            "packet_id": st.sampled_from(["p", "q"]),
            "timestamp_ns": st.just(1),
            "training_loss": st.sampled_from([None, 0.5, -0.0]),
            "is_completion": st.just(False),
            "export_digest": st.sampled_from(["e", "f"]),
            "position": st.integers(0, 5),
        }
    ),
}


@pytest.mark.parametrize("name", list(_ROWS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_grouping_and_repetition_gives_the_same_rows(name: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(_ROWS[name], min_size=1, max_size=12))
    whole = table(name, rows)
    at_once = merge(TABLES[name], None, whole)
    assert at_once.rows.num_rows + at_once.duplicates == len(rows)
    chance = random.Random(data.draw(st.integers(0, 99)))
    order = [index for index in range(len(rows)) for _ in range(chance.choice([1, 1, 2]))]
    chance.shuffle(order)
    kept: pa.Table | None = None
    for start in range(0, len(order), 3):
        kept = merge(TABLES[name], kept, whole.take(order[start : start + 3])).rows
    assert kept is not None
    assert table_digest(TABLES[name], kept) == table_digest(TABLES[name], at_once.rows)
    assert sorted(map(str, kept.to_pylist())) == sorted(map(str, at_once.rows.to_pylist()))
    again = merge(TABLES[name], at_once.rows, at_once.rows)
    assert (again.rows.num_rows, again.duplicates) == (at_once.rows.num_rows, at_once.rows.num_rows)


def winner(name: str, *rows: dict[str, Any]) -> dict[str, Any]:
    found = merge(TABLES[name], None, table(name, list(rows))).rows.to_pylist()
    assert len(found) == 1
    return dict(found[0])


SEED = {"training_run_id": "r", "seed_id": "s", "timestamp_ns": 1, "source": "export"}


def test_a_seeds_export_beats_its_copy_in_a_packet() -> None:
    for order in (1, -1):
        rows = [SEED | {"source": "packet", "alpha": 0.1}, SEED | {"alpha": 0.9}][::order]
        assert winner("kasmina.seed_state", *rows)["source"] == "export"


def test_a_tie_goes_to_the_lowest_digest_and_the_lowest_copy_is_named() -> None:
    rows = [
        SEED | {"alpha": value, "export_digest": digest, "position": position}
        for value, digest, position in [(0.5, "f", 1), (0.25, "e", 9), (0.5, "e", 7), (0.5, "e", 3)]
    ]
    digests = row_digests(table("kasmina.seed_state", rows))
    found = winner("kasmina.seed_state", *rows)
    best = min(range(4), key=lambda row: digests[row])
    assert found["alpha"] == rows[best]["alpha"]
    copies = [(row["export_digest"], row["position"]) for row in rows if row["alpha"] == rows[best]["alpha"]]
    assert (found["export_digest"], found["position"]) == min(copies)


def test_without_an_event_time_the_newest_arrival_wins_also_when_it_came_before() -> None:
    first, second = {"blueprint_id": "b", "descriptor_name": "A"}, {"blueprint_id": "b", "descriptor_name": "B"}
    rows = [first | {"arrival": 1}, second | {"arrival": 2}, first | {"arrival": 3}]
    assert winner("urza.blueprint", *rows)["descriptor_name"] == "A"
    assert winner("urza.blueprint", *rows[:2])["descriptor_name"] == "B"
    assert winner("urza.blueprint", *[row | {"arrival": 1} for row in rows[:2]])["descriptor_name"] == "B"


def test_records_of_other_times_are_kept_beside_one_another() -> None:
    old, new = (
        {"blueprint_id": "b", "descriptor_name": name, "exported_at_ns": time} for name, time in (("old", 1), ("new", 2))
    )
    assert winner("urza.blueprint", new | {"arrival": 1}, new | {"arrival": 2})["descriptor_name"] == "new"
    both = table("urza.blueprint", [new | {"arrival": 1}, old | {"arrival": 2}])
    assert merge(TABLES["urza.blueprint"], None, both).rows.column("descriptor_name").to_pylist() == ["new", "old"]


def test_a_key_may_be_null_where_the_contract_says_so() -> None:
    rows = [
        {"blueprint_id": "b", "source": "urza", "status": status, "arrival": n}
        for n, status in enumerate(["COMPILED", "FAILED"])
    ]
    assert winner("tezzeret.kernel", *rows)["status"] == "FAILED"


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_ROWS["kasmina.seed_state"], max_size=12))
def test_digests_of_parts_are_those_of_their_rows_alone(rows: list[dict[str, Any]]) -> None:
    kept = merge(SEEDS, None, table("kasmina.seed_state", rows)).rows
    names = sorted({row["training_run_id"] for row in rows})
    parts = {name: kept.filter(pc.equal(kept.column("training_run_id"), name)) for name in names}
    expected = {name: (table_digest(SEEDS, part), part.num_rows) for name, part in parts.items()}
    assert part_digests(SEEDS, kept, "training_run_id") == expected
    assert list(part_digests(SEEDS, kept, "training_run_id")) == names


def test_digests_of_rows_do_not_depend_on_how_many_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SEED | {"metrics": [("a", float(number))], "monitored_layers": ["l"] * (number % 3)} for number in range(8)]
    whole = row_digests(table("kasmina.seed_state", rows))
    assert len(set(whole)) == 8
    monkeypatch.setattr("schemas.digest._TEXT_ROWS", 3)
    assert row_digests(table("kasmina.seed_state", rows)) == whole


def test_digests_see_content_and_not_where_it_came_from() -> None:
    rows = [SEED | {"metrics": [("a", 1.0)]}, SEED | {"seed_id": "t", "alpha": 0.0}]
    base = table("kasmina.seed_state", rows)
    moved = table("kasmina.seed_state", [row | {"export_digest": "z", "position": 99} for row in rows[::-1]])
    assert table_digest(SEEDS, base) == table_digest(SEEDS, moved)
    assert sorted(row_digests(base)) == sorted(row_digests(moved))
    changes: list[dict[str, Any]] = [
        {"alpha": 0.5},
        {"metrics": None},
        {"metrics": [("a", 2.0)]},
        {"metrics": [("b", 1.0)]},
        {"monitored_layers": []},
        {"non_finite": ["x"]},
        {"stage": ""},
    ]
    digests = {table_digest(SEEDS, table("kasmina.seed_state", [rows[0] | change, rows[1]])) for change in changes}
    assert len(digests | {table_digest(SEEDS, base)}) == len(changes) + 1
    texts = {row_digests(table("kasmina.seed_state", [rows[0] | change]))[0] for change in changes}
    assert len(texts | {row_digests(base)[0]}) == len(changes) + 1
    assert table_digest(SEEDS, base.slice(0, 0)) == table_digest(SEEDS, SEEDS.empty())


def filled(table: Table, name: str) -> Any:
    """Some value of a column that is measured."""
    kind, column = table.arrow_schema.field(name).type, table.column[name]
    if pa.types.is_map(kind):
        item = {"min_value": 0.5, "max_value": 1.0} if pa.types.is_struct(kind.item_type) else None
        text = "0.5" if pa.types.is_string(kind.item_type) else 0.5
        return [("a", item or text), ("b", item or text)]
    if pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_string(kind):
        return table.ranked[1][0] if table.ranked and table.ranked[0] == name else "x"
    return column.low or 1


@pytest.mark.parametrize("name", list(TABLES))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_at_equal_time_the_row_with_more_measured_values_wins_in_any_order(name: str, data: st.DataObject) -> None:
    declared = TABLES[name]
    full = {column: filled(declared, column) for column in declared.names}
    fixed = {*declared.key, declared.event_time, *(declared.ranked or ())[:1]}
    free = [column for column in declared.names if column not in fixed]
    if not free:
        return
    maps = {column for column in free if pa.types.is_map(declared.arrow_schema.field(column).type)}
    copies = [full]
    for gone in data.draw(st.lists(st.sets(st.sampled_from(free), min_size=1), min_size=1, max_size=4)):
        halved = {column: full[column][:1] for column in gone & maps if data.draw(st.booleans())}
        copies.append(full | dict.fromkeys(gone) | halved)
    if declared.by_arrival:
        copies = [copy | {"arrival": 1, "position": 0} for copy in copies]
    rows = table(name, data.draw(st.permutations(copies)))
    kept: pa.Table | None = None
    for place in range(rows.num_rows):
        kept = merge(declared, kept, rows.slice(place, 1)).rows
    (found,) = kept.to_pylist() if kept is not None else []
    assert {column: found[column] for column in declared.names} == table(name, [full]).select(declared.names).to_pylist()[0]
