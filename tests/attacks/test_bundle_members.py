"""Members of a bundle made to break their reader: each is refused with its name, whatever its digests say."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gnn.bundle import preflight
from gnn.bundle.members import (
    ALL,
    CHECKPOINT,
    GOLDEN,
    MANIFEST,
    MANIFEST_DIGEST,
    NORMS,
    REGISTRY_DIR,
    REGISTRY_INDEX,
    WEIGHTS,
)
from gnn.bundle.read import bundle_of
from gnn.online import TamiyoPolicy
from schemas.artifacts import registry_digest
from schemas.errors import BundleRejected
from tests.attacks.bundles import Victim, refused, sealed, with_member, write_members


def tensors_of(victim: Victim) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(victim.members[WEIGHTS])


def header(described: Any, data: bytes = b"") -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + data


F4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
SAFETENSORS = {
    "empty": b"",
    "short": b"\x01",
    "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "a header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "a header of 100 MB": struct.pack("<Q", 100_000_001) + b" " * 64,
    "no JSON": header(b"\x80\x04."),
    "no UTF-8": header(b'{"\xff": 1}'),
    "deep nesting": header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a list": header([1]),
    "no tensors": header({}),
    "overlapping tensors": header({"a": F4, "b": F4}, b"\0" * 4),
    "partly overlapping tensors": header(
        {"a": F4 | {"shape": [2], "data_offsets": [0, 8]}, "b": F4 | {"data_offsets": [4, 8]}}, b"\0" * 8
    ),
    "a hole": header({"a": F4, "b": F4 | {"data_offsets": [8, 12]}}, b"\0" * 12),
    "offsets beyond the data": header({"a": F4 | {"data_offsets": [0, 1 << 40]}}, b"\0" * 4),
    "offsets backwards": header({"a": F4 | {"data_offsets": [4, 0]}}, b"\0" * 4),
    "negative offsets": header({"a": F4 | {"data_offsets": [-4, 0]}}, b"\0" * 4),
    "a shape that overflows": header({"a": F4 | {"shape": [1 << 62, 1 << 62]}}, b"\0" * 4),
    "a shape of other size": header({"a": F4 | {"shape": [3]}}, b"\0" * 4),
    "a negative shape": header({"a": F4 | {"shape": [-1]}}, b"\0" * 4),
    "an unknown dtype": header({"a": F4 | {"dtype": "F128"}}, b"\0" * 4),
    "bytes after the tensors": header({"a": F4}, b"\0" * 8),
    "duplicate names": header(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"\0" * 2
    ),
    "metadata that is no text": header({"__metadata__": {"a": {"b": 1}}, "a": F4}, b"\0" * 4),
}  # fmt: skip


@pytest.mark.parametrize("what", SAFETENSORS)
@pytest.mark.parametrize("name", [WEIGHTS, GOLDEN])
def test_tensors_that_break_their_format_are_refused(victim: Victim, bundle: Path, name: str, what: str) -> None:
    members = with_member(victim.members, name, SAFETENSORS[what])
    if name == WEIGHTS:
        refused(victim, members, name)
        return
    write_members(bundle, members)  # a golden file of the right format with the wrong tensors is found by preflight
    assert not preflight(bundle).clean


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_weights_of_another_type_are_named(victim: Victim, dtype: torch.dtype) -> None:
    weights = tensors_of(victim)
    name = next(name for name in weights if name.endswith("bias"))
    weights[name] = torch.zeros(weights[name].shape).to(dtype)
    assert f"weight {name}" in refused(victim, with_member(victim.members, WEIGHTS, safetensors.torch.save(weights)), WEIGHTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_weight_must_be_finite(victim: Victim, value: float) -> None:
    for name, tensor in tensors_of(victim).items():
        weights = tensors_of(victim)
        flat = tensor.clone().reshape(-1)
        flat[-1] = value
        weights[name] = flat.reshape(tensor.shape)
        found = refused(victim, with_member(victim.members, WEIGHTS, safetensors.torch.save(weights)), WEIGHTS)
        assert f"weight {name}: expected finite numbers" in found
        if len(name) % 7:  # the first of each length are enough
            break


def test_a_manifest_that_lies_about_the_weights_is_refused(victim: Victim) -> None:
    manifest = victim.manifest
    first = next(iter(manifest["weights"]))
    manifest["weights"][first]["shape"] = [1, 2, 3]
    manifest["weights"]["more"] = {"shape": [1], "dtype": "float32"}
    text = refused(victim, sealed(victim.members, json.dumps(manifest).encode()), WEIGHTS)
    assert f"weight {first}: expected ((1, 2, 3)" in text and "weight more" in text


@pytest.mark.parametrize(
    "change",
    [
        {"sage_layers": 65_536}, {"gat_layers": 10**9}, {"members": 10**6}, {"hidden": 10**12}, {"hidden": 0}, {"heads": -1},
        {"dropout": 1e308}, {"layers": 3}, {"hidden": 65_536, "out": 65_536, "head_hidden": 65_536},
    ],
)  # fmt: skip
def test_a_network_without_bounds_is_refused_before_it_is_made(victim: Victim, change: dict[str, Any]) -> None:
    manifest = victim.manifest
    manifest["network"] |= change
    refused(victim, sealed(victim.members, json.dumps(manifest).encode()), "")


JSON = {
    "duplicate keys": lambda text: b'{"a": 1, "a": 2,' + text[1:],
    "a key twice at the end": lambda text: text.rstrip()[:-1] + b', "zz": 1, "zz": 1}',
    "deep lists": lambda text: text.rstrip()[:-1] + b', "zz": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": lambda text: text.rstrip()[:-1] + b', "zz": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "an integer of 5,000 digits": lambda text: text.rstrip()[:-1] + b', "zz": ' + b"9" * 5000 + b"}",
    "a number beyond a double": lambda text: text.rstrip()[:-1] + b', "zz": 1e999}',
    "NaN": lambda text: text.rstrip()[:-1] + b', "zz": NaN}',
    "no UTF-8": lambda text: text.rstrip()[:-1] + b', "\xff": 1}',
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "a list": lambda text: b"[" + text + b"]",
    "two objects": lambda text: text + text,
    "nothing": lambda text: b"",
    "null": lambda text: b"null",
}


@pytest.mark.parametrize("how", JSON)
@pytest.mark.parametrize("name", [MANIFEST, NORMS, REGISTRY_INDEX, f"{REGISTRY_DIR}/seed_registry.json"])
def test_json_that_is_not_strict_is_refused(victim: Victim, name: str, how: str) -> None:
    data = JSON[how](victim.members[name])
    members = sealed(victim.members, data) if name == MANIFEST else with_member(victim.members, name, data)
    refused(victim, members, name)


@pytest.mark.parametrize(
    "lie", ["0" * 64, "", "F" * 64, "x" * 64, None, 5, ["a"], {"sha256": "a"}, "sha256:" + "0" * 64, "０" * 64]
)
def test_digests_that_lie_are_found(victim: Victim, lie: Any) -> None:
    for name in (WEIGHTS, REGISTRY_INDEX):
        manifest = victim.manifest
        manifest["members"][name]["sha256"] = lie
        refused(victim, sealed(victim.members, json.dumps(manifest).encode()), MANIFEST if lie != "0" * 64 else name)
    manifest = victim.manifest
    manifest["registries"]["seed"]["digest"] = lie
    refused(victim, sealed(victim.members, json.dumps(manifest).encode()), "seed" if lie == "0" * 64 else MANIFEST)


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1.5, "x", None])
def test_sizes_that_lie_are_found(victim: Victim, size: Any) -> None:
    manifest = victim.manifest
    manifest["members"][NORMS]["size"] = size
    refused(victim, sealed(victim.members, json.dumps(manifest).encode()), MANIFEST if size not in (0, 1 << 62) else NORMS)


@pytest.mark.parametrize(
    "name",
    ["../manifest.json", "/etc/passwd", "registries/../gnn_norms.json", "", ".", "..", "registries", "a\0b", "\ud800", "C:\\x"],
)
def test_paths_in_the_manifest_are_names_of_no_member(victim: Victim, name: str) -> None:
    for kept in (True, False):
        manifest = victim.manifest
        listed = manifest["members"]
        listed[name] = listed[NORMS] if kept else listed.pop(NORMS)
        refused(victim, sealed(victim.members, json.dumps(manifest).encode()), MANIFEST)


def test_parts_of_another_build_are_all_named(victim: Victim) -> None:
    """Registries and norms of another build under a manifest that lists their bytes."""
    norms = json.loads(victim.members[NORMS])
    norms["loss"]["mean"] += 0.5
    names = {"seed": f"{REGISTRY_DIR}/seed_registry.json", "blueprint": f"{REGISTRY_DIR}/blueprint_registry.json"}
    index = json.loads(victim.members[REGISTRY_INDEX])
    members = dict(victim.members) | {NORMS: json.dumps(norms).encode()}
    for own, file in names.items():
        entries = json.loads(members[file]) | {"another": 9}
        index[own] |= {"digest": registry_digest(entries), "size": len(entries)}
        members[file] = json.dumps(entries).encode()
    text = refused(victim, sealed(members | {REGISTRY_INDEX: json.dumps(index).encode()}), "a mix of builds")
    assert all(name in text for name in (NORMS, *names.values()))
    assert "layer_type" not in text


@pytest.mark.parametrize("line", [b"", b"\n", b"0" * 64, b"0" * 64 + b"  manifest.json\n", b"\xff" * 80, b"0" * 256])
def test_the_digest_of_the_manifest_has_one_form(victim: Victim, line: bytes) -> None:
    refused(victim, victim.members | {MANIFEST_DIGEST: line}, MANIFEST_DIGEST)
    right = victim.members[MANIFEST_DIGEST]
    for other in (right.upper(), right.strip(), right + right, b" " + right, right.replace(b"  ", b" *"), right + b"\n"):
        refused(victim, victim.members | {MANIFEST_DIGEST: other}, MANIFEST_DIGEST)


def test_heads_that_the_code_does_not_know_are_a_mismatch(victim: Victim, bundle: Path) -> None:
    for change in (lambda heads: heads.pop("value"), lambda heads: heads.update(more=heads["value"]), dict.clear):
        manifest = victim.manifest
        change(manifest["heads"])
        write_members(bundle, sealed(victim.members, json.dumps(manifest).encode()))
        assert [mismatch.where for mismatch in preflight(bundle).mismatches] == ["heads"]


GOLDEN_CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "kernel_mask": lambda golden: golden.pop("kernel_mask"),
    "a mask of another width": lambda golden: golden.update(kernel_mask=torch.ones(31, dtype=torch.bool)),
    "an id beyond its table": lambda golden: golden["input.0.ids.layer"].fill_(1 << 40),
    "a negative id": lambda golden: golden["input.0.ids.layer"].fill_(-1),
    "an edge to nowhere": lambda golden: golden.update({"input.0.edge_index.layer_connects": torch.full((2, 9), 1 << 40)}),
    "ids without dimensions": lambda golden: golden.update({"input.0.x.layer": torch.tensor(0.0)}),
    "floats as ids": lambda golden: golden.update({"input.0.ids.layer": golden["input.0.ids.layer"].double()}),
    "not a number": lambda golden: golden["input.0.x.layer"].fill_(float("nan")),
    "outputs that are not a number": lambda golden: golden["output.1.seed_value"].fill_(float("nan")),
    "outputs as booleans": lambda golden: golden.update({"output.1.seed_value": golden["output.1.seed_value"] > 0}),
    "outputs of another shape": lambda golden: golden.update({"output.1.seed_value": golden["output.1.seed_value"][:, :1]}),
    "an output that is absent": lambda golden: golden.pop("output.0.value"),
    "something more": lambda golden: golden.update(payload=torch.zeros(8)),
}


@pytest.mark.parametrize("what", GOLDEN_CHANGES)
def test_golden_graphs_that_lie_are_found_by_preflight(victim: Victim, bundle: Path, what: str) -> None:
    golden = {name: tensor.clone() for name, tensor in safetensors.torch.load(victim.members[GOLDEN]).items()}
    GOLDEN_CHANGES[what](golden)
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in golden.items()})
    write_members(bundle, with_member(victim.members, GOLDEN, data))
    report = preflight(bundle)
    assert not report.clean
    assert all("golden" in mismatch.where for mismatch in report.mismatches)
    with pytest.raises(BundleRejected, match="golden"):
        TamiyoPolicy.load(bundle)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("benefit", [1, 2, 3]), ("benefit", {"mean": 1}), ("benefit", {"mean": "1", "low": 1, "high": 1}), ("gap_closed", 5),
        ("gap_closed", {"model": []}), ("gap_closed_minus_best_baseline", True), ("harm_rate", "0.1"),
        ("harm_rate", {"chosen": []}), ("risk_ece_after", "0.01"), ("value_interval_coverage", {}),
    ],
)  # fmt: skip
def test_figures_of_another_form_are_refused(victim: Victim, name: str, value: Any) -> None:
    manifest = victim.manifest
    manifest["metrics"][name] = value
    assert name in refused(victim, sealed(victim.members, json.dumps(manifest).encode()), MANIFEST)


def flipped_places(victim: Victim, stride: int) -> list[tuple[str, int]]:
    places = [(name, place) for name in ALL for place in range(len(victim.members[name]))]
    return places[::stride]


def flip_all(victim: Victim, places: list[tuple[str, int]]) -> list[str]:
    wrong = []
    for name, place in places:
        data = bytearray(victim.members[name])
        data[place] ^= 1 << (place % 8)
        try:
            bundle_of(victim.path, victim.members | {name: bytes(data)})
            wrong.append(f"{name} byte {place}: loaded")
        except BundleRejected as error:
            if name not in str(error):
                wrong.append(f"{name} byte {place}: not named in {str(error)[:200]}")
    return wrong


def test_flipped_bytes_are_found_and_their_member_named(victim: Victim) -> None:
    places = flipped_places(victim, 397)
    assert {name for name, _ in places} >= {CHECKPOINT, WEIGHTS, GOLDEN, MANIFEST, REGISTRY_INDEX, NORMS}
    assert flip_all(victim, places) == []


@pytest.mark.soak
def test_every_flipped_byte_of_a_bundle_is_found(victim: Victim, capsys: pytest.CaptureFixture[str]) -> None:
    places = flipped_places(victim, 1)
    wrong = flip_all(victim, places)
    with capsys.disabled():
        print(f"\n{len(places)} bytes flipped, {len(places) - len(wrong)} refused with their member named")
    assert wrong == []
