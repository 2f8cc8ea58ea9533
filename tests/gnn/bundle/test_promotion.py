"""Preflight, gates, promotion and rollback."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.bundle import GateConfig, gates, preflight, promote, read_bundle, rollback, serving
from gnn.bundle.challenge import Challenge, GraphsOf, challenge, keep, kept
from gnn.bundle.gates import NAMES
from gnn.bundle.manifest import Manifest
from gnn.bundle.promote import PROMOTIONS, promotions
from gnn.model.trained import HeadStatus
from gnn.registry.refresh import refresh
from schemas.errors import PromotionRefused
from tests.gnn.bundle.conftest import Home
from tests.gnn.bundle.test_write_read import manifest_of, reseal

ALL_GATES = dict.fromkeys(NAMES, "a test")
GOOD: dict[str, Any] = {
    "benefit": {"mean": 0.02, "low": 0.01, "high": 0.03},
    "gap_closed": {"model": {"mean": 0.5, "low": 0.4, "high": 0.6}},
    "gap_closed_minus_best_baseline": {"mean": -0.03, "low": -0.1, "high": 0.2},
    "harm_rate": {"chosen": 0.02, "random": 0.02},
    "risk_ece_after": 0.05,
    "value_interval_coverage": 0.9,
}


def judged(manifest: Manifest, **metrics: object) -> dict[str, bool]:
    return {g.name: g.passed for g in gates(manifest.model_copy(update={"metrics": manifest.metrics | metrics}))}


def failed(manifest: Manifest, **metrics: object) -> list[str]:
    return [name for name, passed in judged(manifest, **GOOD | metrics).items() if not passed]


def test_a_sound_bundle_is_clean(bundle: Path) -> None:
    report = preflight(bundle, read_bundle(bundle), random_batch(2))
    assert report.clean, report.mismatches
    assert report.to_object()["clean"] is True


def test_a_damaged_bundle_is_one_mismatch_and_no_crash(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b"{}")
    report = preflight(bundle)
    assert report.bundle is None
    assert not report.clean
    assert "manifest" in report.mismatches[0].found


def test_every_mismatch_with_the_code_is_listed_at_once(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    layer = manifest["node_types"]["layer"]["features"]
    layer[1]["transform"] = "identity"
    layer[2]["width"] = 3
    manifest["relations"]["layer_connects"]["features"].pop()
    manifest["policy"]["kernels"][0], manifest["policy"]["kernels"][1] = manifest["policy"]["kernels"][1::-1]
    manifest["registries"]["seed"]["capacity"] = 4096
    manifest["outputs"]["value"]["shape"] = ["G", 2]
    manifest["tensors"].pop("x.layer")
    reseal(bundle, manifest)
    found = [str(m) for m in preflight(bundle).mismatches]
    expected = (
        "input_channels, transform: expected log1p, found identity",
        "output_channels, width: expected 1, found 3",
        "relation layer_connects, place 3: expected residual_flag, found nothing",
        "kernel 0: expected kernel-identity",
        "kernel 1: expected kernel-scale",
        "output value: expected",
        "tensor x.layer",
    )
    for part in expected:
        assert any(part in line for line in found), (part, found)


def test_outputs_say_whether_anything_trained_them(bundle: Path) -> None:
    outputs = manifest_of(bundle)["outputs"]
    assert outputs["seed_value"] == {"shape": ["S", 32], "dtype": "float32", "trained": True, "reason": None}
    assert outputs["value"]["trained"] and outputs["compile_embedding"]["trained"]
    untrained = {name for name, output in outputs.items() if not output["trained"]}
    assert untrained == {"policy_params", "schedule_params", "breaker_logits", "telemetry_embedding", "blueprint_scores"}
    assert all(outputs[name]["reason"] for name in untrained)
    manifest = manifest_of(bundle)
    manifest["outputs"]["policy_params"] |= {"trained": True, "reason": None}
    reseal(bundle, manifest)
    assert [m.where for m in preflight(bundle).mismatches] == ["output policy_params"]


def test_golden_outputs_are_recomputed(bundle: Path) -> None:
    sound = read_bundle(bundle)
    golden = dict(sound.golden)
    golden["output.1.seed_value"] = golden["output.1.seed_value"] + 2e-5
    from gnn.bundle.golden import differences

    assert differences(sound.network, sound.golden, sound.norms.priors) == {}
    assert list(differences(sound.network, golden, sound.norms.priors)) == ["1.seed_value"]
    golden["output.1.seed_value"][0, 0] = float("nan")
    assert list(differences(sound.network, golden, sound.norms.priors)) == ["1.seed_value"]


def test_growth_of_a_registry_is_compatible_and_a_moved_index_is_not(home: Home, bundle: Path) -> None:
    old = read_bundle(bundle)
    refresh(home.path / "registries", {"layer_type": {"linear", "conv2d", "lstm"}, "seed": {"seed-1", "seed-2"}})
    grown = read_bundle(home.write())
    assert preflight(grown.path, serving=old).clean
    back = preflight(old.path, serving=grown)
    assert [m.where for m in back.mismatches] == ["registry layer_type, key 'lstm'"]


def test_a_live_batch_of_another_layout_is_named(bundle: Path) -> None:
    batch = random_batch(1)
    other = replace(batch, x=batch.x | {"layer": torch.zeros(5, 3)}, ids=batch.ids | {"seed": batch.ids["seed"].int()})
    found = [m.where for m in preflight(bundle, batch=[other, other]).mismatches]
    assert sorted(found) == ["live batch ids.seed", "live batch x.layer"]


def test_each_gate_fails_when_its_figure_is_bad(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert failed(manifest) == []
    span = {"mean": 0.1, "low": 0.0, "high": 0.2}
    assert failed(manifest, benefit=span) == ["benefit"]
    assert failed(manifest, gap_closed={"model": span}) == ["choice"]
    assert failed(manifest, gap_closed_minus_best_baseline=span | {"mean": -0.031}) == ["choice"]
    assert failed(manifest, harm_rate={"chosen": 0.021, "random": 0.02}) == ["harm"]
    assert failed(manifest, risk_ece_after=0.051) == ["risk_calibration"]
    assert failed(manifest, value_interval_coverage=0.96) == ["value_coverage"]
    assert failed(manifest, value_interval_coverage=0.84) == ["value_coverage"]
    absent = failed(manifest, **dict.fromkeys(GOOD))
    assert absent == ["benefit", "choice", "harm", "risk_calibration", "value_coverage"]


def test_the_champion_is_asked_if_enough_hosts_are_new_to_both(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest

    def champion(found: Challenge | None) -> tuple[bool, str]:
        (gate,) = [g for g in gates(manifest, None, found) if g.name == "champion"]
        return gate.passed, gate.detail

    worse, better = {"mean": -0.1, "low": -0.2, "high": -0.01}, {"mean": -0.1, "low": -0.2, "high": 0.01}
    assert not champion(Challenge("a" * 64, 50, worse))[0]
    assert champion(Challenge("a" * 64, 50, better))[0]
    assert champion(Challenge("a" * 64, 49, worse)) == (
        True, "skipped: 49 hosts that neither trained on, at least 50 are needed"
    )  # fmt: skip
    assert champion(None) == (True, "skipped: nothing serves yet")
    assert not champion(Challenge("a" * 64, 60, None, "too few states"))[0]


def test_a_challenge_judges_both_on_hosts_that_neither_saw(home: Home, bundle: Path) -> None:
    first, examples = read_bundle(bundle), home.trained.tables["training.examples"]
    second = read_bundle(home.write("b"))
    found = challenge(second, first, home.store, examples)
    assert (found.against, found.hosts) == (first.build_id, home.trained.metrics["hosts"]["bucket_7"])
    assert found.difference in (None, {"mean": 0.0, "low": 0.0, "high": 0.0})
    assert found.reason == ("too few states with two measured pairs" if found.difference is None else None)
    training = {name: value for name, value in first.manifest.training.items() if name != "host_digests"}
    older = replace(first, manifest=first.manifest.model_copy(update={"training": training}))
    assert challenge(second, older, home.store, examples).hosts == 0
    keep(home.path, second.build_id, found)
    assert kept(home.path, second.build_id, first.build_id) == found
    assert kept(home.path, second.build_id, None) is None
    assert "not compared" in str(kept(home.path, second.build_id, "f" * 64).reason)


def test_a_champion_sees_ids_that_it_never_learned_as_unknown(home: Home, bundle: Path) -> None:
    old = read_bundle(bundle)
    registry = old.registries["layer_type"]
    graphs = GraphsOf(home.store, old)
    raw, seen = home.store.batch([0]), graphs.batch([0])
    known = {0, registry.unknown, *registry.entries.values()}
    expected = [i if i in known else registry.unknown for i in raw.ids["layer"][:, 0].tolist()]
    assert seen.ids["layer"][:, 0].tolist() == expected
    assert registry.unknown in expected


def test_thresholds_are_configuration(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    wide = GateConfig(
        benefit_above=-9, gap_closed_above=-9, lead_at_least=-9, harm_above_random=1, risk_ece_at_most=1, coverage_from=0,
        coverage_to=1,
    )  # fmt: skip
    span = {"mean": -1.0, "low": -2.0, "high": 0.0}
    poor = {
        "benefit": span, "gap_closed": {"model": span}, "gap_closed_minus_best_baseline": span,
        "harm_rate": {"chosen": 0.5, "random": 0.0}, "risk_ece_after": 0.5, "value_interval_coverage": 0.2,
    }  # fmt: skip
    found = manifest.model_copy(update={"metrics": manifest.metrics | poor})
    assert all(g.passed for g in gates(found, wide))
    assert [g.name for g in gates(found) if not g.passed] == ["benefit", "choice", "harm", "risk_calibration", "value_coverage"]


def test_promotion_moves_current_and_writes_it_down(home: Home, bundle: Path) -> None:
    report = promote(home.path, bundle.name, ALL_GATES)
    assert (report.changed, serving(home.path)) == (True, bundle.name)
    assert (home.path / "current").readlink() == Path("bundles") / bundle.name
    (entry,) = promotions(home.path)
    assert (entry["action"], entry["build_id"], entry["previous"]) == ("promote", bundle.name, None)
    assert set(entry["waived"]) == {g.name for g in report.gates if not g.passed}
    assert not promote(home.path, bundle.name, ALL_GATES).changed
    assert len(promotions(home.path)) == 1


def test_a_failed_gate_leaves_the_old_bundle_serving(home: Home, bundle: Path) -> None:
    promote(home.path, bundle.name, ALL_GATES)
    other = home.write("b")
    with pytest.raises(PromotionRefused, match=r"gate (benefit|choice|harm)"):
        promote(home.path, other.name)
    assert serving(home.path) == bundle.name
    with pytest.raises(PromotionRefused, match="preflight failed"):
        (other / "manifest.json").write_bytes(b"{}")
        promote(home.path, other.name, ALL_GATES)
    assert serving(home.path) == bundle.name
    assert len(promotions(home.path)) == 1


def test_an_untrained_head_is_refused_unless_waived(home: Home) -> None:
    heads = home.trained.heads | {"policy": HeadStatus(False, 0, "no usable label")}
    bundle = replace(home, trained=replace(home.trained, heads=heads)).write("u")
    rest = {name: reason for name, reason in ALL_GATES.items() if name != "required_heads"}
    with pytest.raises(PromotionRefused, match=r"gate required_heads: untrained: policy \(no usable label\)"):
        promote(home.path, bundle.name, rest)
    assert promote(home.path, bundle.name, ALL_GATES).waived["required_heads"] == "a test"


@pytest.mark.parametrize(
    ("waive", "message"),
    [
        ({"preflight": "x"}, "expected one of"),
        ({"golden": "x"}, "expected one of"),
        ({"required_heads": " "}, "expected a reason"),
    ],
)
def test_waivers_name_a_gate_and_a_reason(home: Home, bundle: Path, waive: dict[str, str], message: str) -> None:
    with pytest.raises(PromotionRefused, match=message):
        promote(home.path, bundle.name, waive)


@pytest.mark.parametrize("name", ["../x", "", ".", "..", "a/b", "0" * 64])
def test_a_build_id_is_a_name_of_a_bundle(home: Home, bundle: Path, name: str) -> None:
    with pytest.raises(PromotionRefused, match="expected"):
        promote(home.path, name, ALL_GATES)


def test_rollback_serves_the_bundle_before(home: Home, bundle: Path) -> None:
    other = home.write("b")
    with pytest.raises(PromotionRefused, match="served at any time"):
        rollback(home.path)
    promote(home.path, bundle.name, ALL_GATES)
    promote(home.path, other.name, ALL_GATES)
    assert rollback(home.path).build_id == bundle.name
    assert serving(home.path) == bundle.name
    assert [e["action"] for e in promotions(home.path)] == ["promote", "promote", "rollback"]
    assert rollback(home.path, other.name).previous == bundle.name


def test_a_torn_last_line_of_the_record_is_survived(home: Home, bundle: Path) -> None:
    promote(home.path, bundle.name, ALL_GATES)
    path = home.path / PROMOTIONS
    path.write_bytes(path.read_bytes() + b'{"action": "pro')
    promote(home.path, home.write("b").name, ALL_GATES)
    assert [e["action"] for e in promotions(home.path)] == ["promote", "promote"]
    assert all(json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))


def test_a_copy_under_another_build_id_is_not_promoted(home: Home, bundle: Path) -> None:
    bundle.rename(bundle.parent / ("0" * 64))
    with pytest.raises(PromotionRefused, match="expected this build id"):
        promote(home.path, "0" * 64, ALL_GATES)
