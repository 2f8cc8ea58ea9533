"""Bundles: what is written is read back whole, and any damage is found and named."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gnn.bundle import is_published, read_bundle, write_bundle
from gnn.bundle.manifest import Manifest
from gnn.bundle.members import ALL, CHECKPOINT, MANIFEST, MANIFEST_DIGEST, REGISTRY_DIR, WEIGHTS, digest_line, size_bound
from gnn.registry.files import resolve
from gnn.registry.refresh import refresh
from lake.durable.publish import switch_link
from schemas.artifacts import REGISTRIES
from schemas.errors import BundleRejected
from schemas.kernels import KERNELS
from tests.gnn.bundle.conftest import Home


def reseal(bundle: Path, manifest: dict) -> None:
    """Write a changed manifest with a digest that fits it, as an attacker would."""
    data = json.dumps(manifest).encode()
    (bundle / MANIFEST).write_bytes(data)
    (bundle / MANIFEST_DIGEST).write_bytes(digest_line(hashlib.sha256(data).hexdigest()))


def manifest_of(bundle: Path) -> dict:
    return json.loads((bundle / MANIFEST).read_bytes())


def test_what_is_written_is_read_back(home: Home, bundle: Path) -> None:
    found = read_bundle(bundle)
    assert found.build_id == bundle.name == home.inputs().build_id
    expected = home.trained.network.state_dict()
    assert found.network.state_dict().keys() == expected.keys()
    assert all(torch.equal(found.network.state_dict()[name], expected[name]) for name in expected)
    assert not found.network.training
    assert found.registries["layer_type"].entries == {"conv2d": 1, "linear": 2}
    assert found.manifest.policy.kernels == list(KERNELS)
    assert found.manifest.metrics == json.loads(json.dumps(home.trained.metrics))
    assert sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()) == sorted(ALL)


def test_networks_of_equal_configuration_share_no_weight(home: Home, bundle: Path) -> None:
    first, second = read_bundle(bundle).network, read_bundle(bundle).network
    expected = home.trained.network.state_dict()
    ours, theirs = dict(first.named_modules()), dict(second.named_modules())
    assert [*ours] == [*theirs] == [name for name, _ in home.trained.network.named_modules()]
    assert not any(ours[name] is theirs[name] for name in ours)
    with torch.no_grad():
        for tensor in (*first.parameters(), *(first.get_buffer(name) for name, _ in first.named_buffers() if name in expected)):
            tensor.zero_()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.state_dict().items())
    assert not any(parameter.requires_grad for parameter in second.parameters())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_bundle(bundle).network.state_dict().items())


def test_the_pt_file_loads_safely_and_holds_weights_registries_and_norms(home: Home, bundle: Path) -> None:
    content = torch.load(bundle / CHECKPOINT, weights_only=True)
    weights = safetensors.torch.load_file(bundle / WEIGHTS)
    assert content["weights"].keys() == weights.keys()
    assert all(torch.equal(content["weights"][name], weights[name]) for name in weights)
    assert content["registries"]["layer_type"] == {"conv2d": 1, "linear": 2}
    assert set(content["registries"]) == set(REGISTRIES)
    assert content["norms"] == json.loads((home.path / "gnn_norms.json").read_text())
    assert content["kernels"] == list(KERNELS)
    assert content["model"] == "tamiyo_gnn_v1"


def test_the_same_build_gives_the_same_bytes_and_is_written_once(home: Home, bundle: Path, tmp_path: Path) -> None:
    before = {name: (bundle / name).read_bytes() for name in ALL}
    stamp = (bundle / MANIFEST).stat().st_mtime_ns
    assert home.write() == bundle
    assert (bundle / MANIFEST).stat().st_mtime_ns == stamp
    shutil.rmtree(bundle)
    home.write()
    assert {name: (bundle / name).read_bytes() for name in ALL} == before


def test_a_damaged_bundle_of_the_build_is_replaced(home: Home, bundle: Path) -> None:
    (bundle / WEIGHTS).write_bytes(b"")
    assert not is_published(home.path, bundle.name)
    assert home.write() == bundle
    assert is_published(home.path, bundle.name)
    assert [p.name for p in bundle.parent.iterdir() if not p.name.startswith(".lock")] == [bundle.name]


def test_current_is_resolved_once(home: Home, bundle: Path) -> None:
    switch_link(home.path / "current", f"bundles/{bundle.name}")
    assert read_bundle(home.path / "current").build_id == bundle.name
    switch_link(home.path / "second", "current")
    with pytest.raises(BundleRejected):
        read_bundle(home.path / "second")


def test_a_mix_of_builds_is_refused(home: Home, bundle: Path) -> None:
    inputs = home.inputs()
    refresh(home.path / "registries", {"layer_type": {"linear", "conv2d", "lstm"}})
    with pytest.raises(BundleRejected, match="a mix of builds: registry layer_type"):
        write_bundle(home.path, home.trained, registries=home.path / "registries", norms=home.path / "gnn_norms.json",
                     dataset=home.store, inputs=inputs)  # fmt: skip
    for name in ("layer_type_registry.json", "index.json"):
        shutil.copy(resolve(home.path / "registries") / name, bundle / REGISTRY_DIR / name)
    with pytest.raises(BundleRejected, match="layer_type_registry"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ALL)
def test_every_flipped_byte_is_found(bundle: Path, name: str) -> None:
    path = bundle / name
    whole = path.read_bytes()
    size = len(whole)
    places = range(size) if size < 120 else [0, size // 2, size - 1, *random.Random(name).sample(range(size), 3)]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << (place % 8))]) + whole[place + 1 :])
        with pytest.raises(BundleRejected):
            read_bundle(bundle)
    path.write_bytes(whole)
    read_bundle(bundle)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "symlink", "directory", "fifo"])
def test_every_member_must_be_its_own_plain_whole_file(bundle: Path, tmp_path: Path, name: str, damage: str) -> None:
    path = bundle / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(whole[:-1])
    elif damage == "longer":
        path.write_bytes(whole + b" ")
    elif damage == "symlink":
        (tmp_path / "copy").write_bytes(whole)
        path.symlink_to(tmp_path / "copy")
    elif damage == "directory":
        path.mkdir()
    elif damage == "fifo":
        os.mkfifo(path)
    with pytest.raises(BundleRejected, match=name.split("/")[-1].split(".")[0]):
        read_bundle(bundle)


def test_extra_members_are_refused_wherever_they_stand(bundle: Path) -> None:
    (bundle / "extra.py").write_text("")
    (bundle / REGISTRY_DIR / "more.json").write_text("{}")
    with pytest.raises(BundleRejected) as refused:
        read_bundle(bundle)
    assert "extra.py: not expected" in str(refused.value)
    assert "registries/more.json: not expected" in str(refused.value)


def test_all_faults_of_the_files_are_listed_at_once(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    (bundle / "gnn_norms.json").unlink()
    with pytest.raises(BundleRejected) as refused:
        read_bundle(bundle)
    assert WEIGHTS in str(refused.value)
    assert "gnn_norms.json" in str(refused.value)


def test_an_oversize_member_is_refused_before_it_is_read(bundle: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(size_bound(MANIFEST) + 1)
    with pytest.raises(BundleRejected, match="expected at most"):
        read_bundle(bundle)


def test_a_linked_registry_directory_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / REGISTRY_DIR).rename(tmp_path / "elsewhere")
    (bundle / REGISTRY_DIR).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRejected, match="registries: expected a directory"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["../manifest.json", "/etc/passwd", "registries/../gnn_norms.json", "x"])
def test_no_path_of_the_manifest_is_opened(bundle: Path, name: str) -> None:
    manifest = manifest_of(bundle)
    manifest["members"][name] = manifest["members"].pop("gnn_norms.json")
    reseal(bundle, manifest)
    with pytest.raises(BundleRejected, match="but no member"):
        read_bundle(bundle)


def test_a_resealed_manifest_with_another_build_id_is_refused(bundle: Path) -> None:
    reseal(bundle, manifest_of(bundle) | {"build_id": "f" * 64})
    with pytest.raises(BundleRejected, match="build_id"):
        read_bundle(bundle)


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"more": 1}, {"outputs": None}, {"network": {"hidden": -1}}])
def test_a_manifest_that_breaks_its_format_is_refused(bundle: Path, change: dict) -> None:
    reseal(bundle, manifest_of(bundle) | change)
    with pytest.raises(BundleRejected, match=next(iter(change))):
        read_bundle(bundle)


def test_weights_that_do_not_fit_the_network_are_listed(bundle: Path) -> None:
    weights = safetensors.torch.load_file(bundle / WEIGHTS)
    name = "seed_head.score.bias"
    weights[name] = torch.zeros(2)
    weights["strange"] = torch.zeros(1)
    data = safetensors.torch.save(weights)
    (bundle / WEIGHTS).write_bytes(data)
    manifest = manifest_of(bundle)
    manifest["members"][WEIGHTS] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    reseal(bundle, manifest)
    with pytest.raises(BundleRejected) as refused:
        read_bundle(bundle)
    assert f"weight {name}" in str(refused.value)
    assert "weight strange" in str(refused.value)


def test_weights_that_are_not_finite_are_refused(bundle: Path) -> None:
    weights = safetensors.torch.load_file(bundle / WEIGHTS)
    weights["seed_head.score.bias"] = torch.full((1,), float("nan"))
    data = safetensors.torch.save(weights)
    (bundle / WEIGHTS).write_bytes(data)
    manifest = manifest_of(bundle)
    manifest["members"][WEIGHTS] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    reseal(bundle, manifest)
    with pytest.raises(BundleRejected, match="finite"):
        read_bundle(bundle)


def test_the_manifest_has_a_json_schema() -> None:
    schema = Manifest.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"build_id", "node_types", "relations", "weights", "metrics", "metrics_missing", "members"} <= set(
        schema["required"]
    )


def test_the_build_id_follows_the_content_alone(home: Home) -> None:
    inputs = home.inputs()
    shuffled = type(inputs)(**{**inputs.model_dump(), "registries": dict(reversed(list(inputs.registries.items())))})
    assert shuffled.build_id == inputs.build_id
    assert home.inputs("b").build_id != inputs.build_id
