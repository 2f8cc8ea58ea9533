"""Bundles made to break their reader: each is refused with the member named, and no code of theirs runs."""

import ast
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from tests.attacks.bundles import Victim, refused, sealed, with_member, write_members

FORBIDDEN = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pandas"}
LOADS = {"torch.load", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load"}
OWN_CHECKPOINT = Path("gnn/model/checkpoint.py")  # of an interrupted training; no part of a bundle
CALLS = {"eval", "exec", "compile", "__import__"}


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


def test_a_sound_copy_reads(victim: Victim, bundle: Path) -> None:
    assert read_members(bundle) == victim.members
    assert preflight(bundle).clean
