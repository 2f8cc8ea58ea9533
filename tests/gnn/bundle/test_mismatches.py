"""What preflight, promotion and reading say: where, what was expected, what was found; and what is kept on record."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gnn.bundle import preflight, promote, read_bundle, rollback, serving
from gnn.bundle.files import _NAMED
from gnn.bundle.gates import gates
from gnn.bundle.golden import differences
from gnn.bundle.manifest import digest_of
from gnn.bundle.preflight import Mismatch
from gnn.bundle.promote import promotions
from gnn.registry.refresh import refresh
from schemas.errors import BundleRejected, PromotionRefused
from schemas.features import GROUPS, Kind
from tests.gnn.bundle.conftest import Home
from tests.gnn.bundle.test_promotion import ALL_GATES
from tests.gnn.bundle.test_write_read import manifest_of, reseal


def test_channels_and_tensors_have_the_types_of_their_kinds(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    kinds = {(group.family, f.name): f.kind for group in GROUPS for f in group.features}
    for prefix, groups in (("node", manifest["node_types"]), ("edges", manifest["relations"])):
        for name, group in groups.items():
            for feature in group["features"]:
                kind = kinds[f"{prefix}.{name}", feature["name"]]
                assert feature["dtype"] == ("int64" if kind is Kind.CATEGORICAL else "float32"), feature
    types = {name.partition(".")[0]: set() for name in manifest["tensors"]}
    for name, spec in manifest["tensors"].items():
        types[name.partition(".")[0]].add(spec["dtype"])
    assert (types["x"], types["edge_attr"]) == ({"float32"}, {"float32"})
    assert types["ids"] == types["edge_ids"] == types["edge_index"] == {"int64"}


def test_a_mismatch_says_what_was_expected_and_what_was_found(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    spec = manifest["tensors"].pop("x.layer")
    count = len(manifest["node_types"]["layer"]["features"])
    manifest["node_types"]["strange"] = manifest["node_types"].pop("layer")
    reseal(bundle, manifest)
    found = preflight(bundle).mismatches
    assert Mismatch("tensor x.layer", f"float32 {spec['shape']}", "nothing") in found
    assert Mismatch("node type layer", f"{count} features", "nothing") in found
    assert Mismatch("node type strange", "nothing", f"{count} features") in found


def test_heads_of_another_code_are_named(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    own = sorted(manifest["heads"])
    manifest["heads"]["oracle"] = manifest["heads"].pop("value")
    reseal(bundle, manifest)
    theirs = sorted({*own, "oracle"} - {"value"})
    assert Mismatch("heads", ", ".join(own), ", ".join(theirs)) in preflight(bundle).mismatches


def test_golden_tensors_that_nobody_asks_for_are_named(bundle: Path) -> None:
    sound = read_bundle(bundle)
    found = differences(sound.network, {**sound.golden, "output.1.oracle": torch.zeros(1)}, sound.norms.priors)
    assert list(found.values()) == ["no such tensor expected"]


def test_a_golden_answer_that_differs_is_a_mismatch(bundle: Path) -> None:
    golden = safetensors.torch.load_file(bundle / "golden.safetensors")
    golden["output.1.seed_value"] = golden["output.1.seed_value"] + 1.0
    data = safetensors.torch.save(golden)
    (bundle / "golden.safetensors").write_bytes(data)
    manifest = manifest_of(bundle)
    manifest["members"]["golden.safetensors"] = {"sha256": digest_of(data), "size": len(data)}
    reseal(bundle, manifest)
    (found,) = preflight(bundle).mismatches
    assert (found.where, found.expected) == ("golden output 1.seed_value", "the recorded answer")


def test_a_weight_that_the_manifest_lists_otherwise_is_named(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    name, spec = next(iter(manifest["weights"].items()))
    shape = tuple(spec["shape"])
    manifest["weights"][name]["shape"] = [*shape, 2]
    reseal(bundle, manifest)
    told = f"weight {name}: expected ({(*shape, 2)}, 'float32') by manifest.json, found ({shape}, 'float32')"
    with pytest.raises(BundleRejected, match=f"{re.escape(told)}$"):
        read_bundle(bundle)


def test_many_faults_of_the_files_are_counted(bundle: Path) -> None:
    for number in range(_NAMED + 3):
        (bundle / f"extra-{number:03}").write_text("")
    with pytest.raises(BundleRejected) as refused:
        read_bundle(bundle)
    told = str(refused.value)
    assert told.count("not expected, found this extra member") == _NAMED
    assert told.endswith("; and 3 more. Copy or build it again.")


def test_a_refused_promotion_lists_every_failed_gate_and_what_to_do(home: Home, bundle: Path) -> None:
    failed = [gate for gate in gates(read_bundle(bundle).manifest) if not gate.passed]
    assert len(failed) > 1
    with pytest.raises(PromotionRefused) as refused:
        promote(home.path, bundle.name)
    assert str(refused.value) == (
        f"bundle {bundle.name}: " + "; ".join(f"gate {gate.name}: {gate.detail}" for gate in failed)
        + ". The serving bundle stays; see its metrics in manifest.json, or waive a gate with --waive GATE --reason TEXT."
    )  # fmt: skip
    assert serving(home.path) is None


def test_the_record_holds_every_gate_with_its_figure(home: Home, bundle: Path) -> None:
    report = promote(home.path, bundle.name, ALL_GATES)
    (entry,) = promotions(home.path)
    assert entry["gates"] == {gate.name: {"detail": gate.detail, "passed": gate.passed} for gate in report.gates}
    assert set(entry) == {"action", "at", "build_id", "by", "gates", "previous", "waived"}


def test_a_rollback_is_not_held_up_by_what_the_serving_bundle_has_learned_since(home: Home, bundle: Path) -> None:
    promote(home.path, bundle.name, ALL_GATES)
    refresh(home.path / "registries", {"layer_type": {"linear", "conv2d", "lstm"}, "seed": {"seed-1", "seed-2"}})
    grown = home.write("b")
    promote(home.path, grown.name, ALL_GATES)
    with pytest.raises(PromotionRefused, match="key 'lstm'"):
        promote(home.path, bundle.name, ALL_GATES)
    assert rollback(home.path).build_id == bundle.name
    assert serving(home.path) == bundle.name
