"""Keys that a run's graphs hold: those in its feature tables, and a digest that follows their indices alone."""

from typing import Any

import pyarrow as pa
import pytest

from gnn.encode.build import build_features
from gnn.encode.held import HELD, held_keys, index_digests
from gnn.join.tables import feature_tables
from gnn.registry.refresh import Registries
from schemas.features import GROUPS, Kind
from tests.gnn.graph.worlds import World, world_registries
from tests.gnn.tables import registries, small_world

SPOKEN = (Kind.CATEGORICAL, Kind.MULTI_HOT, Kind.SHARE)


def in_tables(tables: dict[str, pa.Table]) -> set[tuple[str, str, str]]:
    """Run, registry and key of every word in the feature tables."""
    found = set()
    for group in GROUPS:
        for row in tables[group.table].to_pylist():
            for feature in group.features:
                value: Any = row[feature.name]
                if feature.kind in SPOKEN and value is not None:
                    words = [value] if feature.kind is Kind.CATEGORICAL else value
                    found |= {(row["training_run_id"], feature.registry or feature.name, word) for word in words if word}
    return found


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_every_word_of_a_run_is_held_once(seed: int | None) -> None:
    world = small_world(2) if seed is None else World(seed).tables()
    joined = build_features(world, registries=world_registries()).joined
    held = held_keys(joined)
    rows = list(zip(*(column.to_pylist() for column in held.columns), strict=True))
    assert held.schema.equals(HELD)
    assert len(set(rows)) == len(rows)
    assert {row for row in rows if row[2]} == in_tables(feature_tables(joined))


def test_no_packets_hold_no_keys() -> None:
    held = held_keys(build_features({}, registries=world_registries()).joined)
    assert (held.num_rows, held.schema) == (0, HELD)
    assert index_digests(held, world_registries()) == {}


def rows(*found: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(HELD.names, row, strict=True)) for row in found], HELD)


def digests(table: pa.Table, **words: list[str]) -> dict[str, str]:
    known: Registries = registries(**words)
    return index_digests(table, known)


def test_a_digest_follows_the_indices_of_the_runs_own_keys() -> None:
    held = rows(("r1", "seed", "a"), ("r1", "blueprint", "p"), ("r2", "seed", "b"))
    before = digests(held, seed=["a", "b"], blueprint=["p"])
    assert set(before) == {"r1", "r2"}
    assert before["r1"] != before["r2"]
    assert digests(held, seed=["a", "b", "c"], blueprint=["p", "q"]) == before
    moved = digests(held, seed=["a", "x", "b"], blueprint=["p"])
    assert (moved["r1"] == before["r1"], moved["r2"] == before["r2"]) == (True, False)
    other = digests(held, seed=["a", "b"], blueprint=["x", "p"])
    assert (other["r1"] == before["r1"], other["r2"] == before["r2"]) == (False, True)
    unknown = digests(held, seed=["a"], blueprint=["p"])
    assert (unknown["r1"] == before["r1"], unknown["r2"] == before["r2"]) == (True, False)


def test_a_digest_does_not_depend_on_the_order_of_keys_and_tells_registries_apart() -> None:
    held = rows(("r1", "seed", "a"), ("r1", "seed", "b"), ("r1", "blueprint", "p"))
    words = {"seed": ["a", "b"], "blueprint": ["p"]}
    assert digests(held.take([2, 0, 1]), **words) == digests(held, **words)
    assert digests(held.slice(0, 2), **words) != digests(held, **words)
    assert digests(rows(("r1", "seed", "a")), seed=["a"]) != digests(rows(("r1", "blueprint", "a")), blueprint=["a"])
    assert digests(rows(("r1", "seed", "a")), seed=["a"]) != digests(rows(("r1", "seed", "b")), seed=["b"])
    # keys that swap their indices are other inputs, though the set of indices is the same
    assert digests(held, seed=["b", "a"], blueprint=["p"]) != digests(held, **words)


def test_one_key_in_several_runs_has_one_digest() -> None:
    found = digests(rows(("r1", "seed", "a"), ("r2", "seed", "a")), seed=["a"])
    assert found["r1"] == found["r2"]
    assert len(found["r1"]) == 32
