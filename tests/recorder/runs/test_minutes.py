"""`minutes` ends a recording in time, and the next one goes on where it stopped."""

import sys
import time
from pathlib import Path

import pytest

from recorder.runs.plan import RecordPlan
from recorder.runs.record import Progress, record
from schemas.leyline import leyline_pb2 as pb

PREPARED, HOST = 15.0, 10.0  # seconds of a clock that only the work moves


class Clock:
    """Stands for the module `time`: the work moves it on."""

    def __init__(self) -> None:
        self.worked = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.worked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A recording whose first phase takes `PREPARED` seconds and whose hosts `HOST` each, without doing anything."""
    clock = Clock()

    def describe_kernels(*_: object) -> dict[str, float]:
        clock.worked += PREPARED
        return {}

    def one_host(plan: RecordPlan, index: int, _: object) -> dict[str, list[pb.SystemStatePacket]]:
        clock.worked += HOST
        return {"tolaria/system_state": [pb.SystemStatePacket(packet_id=f"{plan.seed}-{index}")]}

    module = sys.modules[record.__module__]  # the package exports a function of the module's name
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_describe_kernels", describe_kernels)
    monkeypatch.setattr(module, "record_one", one_host)
    return clock


def hosts(root: Path) -> set[int]:
    """Indices of the hosts that the files of an exports root hold, by their names."""
    spans = [path.name.partition(".")[0].split("-")[2:] for path in (root / "tolaria" / "system_state").iterdir()]
    return {index for first, last in spans for index in range(int(first), int(last) + 1)}


@pytest.mark.parametrize(("minutes", "done"), [(0.1, 1), (0.5, 1), (0.6, 2), (1.0, 4), (2.0, 10)])
def test_no_host_begins_that_would_not_end_in_time(tmp_path: Path, clock: Clock, minutes: float, done: int) -> None:
    record(RecordPlan(exports=tmp_path, minutes=minutes, rotate_hosts=3))
    assert hosts(tmp_path) == set(range(done))
    assert done == 1 or clock.worked <= 60 * minutes


def test_the_next_call_goes_on_where_the_time_ended(tmp_path: Path, clock: Clock) -> None:
    for _ in range(2):
        clock.worked = 0.0
        record(RecordPlan(exports=tmp_path, minutes=1, rotate_hosts=3))
    assert hosts(tmp_path) == set(range(8))
    record(RecordPlan(exports=tmp_path, minutes=60, hosts=9, rotate_hosts=3))
    assert hosts(tmp_path) == set(range(9))


def test_the_estimate_never_exceeds_the_time_that_is_left(tmp_path: Path, clock: Clock) -> None:
    told: list[Progress] = []
    record(RecordPlan(exports=tmp_path, minutes=1, hosts=50), told.append)
    left = [progress.remaining_s for progress in told if progress.done]
    assert left == [pytest.approx(60 - PREPARED - HOST * k, abs=0.5) for k in range(1, 5)]
    assert str(told[0]).startswith("recording 50 hosts within 1 minutes of seed 1")
