"""`tamiyo graph show` writes a PNG of the asked packet, and says what is wrong otherwise."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gnn.encode.build import build_features
from gnn.graph.files import write_shard
from tamiyo.cli import app
from tests.gnn.graph.worlds import world_registries
from tests.gnn.tables import packet, small_world, table

RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    world = small_world(2)
    other = packet(0, "run-b") | {"packet_id": "run-a-0"}
    rows = [*world["tolaria.system_state"].to_pylist(), other]
    world["tolaria.system_state"] = table("tolaria.system_state", rows)
    features = build_features(world, registries=world_registries())
    shard = write_shard(tmp_path / "graphs" / "0", features)
    (tmp_path / "graphs" / "current.json").write_text(json.dumps({"0": shard.name}))
    return tmp_path


@pytest.mark.parametrize("chosen", [["run-a-1"], ["newest"], ["run-a-0", "--run", "run-b"]])
def test_writes_a_png(home: Path, chosen: list[str]) -> None:
    out = home / "graph.png"
    done = RUNNER.invoke(app, ["graph", "show", *chosen, "--home", str(home), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["path"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("chosen", "message"), [(["nowhere"], "found none"), (["run-a-0"], "choose with --run: run-a, run-b")])
def test_refuses_what_is_not_one_graph(home: Path, chosen: list[str], message: str) -> None:
    done = RUNNER.invoke(app, ["graph", "show", *chosen, "--home", str(home)])
    assert done.exit_code == 1
    assert message in done.stderr


def test_without_a_dataset(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["graph", "show", "p", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "tamiyo run" in done.stderr
