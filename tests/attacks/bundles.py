"""A small bundle in memory, and what an attacker does to its members: with digests that fit, or without."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gnn.bundle import BuildInputs, write_bundle
from gnn.bundle.files import read_members
from gnn.bundle.manifest import digest_of
from gnn.bundle.members import LISTED, MANIFEST, MANIFEST_DIGEST, NORMS, REGISTRY_FILES, REGISTRY_INDEX, digest_line
from gnn.bundle.read import bundle_of
from gnn.model.experiment import train
from gnn.norms import published as norms_files
from gnn.registry.refresh import load, refresh
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.errors import BundleRejected
from tests.attacks.mutations import mutate
from tests.gnn.model.store import problem

Members = dict[str, bytes]
SMALLEST = ModelConfig(
    hidden=2, activation_hidden=2, out=2, sage_layers=0, gat_layers=1, heads=1, embedding=1, identity_embedding=1,
    compile_embedding=1, telemetry_embedding=1, members=1, head_hidden=2, rank=1,
)  # fmt: skip
CONFIG = TrainingConfig(
    epochs=1, rounds_epochs=1, batch_graphs=8, bootstrap=2, boosting=False, gaussian_process=False, model=SMALLEST
)
SMALL_MEMBERS = (REGISTRY_INDEX, *REGISTRY_FILES, NORMS)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')
VALUES = (
    b"null", b"true", b"0", b"-1", b"0.5", b"1e308", b"1e400", b"-1e400", b"65536", b"4294967296", b"9" * 30, b"9" * 5000,
    b"NaN", b"Infinity", b'""', b'"x"', b'"\\ud800"', b'"../../etc/passwd"', b'"__reduce__"', b'"' + b"A" * 20_000 + b'"',
    b"[]", b"{}", b"[[]]", b'{"":0}', b"[" * 5000, b'{"a":' * 900 + b"0" + b"}" * 900,
)  # fmt: skip


def small_bundle(home: Path) -> Path:
    """Publish a bundle of the smallest network in `home`; its directory."""
    refresh(home / "registries", {"layer_type": {"linear", "conv2d"}, "seed": {"seed-1", "seed-2"}})
    norms_files.publish(home, norms_files.Norms.default())
    store, examples = problem(8)
    inputs = BuildInputs(
        tables={"urza.blueprint": "0" * 64},
        registries=load(home / "registries").digests(),
        norms=norms_files.from_json(home / NORMS).digest,
        code="1" * 64,
        configuration=CONFIG.model_dump(mode="json"),
    )
    trained = train(store, examples, CONFIG)
    return write_bundle(home, trained, registries=home / "registries", norms=home / NORMS, dataset=store, inputs=inputs)


@dataclass(frozen=True)
class Victim:
    """A sound bundle: where it stands, and its members."""

    path: Path
    members: Members

    @classmethod
    def of(cls, path: Path) -> "Victim":
        return cls(path, read_members(path))

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.members[MANIFEST])
        return found


def sealed(members: Mapping[str, bytes], manifest: bytes | None = None) -> Members:
    """The members with digests and sizes that fit: in the manifest, if it is still one that lists them, and of the manifest."""
    found = dict(members)
    if manifest is not None:
        found[MANIFEST] = manifest
    else:
        parsed = json.loads(found[MANIFEST])
        parsed["members"] = {name: {"sha256": digest_of(found[name]), "size": len(found[name])} for name in LISTED}
        found[MANIFEST] = json.dumps(parsed).encode()
    found[MANIFEST_DIGEST] = digest_line(digest_of(found[MANIFEST]))
    return found


def with_member(members: Mapping[str, bytes], name: str, data: bytes) -> Members:
    """The members with another one of that name, and digests that fit."""
    return sealed({**members, name: data})


def refused(victim: Victim, members: Mapping[str, bytes], name: str) -> str:
    """Why these members are refused; `name` must stand in it."""
    with pytest.raises(BundleRejected) as found:
        bundle_of(victim.path, members)
    assert name in str(found.value)
    return str(found.value)


def write_members(directory: Path, members: Mapping[str, bytes]) -> None:
    for name, data in members.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def swap_token(data: bytes, chance: random.Random) -> bytes:
    """JSON with one of its words, numbers, keys or constants replaced by a value that is made to hurt."""
    tokens = _tokens(data)
    if not tokens:
        return chance.choice(VALUES)
    start, end = chance.choice(tokens)
    return data[:start] + chance.choice(VALUES) + data[end:]


@cache
def _tokens(data: bytes) -> list[tuple[int, int]]:
    return [hit.span() for hit in _TOKEN.finditer(data)]


def _drop(data: bytes, chance: random.Random) -> bytes:
    """A JSON object with something deep inside it left out, doubled, or moved elsewhere."""
    parsed = json.loads(data)
    nodes = [node for node in _containers(parsed) if node]
    if not nodes:
        return chance.choice(VALUES)
    node, other = chance.choice(nodes), chance.choice(nodes)
    key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
    kind = chance.choice(("drop", "move", "add"))
    if kind == "drop":
        del node[key]
    elif kind == "add" and isinstance(node, dict):
        node[chance.choice(("../x", "", "__class__", "\ud800", "version", "seed"))] = node[key]
    else:
        value = json.loads(json.dumps(node[key]))
        if isinstance(other, dict):
            other[chance.choice(list(other))] = value
        else:
            other[chance.randrange(len(other))] = value
    return json.dumps(parsed).encode()


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def forged(victim: Victim, chance: random.Random) -> tuple[str, Members]:
    """The members with one thing done to the manifest or to a registry, and in words what.

    Half of them carry digests that fit: whoever can write a bundle can write its digests too.
    """
    name = MANIFEST if chance.random() < 0.5 else chance.choice(SMALL_MEMBERS)
    data = victim.members[name]
    how = chance.choice(("bytes", "token", "token", "shape"))
    if how == "bytes":
        data, _ = mutate(data, chance)
    else:
        data = swap_token(data, chance) if how == "token" else _drop(data, chance)
    seals = chance.random() < 0.5
    label = f"{name} {how} {'sealed' if seals else 'bare'}"
    if not seals:
        return label, {**victim.members, name: data}
    if name == MANIFEST:
        return label, sealed(victim.members, data)
    members = with_member(victim.members, name, data)
    return (label, members) if chance.random() < 0.3 else (f"{label} through", _followed(members, name))


def _followed(members: Members, name: str) -> Members:
    """The manifest and the index follow a changed registry or norms, so that what is in it is looked at."""
    from schemas.artifacts import REGISTRIES, registry_digest

    manifest = json.loads(members[MANIFEST])
    try:
        parsed = json.loads(members[name])
        if name == NORMS:
            content = {key: value for key, value in parsed.items() if key != "version"}
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            manifest["norms"]["digest"] = manifest["inputs"]["norms"] = digest_of(text.encode())
        else:
            index = json.loads(members[REGISTRY_INDEX])
            for own, spec in REGISTRIES.items():
                entries = json.loads(members[f"registries/{spec.file}"])
                digest = registry_digest(entries)
                manifest["registries"][own]["digest"] = manifest["inputs"]["registries"][own] = digest
                index[own] |= {"digest": digest, "size": len(entries)}
            members = members | {REGISTRY_INDEX: json.dumps(index).encode()}
        manifest["build_id"] = BuildInputs.model_validate(manifest["inputs"]).build_id
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return members  # it is no JSON any more, or another kind of it
    return sealed(members | {MANIFEST: json.dumps(manifest).encode()})
