"""The feature declaration: complete as the design has it, consistent with registries and tables, and its page current."""

from dataclasses import replace

import pytest

from schemas.artifacts import REGISTRIES
from schemas.contracts import TABLES
from schemas.feature_reference import PAGE, features_page
from schemas.features import (
    COVERAGE_KEYS,
    FAMILIES,
    GROUPS,
    NODE_TYPES,
    RELATIONS,
    Feature,
    Kind,
    Transform,
    node_type,
    relation,
)

# what a packet's rows can be asked for beside the columns of tolaria.system_state
STEP_METRICS = {"loss", "gradient_norm", "samples_per_s", "hook_latency_ms", "latency_budget_ms"}
STEP_METRICS |= {"gpu_utilisation", "cpu_utilisation"}
MANDATORY = {
    "layer": "layer_type input_channels output_channels activation_type loss gradient_norm samples_per_s hook_latency_ms "
    "bsds_risk_score hazard_band",
    "seed": "seed_id monitoring_scope lifecycle_stage alpha",
    "activation": "activation_type",
    "parameter": "parameter_count learning_rate optimizer_family",
    "blueprint": "blueprint_id tier risk",
    "context": "rolling_loss throughput",
}


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == features_page(), "run `python -m schemas.feature_reference`"


def test_families_and_keys_are_those_of_the_design() -> None:
    assert [f for f in FAMILIES if f.startswith("node.")] == [
        f"node.{name}" for name in ("layer", "seed", "activation", "parameter", "blueprint", "context")
    ]
    assert [f.removeprefix("edges.") for f in FAMILIES if f.startswith("edges.")] == [
        *("layer_connects", "layer_activates", "activation_affects", "activation_configures", "parameter_modulates"),
        *("parameter_targets", "parameter_tunes", "seed_monitors", "seed_allowed", "context_layer", "context_seed"),
    ]
    assert len(set(COVERAGE_KEYS)) == len(COVERAGE_KEYS)
    assert "edges.context_layer.conservative_mode" in COVERAGE_KEYS


@pytest.mark.parametrize("node", NODE_TYPES, ids=lambda node: node.name)
def test_mandatory_features(node) -> None:
    assert [f.name for f in node.features if f.mandatory] == MANDATORY[node.name].split()


def test_neutral_values_are_zero_but_for_three() -> None:
    other = {group.key(f): f.neutral for group in GROUPS for f in group.features if f.neutral}
    assert other == {"seed.activity_level": 0.5, "seed.success_rate": 0.5, "seed.risk_tolerance": 0.5}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.family)
def test_every_feature_has_a_registry_and_sources_that_exist(group) -> None:
    for feature in group.features:
        if feature.kind in (Kind.CATEGORICAL, Kind.MULTI_HOT):
            assert feature.registry in REGISTRIES
        if feature.transform in (Transform.EWMA, Transform.LOG_Z):
            assert feature.metric
        assert feature.sources
        assert len(set(feature.sources)) == len(feature.sources)
        for table, column in feature.sources:
            known = STEP_METRICS if table == "tolaria.system_state" else set()
            assert column in TABLES[table].names or column in known, (feature.name, table, column)


def test_origin_is_the_sources_in_words() -> None:
    plain = Feature("n", Kind.NUMERIC, "urza", (("a.x", "n"), ("b.y", "m")), note="newest")
    assert (plain.origin, plain.documented_origin) == ("a.x.n, else b.y.m", "a.x.n, else b.y.m; newest")
    assert replace(plain, derive="f", note="").documented_origin == "f(a.x.n, b.y.m)"


def test_layout_adds_up() -> None:
    layer = node_type("layer")
    assert layer.width == layer.value_width + len(layer.valued)
    assert relation("seed_allowed").width == 34
    assert relation("parameter_targets").width == 0
    assert [r.reverse for r in RELATIONS if r.name == "conditions"] == [
        ("layer", "rev_conditions", "context"),
        ("seed", "rev_conditions", "context"),
    ]
    with pytest.raises(KeyError):
        relation("nothing")
