"""The copy for the existing system: plain files, `unknown` in them, and reasons for what it could not take."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gnn.norms import published as norms_files
from gnn.registry.peer import NAMES, export_peer, faults_of
from gnn.registry.refresh import refresh
from schemas.errors import RegistryError
from tamiyo.cli import app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    refresh(tmp_path / "home" / "registries", {"layer_type": {"linear", "conv2d"}, "seed": {"seed-1"}})
    norms_files.publish(tmp_path / "home", norms_files.Norms.default())
    return tmp_path / "home"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_copy_is_plain_and_whole(home: Path, tmp_path: Path) -> None:
    found = export_peer(home / "registries", home / "gnn_norms.json", tmp_path / "peer")
    assert sorted(path.name for path in (tmp_path / "peer").iterdir()) == sorted(path.name for path in found)
    assert len(found) == len(NAMES) + 1
    assert not any(path.is_symlink() for path in found)
    for name in NAMES:
        ours, theirs = (read(place / f"{name}_registry.json") for place in (home / "registries", tmp_path / "peer"))
        added = {"unknown": max(ours.values(), default=0) + 1} if name in ("layer_type", "activation_type") else {}
        assert theirs == ours | added
    assert (tmp_path / "peer" / "gnn_norms.json").read_bytes() == (home / "gnn_norms.json").read_bytes()


def test_what_the_peer_could_not_take_is_listed() -> None:
    assert faults_of("schedule", {"a": 1, "b": 4}) == [
        "registry schedule: expected indices without a hole, found 2 unused: 2, 3"
    ]
    for name in ("seed", "blueprint"):
        assert faults_of(name, {str(index): index for index in range(1, 1023)}) == []
        (fault,) = faults_of(name, {str(index): index for index in range(1, 1024)})
        assert fault == f"registry {name}: expected at most 1022 entries, found 1023"
    assert faults_of("layer_type", {str(index): index for index in range(1, 1024)}) == []


def test_a_refused_copy_writes_nothing(home: Path, tmp_path: Path) -> None:
    seeds = {f"seed-{number:04}" for number in range(2000)}
    refresh(home / "registries", {"seed": seeds})
    with pytest.raises(RegistryError, match="at most 1022 entries"):
        export_peer(home / "registries", home / "gnn_norms.json", tmp_path / "peer")
    assert not (tmp_path / "peer").exists()


def test_a_directory_in_use_is_not_written_to(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "peer"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(RegistryError, match="expected a new or empty directory"):
        export_peer(home / "registries", home / "gnn_norms.json", tmp_path / "link")
    (place / "seed_registry.json").write_text("{}")
    with pytest.raises(RegistryError, match="expected a new or empty directory"):
        export_peer(home / "registries", home / "gnn_norms.json", place)


def test_the_command(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export-peer", str(tmp_path / "peer"), "--home", str(home), "--json"])
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["files"]) == 8
    again = CliRunner().invoke(app, ["export-peer", str(tmp_path / "peer"), "--home", str(home)])
    assert again.exit_code == 1
