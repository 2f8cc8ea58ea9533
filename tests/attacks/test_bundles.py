"""Bundles made to break their reader: each is refused with the member named, and no code of theirs runs."""

import ast
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from gnn.bundle import preflight, read_bundle
from gnn.bundle import read as reading
from gnn.bundle.files import read_members
from gnn.bundle.manifest import digest_of
from gnn.bundle.members import (
    ALL,
    CHECKPOINT,
    GOLDEN,
    MANIFEST,
    MANIFEST_DIGEST,
    NORMS,
    REGISTRY_DIR,
    REGISTRY_FILES,
    REGISTRY_INDEX,
    WEIGHTS,
    size_bound,
)
from gnn.bundle.read import bundle_of
from gnn.online import TamiyoPolicy
from schemas.errors import BundleRejected
from tests.attacks.bundles import Victim, sealed, small_bundle, with_member, write_members

WEIGHT = "seed_head.score.bias"
FORBIDDEN = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pandas"}
LOADS = {"torch.load", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load"}
OWN_CHECKPOINT = Path("gnn/model/checkpoint.py")  # of an interrupted training; no part of a bundle
CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim.of(small_bundle(tmp_path_factory.mktemp("victim")))


@pytest.fixture
def bundle(victim: Victim, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(victim.path, tmp_path / "bundles" / victim.path.name))


def refused(victim: Victim, members: dict[str, bytes], name: str) -> str:
    with pytest.raises(BundleRejected) as found:
        bundle_of(victim.path, members)
    assert name in str(found.value)
    return str(found.value)


class Ran(Exception):
    """Code of a bundle ran."""


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("/tmp/tamiyo-code-of-a-bundle-ran",)


# pickles


def test_a_pickle_in_any_member_is_data(victim: Victim, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bombs = [pickle.dumps(Bomb())]
    archive = io.BytesIO()
    torch.save(Bomb(), archive)
    bombs.append(archive.getvalue())
    for name in (WEIGHTS, GOLDEN, NORMS, REGISTRY_INDEX, REGISTRY_FILES[0]):
        for bomb in bombs:
            refused(victim, with_member(victim.members, name, bomb), name)
    for bomb in bombs:
        write_members(bundle, with_member(victim.members, CHECKPOINT, bomb))
        assert read_bundle(bundle).build_id == victim.path.name  # the checkpoint is for other readers; it is never opened here
        assert preflight(bundle).clean
        TamiyoPolicy.load(bundle)
        with pytest.raises(Exception, match=r"[Uu]nsupported|weights_only|Weights only"):
            torch.load(bundle / CHECKPOINT, weights_only=True)
    assert not Path("/tmp/tamiyo-code-of-a-bundle-ran").exists()


def test_nothing_is_unpickled_on_the_way_to_a_decision(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(*arguments: Any, **more: Any) -> None:
        raise Ran

    for module, name in (
        (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (pickle, "_Unpickler"), (torch, "load"), (np, "load"),
        (torch.jit, "load"), (torch.serialization, "load"), (torch.serialization, "_load"),
        (torch.serialization, "_legacy_load"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, poisoned)
    assert preflight(bundle, read_bundle(bundle)).clean
    policy = TamiyoPolicy.load(bundle)
    policy.swap(bundle)
    with pytest.raises(Ran):
        torch.load(bundle / CHECKPOINT)


def loading_modules(repository: Path) -> list[Path]:
    """Our modules that are imported where a bundle is loaded and served."""
    code = (
        "import sys, gnn.online, gnn.bundle, tamiyo.live.holder\n"
        "own = {name.partition('.')[0] for name in ('gnn', 'lake', 'schemas', 'tamiyo')}\n"
        "print('\\n'.join(m.__file__ for n, m in list(sys.modules.items()) if n.partition('.')[0] in own and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.split()]


def named(node: ast.AST) -> str:
    """`a.b.c` of such an expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *reversed(parts)])


def test_no_module_of_the_loading_path_can_unpickle(repository: Path) -> None:
    modules = loading_modules(repository)
    assert len(modules) > 60
    faults = []
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(repository)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                faults += [f"{where}: imports {name}" for name in names if name.partition(".")[0] in FORBIDDEN]
            if isinstance(node, ast.Call):
                called = named(node.func)
                if called in CALLS or called.rpartition(".")[2] == "Unpickler":
                    faults.append(f"{where}: calls {called}")
                safe = any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
                if called in LOADS and not (safe and path.relative_to(repository) == OWN_CHECKPOINT):
                    faults.append(f"{where}: calls {called}")
                faults += [f"{where}: allow_pickle" for keyword in node.keywords if keyword.arg == "allow_pickle"]
    assert faults == []


# what stands in the directory


@pytest.mark.parametrize("name", [WEIGHTS, NORMS, REGISTRY_INDEX, MANIFEST])
def test_links_out_of_the_bundle_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    whole = (bundle / name).read_bytes()
    for target in ("/etc/passwd", "/dev/zero", "/proc/self/mem", str(bundle / MANIFEST), "../../../secret", Path(name).name):
        (bundle / name).unlink()
        (bundle / name).symlink_to(target)
        with pytest.raises(BundleRejected, match=f"{name}: expected a plain file"):
            read_bundle(bundle)
    (bundle / name).unlink()
    (bundle / name).write_bytes(whole)
    read_bundle(bundle)


def test_a_hard_link_is_a_plain_file_whose_bytes_are_checked(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "another name"
    os.link(bundle / WEIGHTS, other)
    read_bundle(bundle)
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    with other.open("r+b") as file:
        file.write(data)
    with pytest.raises(BundleRejected, match=WEIGHTS):
        read_bundle(bundle)


def test_a_socket_or_a_device_is_no_member(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / NORMS).unlink()
    monkeypatch.chdir(bundle)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(NORMS)
        with pytest.raises(BundleRejected, match=f"{NORMS}: expected a plain file"):
            read_bundle(bundle)
    (bundle / NORMS).unlink()
    (bundle / NORMS).symlink_to("/dev/full")
    with pytest.raises(BundleRejected, match=f"{NORMS}: expected a plain file"):
        read_bundle(bundle)


def test_names_that_hide_or_shout_are_shown_in_plain_ascii(bundle: Path) -> None:
    for name in (b"\xff\xfe", b"\x1b[31m\nready", "manifest.json\u202e".encode(), b"..manifest.json", b"Manifest.json"):
        (Path(os.fsdecode(os.fsencode(bundle) + b"/" + name))).write_bytes(b"")
    with pytest.raises(BundleRejected) as found:
        read_bundle(bundle)
    text = str(found.value)
    assert text.removeprefix(f"bundle {bundle}").isascii() and text.isprintable()
    assert text.count("not expected, found this extra member") == 5


def test_a_directory_of_very_many_names_is_refused_in_few_words(bundle: Path) -> None:
    for number in range(3000):
        (bundle / REGISTRY_DIR / f"{number}.json").touch()
    with pytest.raises(BundleRejected, match="and 2900 more") as found:
        read_bundle(bundle)
    assert len(str(found.value)) < 20_000


def test_nested_directories_are_not_walked(bundle: Path) -> None:
    deep = bundle / REGISTRY_DIR / REGISTRY_DIR
    deep.mkdir()
    (deep / "index.json").symlink_to("/dev/zero")
    with pytest.raises(BundleRejected, match=f"{REGISTRY_DIR}/{REGISTRY_DIR}: not expected"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ALL)
def test_a_sparse_giant_is_refused_before_it_is_read(bundle: Path, name: str) -> None:
    with (bundle / name).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleRejected, match=f"{name}: expected at most {size_bound(name)} bytes, found {1 << 40}"):
        read_bundle(bundle)


# between check and use


def test_members_are_read_once_and_what_was_checked_is_what_is_used(
    victim: Victim, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the check every file is exchanged; the bundle that is used is the one that was checked."""
    check, expected = reading._check, bundle_of(victim.path, victim.members)

    def then_exchange(directory: Path, members: dict[str, bytes]) -> Any:
        found = check(directory, members)
        for name in ALL:
            (directory / name).unlink()
        shutil.rmtree(directory)
        directory.symlink_to("/dev")
        return found

    monkeypatch.setattr(reading, "_check", then_exchange)
    found = read_bundle(bundle)
    assert found.registries["layer_type"].entries == expected.registries["layer_type"].entries
    assert found.norms == expected.norms
    state = expected.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.network.state_dict().items())


def test_each_member_is_opened_exactly_once(bundle: Path, repository: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from gnn.bundle import preflight\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, found: opened.append(str(found[0])) if event == 'open' else None)\n"
        "assert preflight(pathlib.Path(sys.argv[1])).clean\n"
        "print(chr(10).join(opened))"
    )
    command = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    opened = Counter(line.rpartition("/")[2] for line in done.stdout.splitlines())
    members = {name.rpartition("/")[2] for name in ALL}
    assert {name: count for name, count in opened.items() if name in members} == dict.fromkeys(members, 1)


def test_a_bundle_that_is_exchanged_while_it_is_read_is_one_or_the_other_or_refused(victim: Victim, tmp_path: Path) -> None:
    other = json.loads(victim.members[MANIFEST])
    other["versions"] = {"torch": "another"}
    second = sealed(victim.members, json.dumps(other).encode())
    both = {digest_of(victim.members[MANIFEST]), digest_of(second[MANIFEST])}
    place, done, seen = tmp_path / "bundle", threading.Event(), Counter[str]()
    write_members(place, victim.members)

    def exchange() -> None:
        turn = 0
        while not done.is_set():
            for name in (MANIFEST, MANIFEST_DIGEST):
                fresh = tmp_path / "fresh"
                fresh.write_bytes((second if turn % 2 else victim.members)[name])
                fresh.replace(place / name)
            turn += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(60):
            try:
                seen[read_bundle(place).manifest_digest] += 1
            except BundleRejected as error:
                assert MANIFEST_DIGEST in str(error)
                seen["refused"] += 1
    finally:
        done.set()
        thread.join()
    assert seen.keys() <= both | {"refused"}


# what stands in the members


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


# every byte


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


def test_a_sound_copy_reads(victim: Victim, bundle: Path) -> None:
    assert read_members(bundle) == victim.members
    assert preflight(bundle).clean
