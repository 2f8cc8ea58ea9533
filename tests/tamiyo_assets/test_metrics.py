"""`metrics.prom` in the words of Prometheus' own parser, and alert rules that name only metrics that exist."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lake.settings import resolve
from tamiyo_assets.panel.gather import gather
from tamiyo_assets.panel.metrics import ALL, text
from tests.tamiyo_assets.facts import BUILD, NOW, bad_facts

RULES = "docs/operations/alerts.rules.yml"


def families(exposed: bytes) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(exposed.decode())}


def value(exposed: bytes, metric: str, **labels: str) -> float:
    """The one sample of a metric that has these labels."""
    (found,) = [s.value for s in families(exposed)[metric].samples if labels.items() <= s.labels.items()]
    return float(found)


def selectors(node: Any) -> Iterator[str]:
    """Metric names in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from selectors(node.vector_selector)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    else:
        for name in ("lhs", "rhs", "expr"):
            child = getattr(node, name, None)
            if child is not None:
                yield from selectors(child)


def rules(repository: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((repository / RULES).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_has_help_and_type_on_a_full_home_and_on_a_young_one(tmp_path: Path) -> None:
    for exposed in (text(bad_facts()), text(gather(resolve(home=tmp_path)))):
        found, lines = families(exposed), exposed.decode().splitlines()
        assert set(found) == {metric.name for metric in ALL}
        for metric in ALL:
            assert found[metric.name].documentation == metric.help and metric.help.endswith(".")
            assert found[metric.name].type == "gauge"
            assert f"# TYPE {metric.name} gauge" in lines
        assert all(set(s.labels) == set(m.labels) for m in ALL for s in found[m.name].samples)


def test_every_metric_has_a_sample_on_a_full_home() -> None:
    found = families(text(bad_facts()))
    serving_alone = {"tamiyo_serving_bundle_info", "tamiyo_serving_bundle_age_seconds"}
    serving_alone |= {"tamiyo_serving_bundle_promoted_timestamp_seconds"}
    assert {name for name, family in found.items() if not family.samples} == serving_alone


def test_the_figures_are_those_of_the_facts() -> None:
    exposed = text(bad_facts())
    assert value(exposed, "tamiyo_coverage_ratio", key="context.throughput", system="tolaria", mandatory="true") == 0.5
    assert value(exposed, "tamiyo_gnn_feature_coverage_family", family="node.layer") == 0.9
    assert value(exposed, "tamiyo_gaps", system="tolaria", mandatory="true") == 2
    assert value(exposed, "tamiyo_gaps", system="kasmina", mandatory="true") == 0
    assert value(exposed, "tamiyo_table_rows", table="tolaria.system_state") == 32
    assert value(exposed, "tamiyo_rejected_records", system="kasmina", reason="missing_training_run_id") == 12
    assert value(exposed, "tamiyo_check_failed", asset="coverage/by_key", check="mandatory_coverage") == 1
    assert value(exposed, "tamiyo_check_failed", asset="coverage/by_key", check="coverage_conservation") == 0
    assert value(exposed, "tamiyo_open_alerts", severity="ERROR") == 1
    assert value(exposed, "tamiyo_stage_last_success_timestamp_seconds", stage="features") == NOW.timestamp()
    assert value(exposed, "tamiyo_serving") == 0
    assert value(exposed, "tamiyo_newest_bundle_refused") == 1
    assert value(exposed, "tamiyo_feed_silent", system="urabrask") == 1
    systems = {sample.labels["system"] for sample in families(exposed)["tamiyo_feed_silent"].samples}
    assert "oona" not in systems, "what was never seen is unknown"


def test_the_age_of_what_serves_is_exposed() -> None:
    exposed = text(bad_facts(serving=True))
    assert value(exposed, "tamiyo_serving") == 1
    assert value(exposed, "tamiyo_serving_bundle_info", build_id=BUILD) == 1
    assert value(exposed, "tamiyo_serving_bundle_age_seconds") == 86400 * 2
    assert value(exposed, "tamiyo_serving_bundle_promoted_timestamp_seconds") == NOW.timestamp() - 86400 * 2


def test_every_alert_rule_names_only_metrics_and_labels_that_exist(repository: Path) -> None:
    known = {metric.name: set(metric.labels) for metric in ALL}
    found = rules(repository)
    assert len(found) > 10
    for rule in found:
        names = set(selectors(promql_parser.parse(rule["expr"])))
        assert names, rule["alert"]
        assert names <= set(known), (rule["alert"], names - set(known))
        labels = set().union(*(known[name] for name in names))
        texts = " ".join(rule["annotations"].values())
        used = {word.partition(" ")[0].partition("}")[0] for word in texts.split("$labels.")[1:]}
        assert used <= labels, (rule["alert"], used - labels)
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"].keys() == {"summary", "action"}
    assert len({rule["alert"] for rule in found}) == len(found)


def test_a_rule_on_a_metric_that_does_not_exist_is_found() -> None:
    wrong = promql_parser.parse("rate(tamiyo_gone_total[5m]) / on(x) tamiyo_gaps > 1 and sum by (y) (other)")
    assert set(selectors(wrong)) == {"tamiyo_gone_total", "tamiyo_gaps", "other"}


@pytest.mark.parametrize("hostile", ['a"b', "a\nb", "a\\b", "\x1b[31m", "日本"])
def test_labels_from_data_come_back_as_they_are(hostile: str) -> None:
    exposed = text(bad_facts(reason=hostile))
    assert value(exposed, "tamiyo_rejected_records", reason=hostile) == 12
