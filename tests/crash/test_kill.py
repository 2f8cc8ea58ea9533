"""Real kills at random moments of real runs: nothing torn, nothing lost, and the next run completes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 10


def kill(place: Path, repository: Path, kills: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.crash.killed_runs", str(place), str(kills), "1"]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def judge(counts: dict[str, int], kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nkill -9: {counts}")
    assert counts["kills"] == kills
    assert (counts["torn"], counts["lost"], counts["incomplete"]) == (0, 0, 0)


def test_killed_runs_leave_whole_versions(place: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(kill(place, repository, KILLS), KILLS, capsys)


@pytest.mark.soak
def test_200_killed_runs_leave_whole_versions(place: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(kill(place, repository, 200), 200, capsys)
