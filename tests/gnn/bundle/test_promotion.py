"""Preflight, gates, promotion and rollback."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.bundle import GateConfig, gates, preflight, promote, read_bundle, rollback, serving
from gnn.bundle.manifest import Manifest
from gnn.bundle.promote import PROMOTIONS, promotions
from gnn.model.trained import HeadStatus
from gnn.registry.refresh import refresh
from schemas.errors import PromotionRefused
from tests.gnn.bundle.conftest import Home
from tests.gnn.bundle.test_write_read import manifest_of, reseal

ALL_GATES = dict.fromkeys(("heads", "gap_closed", "risk_calibration", "value_coverage"), "a test")


def judged(manifest: Manifest, **metrics: object) -> dict[str, bool]:
    return {g.name: g.passed for g in gates(manifest.model_copy(update={"metrics": manifest.metrics | metrics}))}


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
    found = [m.where for m in preflight(bundle, batch=other).mismatches]
    assert sorted(found) == ["live batch ids.seed", "live batch x.layer"]


def test_gates_follow_their_figures(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    good = {"gap_closed_minus_best_baseline": {"mean": 0.1, "low": -0.01, "high": 0.2}, "risk_ece_after": 0.05,
            "value_interval_coverage": 0.9}  # fmt: skip
    assert all(judged(manifest, **good).values())
    low = {"mean": 0.1, "low": -0.02, "high": 0.2}
    assert not judged(manifest, **good | {"gap_closed_minus_best_baseline": low})["gap_closed"]
    assert not judged(manifest, **good | {"risk_ece_after": 0.051})["risk_calibration"]
    assert not judged(manifest, **good | {"value_interval_coverage": 0.96})["value_coverage"]
    assert not any(judged(manifest, **dict.fromkeys(good))[name] for name in ALL_GATES if name != "heads")


def test_thresholds_are_configuration(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    wide = GateConfig(lead_above=-100, risk_ece_at_most=1, coverage_from=0, coverage_to=1)
    poor = {
        "gap_closed_minus_best_baseline": {"mean": -1.0, "low": -2.0, "high": 0.0},
        "risk_ece_after": 0.5,
        "value_interval_coverage": 0.2,
    }
    found = manifest.model_copy(update={"metrics": manifest.metrics | poor})
    assert all(g.passed for g in gates(found, wide))
    assert [g.name for g in gates(found) if not g.passed] == ["gap_closed", "risk_calibration", "value_coverage"]


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
    with pytest.raises(PromotionRefused, match="gate gap_closed"):
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
    rest = {name: reason for name, reason in ALL_GATES.items() if name != "heads"}
    with pytest.raises(PromotionRefused, match=r"gate heads: untrained: policy \(no usable label\)"):
        promote(home.path, bundle.name, rest)
    assert promote(home.path, bundle.name, ALL_GATES).waived["heads"] == "a test"


@pytest.mark.parametrize(("waive", "message"), [({"preflight": "x"}, "expected one of"), ({"heads": " "}, "expected a reason")])
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
