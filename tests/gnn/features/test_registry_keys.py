"""Which keys upstream names: placeholders and missing values give none, enums take none."""

import pyarrow as pa

from gnn.registry.rules import SOURCES, observed_keys, source_columns, source_tables
from schemas.artifacts import REGISTRIES
from schemas.contracts import TABLES


def table(name: str, *rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), TABLES[name].arrow_schema)


def test_every_source_is_a_declared_column_of_an_open_registry() -> None:
    for registry, sources in SOURCES.items():
        assert not REGISTRIES[registry].closed
        for name, column in sources:
            assert column in TABLES[name].column
            assert name in source_tables()
            assert column in source_columns(name)


def test_placeholders_give_no_key() -> None:
    layers = table(
        "urza.layer",
        {"blueprint_id": "p", "type": "Linear", "activation_type": "none", "is_placeholder": False},
        {"blueprint_id": "p", "type": "guard_tensor", "activation_type": "guard", "is_placeholder": True},
    )
    found = observed_keys({"urza.layer": layers})
    assert found["layer_type"] == {"Linear"}
    assert found["activation_type"] == {"none"}


def test_lists_name_many_keys_and_missing_values_none() -> None:
    seeds = table(
        "kasmina.seed_state",
        {
            "seed_id": "s1",
            "alpha_schedule_method": "cosine",
            "capabilities_allowed_blending_methods": ["linear", "fade"],
            "capabilities_isolation_exemptions": [],
        },
        {"seed_id": "s2", "policy_version": "", "capabilities_allowed_blending_methods": None},
    )
    found = observed_keys({"kasmina.seed_state": seeds})
    assert found["seed"] == {"s1", "s2"}
    assert found["schedule"] == {"cosine", "linear", "fade"}
    assert found["isolation_exemption"] == found["policy_version"] == set()


def test_no_tables_name_no_keys() -> None:
    assert set(observed_keys({})) == set(SOURCES)
    assert not any(observed_keys({}).values())
    assert not any(observed_keys({name: TABLES[name].empty() for name in source_tables()}).values())
