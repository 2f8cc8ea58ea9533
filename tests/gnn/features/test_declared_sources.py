"""`Feature.sources` and `Feature.derive` are what the join does: each declared column counts, and no other gives a value."""

import inspect
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gnn.join import derived
from gnn.join.columns import View, gather
from gnn.join.inputs import OF_RUN, TIMED
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.rows import Rows
from gnn.join.tables import feature_tables
from schemas.contracts import TABLES
from schemas.errors import FeatureError
from schemas.features import CONTEXT, GROUPS, Feature, FeatureGroup, Kind, Transform
from tests.gnn.tables import START, altered, small_world, table

STATE = "tolaria.system_state"
# what a packet says beside its columns: names in `training_metrics`, and columns that give the same
METRICS = {
    "loss": ("loss", "training_loss", "validation_loss"),
    "gpu_utilisation": ("gpu_util_percent", "hardware_context_utilization_percent"),
    "cpu_utilisation": ("cpu_util_percent", "hardware_context_utilization_percent"),
}
KEYS = {group.key(feature): (group, feature) for group in GROUPS for feature in group.features}
Source = tuple[str, str]


def filled() -> dict[str, pa.Table]:
    """The small world with a value in every source column."""
    world = small_world(3)
    metrics = {"loss": 0.5, "gradient_norm": 2.0, "samples_per_s": 4e3, "hook_latency_ms": 6.0, "latency_budget_ms": 12.0}
    metrics |= {"gpu_util_percent": 40.0, "cpu_util_percent": 30.0}
    world = altered(world, STATE, training_metrics=list(metrics.items()))
    # a training loss that falls while the metric stays, and layers whose order is not that of their index
    world[STATE] = table(STATE, [{**row, "training_loss": 2.0 - step} for step, row in enumerate(world[STATE].to_pylist())])
    backwards = [{**row, "index": 1 - row["index"]} for row in world["urza.layer"].to_pylist()]
    world["urza.layer"] = table("urza.layer", backwards)
    # exploding by the layer's own norm, noisy by the packet's
    world = altered(world, "tolaria.layer_telemetry", gradient_norm=100.0, gradient_variance=1e6)
    said = {"packet_id": "t", "index": 0, "timestamp_ns": START + 10**9, "name": derived.CONSERVATIVE, "value": 1.0}
    world["telemetry.metric"] = table("telemetry.metric", [said])
    for _, feature in KEYS.values():
        for name, column in feature.sources:
            if column in TABLES[name].names:
                world[name] = _filled(world[name], column)
    return world


def _filled(rows: pa.Table, column: str) -> pa.Table:
    kind = rows.schema.field(column).type
    value: Any = 0.5 if pa.types.is_floating(kind) else 2 if pa.types.is_integer(kind) else True
    if pa.types.is_string(kind):
        value = "LOW"
    elif pa.types.is_list(kind):
        value = ["linear"]
    elif pa.types.is_map(kind):
        value = [("seed-1", 0.5)]
    values = [value if old is None else old for old in rows.column(column).to_pylist()]
    return rows.set_column(rows.column_names.index(column), rows.schema.field(column), pa.array(values, kind))


def without(world: dict[str, pa.Table], sources: frozenset[Source]) -> dict[str, pa.Table]:
    """The world in which nobody says what `sources` name."""
    for name, column in sources:
        rows = world[name]
        columns = METRICS.get(column, (column,)) if name == STATE else (column,)
        silent = [c for c in columns if c in rows.column_names]
        world = altered(world, name, **dict.fromkeys(silent))
        if name == STATE:
            kept = [[(k, v) for k, v in said if k not in columns] for said in rows.column("training_metrics").to_pylist()]
            field = rows.schema.field("training_metrics")
            place = rows.column_names.index("training_metrics")
            world[name] = world[name].set_column(place, field, pa.array(kept, field.type))
    return world


@cache
def raw_tables(silent: frozenset[Source]) -> dict[str, pa.Table]:
    """The feature tables of the filled world without some sources."""
    world = without(filled(), silent)
    return feature_tables(join(Metadata(world), world, {})[0])


def raw(key: str, silent: frozenset[Source] = frozenset()) -> list[Any]:
    group, feature = KEYS[key]
    return list(raw_tables(silent)[group.table].column(feature.name).to_pylist())


@pytest.mark.parametrize("key", KEYS)
def test_without_its_sources_a_feature_has_no_value(key: str) -> None:
    before, after = raw(key), raw(key, frozenset(KEYS[key][1].sources))
    assert any(value is not None for value in before)
    # a sheet without a recommendation says that there are no notes
    silent = [0.0, False, None] if key == "seed.has_handling_notes" else [None]
    assert all(value in silent for value in after)


@pytest.mark.parametrize("key", KEYS)
def test_every_declared_source_is_read(key: str) -> None:
    sources = KEYS[key][1].sources
    for source in sources:
        others = [frozenset(chosen) for chosen in _subsets([other for other in sources if other != source])]
        assert any(raw(key, silent) != raw(key, silent | {source}) for silent in others), source


def _subsets(sources: list[Source]) -> Iterator[tuple[Source, ...]]:
    for size in range(len(sources) + 1):
        yield from combinations(sources, size)


def test_derive_names_the_functions_of_derived_and_each_of_them_is_named() -> None:
    functions = {
        name for name, value in vars(derived).items() if inspect.isfunction(value) and value.__module__ == derived.__name__
    }
    assert {feature.derive for _, feature in KEYS.values() if feature.derive} == functions


def test_every_source_is_read_with_its_run_or_as_of_a_time() -> None:
    read = {table for group in GROUPS for table in group.source_tables}
    assert read <= {*OF_RUN, *TIMED}
    assert "telemetry.metric" in CONTEXT.source_tables


def depth(**more: Any) -> FeatureGroup:
    return FeatureGroup((Feature("depth", Kind.NUMERIC, "urza", (("urza.layer", "index"),), Transform.LOG1P, **more),))


def test_a_derived_value_that_is_not_given_or_not_declared_is_refused() -> None:
    values, none = np.array([1.0, 2.0]), np.zeros(2, dtype=np.bool_)
    layers = Rows(small_world(1)["urza.layer"], "urza.layer")
    views = {"urza.layer": View(layers, np.arange(2))}
    assert gather(depth(), 2, views, {}, none).numbers["depth"].tolist() == [0.0, 1.0]
    assert gather(depth(derive="depth"), 2, {}, {"depth": values}, none).numbers["depth"].tolist() == [1.0, 2.0]
    with pytest.raises(FeatureError, match=r"expected derived values of \['depth'\], found \[\]"):
        gather(depth(derive="depth"), 2, views, {}, none)
    with pytest.raises(FeatureError, match=r"expected derived values of \[\], found \['depth'\]"):
        gather(depth(), 2, views, {"depth": values}, none)
    with pytest.raises(FeatureError, match=r"expected a source among urza\.activation, found urza\.layer"):
        gather(depth(), 2, {"urza.activation": views["urza.layer"]}, {}, none)
