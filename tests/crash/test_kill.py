"""Real kills at random moments of real runs: nothing torn, nothing lost, and the next run completes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = 10


def kill(place: Path, repository: Path, kills: int, what: str = "killed_runs", *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.crash.{what}", str(place), str(kills), "1", *options]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


def judge(counts: dict[str, Any], kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nkill -9: {counts}")
    assert counts["kills"] == kills
    assert (counts["torn"], counts["lost"], counts["incomplete"]) == (0, 0, 0)


def test_killed_runs_leave_whole_versions(place: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(kill(place, repository, KILLS), KILLS, capsys)


@pytest.mark.soak
def test_200_killed_runs_leave_whole_versions(place: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(kill(place, repository, 200), 200, capsys)


def test_a_killed_training_gives_the_weights_of_an_undisturbed_one(place: Path, repository: Path) -> None:
    found = kill(place, repository, 2, "killed_trainings")
    assert (found["kills"], found["resumed"]) == (2, found["undisturbed"])


@pytest.mark.soak
def test_a_training_killed_ten_times_gives_the_weights_of_an_undisturbed_one(place: Path, repository: Path) -> None:
    found = kill(place, repository, 10, "killed_trainings", "--whole")
    assert (found["kills"], found["resumed"]) == (10, found["undisturbed"])
