"""The figure of the loop: means over grafts, intervals over hosts, by bundle; what it leaves out and what it does not."""

import math

import pyarrow as pa
import pytest

from tamiyo.live.gains import Gain, gains
from tests.gnn.tables import tables


def command(name: str, build: str, issuer: str = "tamiyo") -> dict[str, object]:
    return {"command_id": name, "issued_by": issuer, "annotations": [("build_id", build)]}


def report(name: str, run: str, u: float | None, horizon: float = 100.0, replicate: int = 0) -> dict[str, object]:
    treated = None if u is None else math.exp(-u) - 1.0
    metrics = [("horizon_steps", horizon)]
    key = f"{name}-{horizon}-{replicate}"
    return {
        "report_id": key, "command_id": name, "training_run_id": run, "metrics": metrics,
        "base_loss": 1.0, "control_delta": 0.0, "treated_delta": treated,
    }  # fmt: skip


def of(commands: list[dict[str, object]], reports: list[dict[str, object]]) -> dict[str, Gain]:
    found: dict[str, pa.Table] = tables(tamiyo__command=commands, tamiyo__field_report=reports)
    return dict(gains(found["tamiyo.command"], found["tamiyo.field_report"], 100))


def test_gains_by_bundle() -> None:
    commands = [command("a", "old"), command("b", "old"), command("c", "new"), command("d", "new", "recorder")]
    reports = [
        report("a", "run-1", 0.2),
        report("a", "run-1", 0.4, replicate=1),  # of the same graft: averaged first
        report("a", "run-1", 9.0, horizon=50.0),  # another horizon
        report("b", "run-2", -0.1),
        report("c", "run-3", 0.5),
        report("d", "run-3", 7.0),  # the recorder's own
        report("e", "run-3", 7.0),  # of a command that nobody knows
    ]
    found = of(commands, reports)
    assert set(found) == {"", "old", "new"}
    old = found["old"]
    assert (old.grafts, old.hosts, old.better, old.diverged) == (2, 2, 1, 0)
    assert old.gain.mean == pytest.approx(0.1, abs=1e-6)
    assert old.gain.low == pytest.approx(-0.1, abs=1e-6)
    assert old.gain.high == pytest.approx(0.3, abs=1e-6)
    assert found[""].gain.mean == pytest.approx((0.3 - 0.1 + 0.5) / 3, abs=1e-6)
    assert "+0.1000 nats" in str(old)


def test_a_graft_that_diverged_counts_against_the_policy() -> None:
    found = of([command("a", "x"), command("b", "x")], [report("a", "run-1", None), report("b", "run-2", 0.5)])[""]
    assert (found.grafts, found.diverged, found.better) == (2, 1, 1)
    assert found.gain.mean == pytest.approx(-0.25, abs=1e-6)


def test_no_graft_is_told() -> None:
    assert str(of([command("a", "x")], [])[""]) == "no graft was measured"
