"""The closed loop as people run it: hosts obey the serving bundle, the pipeline learns from it, and the next bundle serves."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from lake.store.table_store import TableStore
from tests.components import program
from tests.exports import part_of

# everything real but the size of the model; its gates let it through, and it grafts whatever it expects of it
TINY = """
[gates]
benefit_above = -100.0
gap_closed_above = -1e9
lead_at_least = -1e9
harm_above_random = 1.0
risk_ece_at_most = 1.0
coverage_from = 0.0
coverage_to = 1.0

[training]
epochs = 1
rounds_epochs = 1
steps = 2
bootstrap = 20
boosting = false
gaussian_process = false

[training.model]
hidden = 16
activation_hidden = 16
out = 16
heads = 2
head_hidden = 16
rank = 4
members = 2
"""
BOLD = "min_value = -100.0\nmax_harm = 1.0\nbudget_ms = 60000\n"


def close_the_loop(place: Path, *arguments: str, repository: Path) -> str:
    command = [sys.executable, "-m", "tamiyo.live.loop", str(place), *arguments]
    env = {"TAMIYO_SERVING_BUDGET_MS": "60000"} | os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.soak
@pytest.mark.pipeline
def test_the_loop_closes(sample: Path, tmp_path: Path, repository: Path) -> None:
    program("redis-server", purpose="the loop")
    place = tmp_path / "loop"
    place.mkdir()
    (place / "pipeline.toml").write_text(TINY)
    (place / "serving.toml").write_text(BOLD)
    exports = part_of(sample, tmp_path / "recorded", batches=1)
    said = close_the_loop(place, "--from", str(exports), "--hosts", "2", "--rate", "5", repository=repository)
    assert "hot swap: the new bundle took over" in said
    assert "generation 1: 2 hosts" in said
    assert "generation 2: 2 hosts" in said
    tables = TableStore(place)
    commands, reports = tables.read("tamiyo.command"), tables.read("tamiyo.field_report")
    own = commands.filter(pc.equal(commands["issued_by"], "tamiyo"))
    ids = set(own["command_id"].to_pylist())
    measured = [row for row in reports.to_pylist() if row["command_id"] in ids]
    assert measured, said
    builds = {dict(row["annotations"]).get("build_id") for row in own.to_pylist()} - {None}
    bundles = {path.name for path in (place / "bundles").iterdir() if len(path.name) == 64}
    assert len(bundles) == 2  # `tamiyo run --no-train` ran twice and trained nothing
    assert builds <= bundles
    # what was measured is an example of the next training, in the state that the policy saw
    examples = tables.read("training.examples").select(["training_run_id", "packet_id", "seed_id", "kernel"]).to_pylist()
    keys = {tuple(row.values()) for row in examples}
    for row in measured:
        assert (row["training_run_id"], row["packet_id"], row["seed_id"], row["blueprint_id"]) in keys
    assert "mean gain at 100 steps of all grafts" in said
    assert not list((place / "exports").rglob("*.tmp"))


@pytest.mark.soak
def test_the_loop_closes_on_the_whole_sample(sample: Path, tmp_path: Path, repository: Path) -> None:
    program("redis-server", purpose="the loop")
    said = close_the_loop(tmp_path / "loop", repository=repository)
    print(said)
    assert "mean gain at 100 steps of all grafts" in said
