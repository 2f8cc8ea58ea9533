"""Our telemetry before the existing alert rules: what fires, and after how many packets."""

import time
from pathlib import Path
from typing import Any

import pytest

from gnn.online.config import ServingConfig
from gnn.online.policy import TamiyoPolicy
from gnn.online.snapshot import Snapshot
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live.hub import Hub
from tests.compatibility.peer import ALERTS
from tests.gnn.online.conftest import bundle, bundle_path, metadata_tables, published, trained  # noqa: F401 - fixtures
from tests.gnn.online.conftest import packet as state


@pytest.fixture(params=sorted(ALERTS))
def alerts(request: pytest.FixtureRequest) -> Any:
    return ALERTS[request.param]()


def metrics_of(packet: pb.TelemetryPacket) -> dict[str, float]:
    """What the existing reader of telemetry hands to the rules: values by name."""
    return {metric.name: metric.value for metric in pb.TelemetryPacket.FromString(packet.SerializeToString()).metrics}


class Host:
    """A policy that decides on one host's packets, and what it tells of each."""

    def __init__(self, path: Path, **sheet: Any) -> None:
        self.policy = TamiyoPolicy.load(path, ServingConfig())
        tables = metadata_tables()
        if sheet:
            rows = tables["urabrask.bsds"].to_pylist()
            tables["urabrask.bsds"] = type(tables["urabrask.bsds"]).from_pylist(
                [rows[0] | sheet], schema=tables["urabrask.bsds"].schema
            )
        self.snapshot = Snapshot.of(self.policy.bundle, tables, time.time_ns())

    def told(self, packet: pb.SystemStatePacket) -> dict[str, float]:
        """The metrics of the one telemetry packet of a decision."""
        self.policy.decide(packet, self.snapshot)
        found = [one for one in self.policy.drain_telemetry() if "reason" in one.system_health.indicators]
        assert len(found) == 1
        return metrics_of(found[0])


def bare(step: int) -> pb.SystemStatePacket:
    """A packet with nothing but a loss."""
    return pb.SystemStatePacket(
        version=1, packet_id=f"p-{step}", training_run_id="run-9", timestamp_ns=time.time_ns(), training_metrics={"loss": 0.5}
    )


def test_low_coverage_fires_at_the_third_packet_and_once(alerts: Any, bundle_path: Path) -> None:  # noqa: F811
    host, fired = Host(bundle_path), []
    for step in range(5):
        metrics = host.told(bare(step))
        assert metrics["tamiyo.gnn.feature_coverage"] < 0.7
        alerts.evaluate(metrics)
        fired.append(alerts.fired.count("tamiyo_coverage_low"))
    assert fired == [0, 0, 1, 1, 1]


def test_a_whole_packet_fires_nothing(alerts: Any, bundle_path: Path) -> None:  # noqa: F811
    host = Host(bundle_path, risk_score=0.79)
    for step in range(5):
        metrics = host.told(state(step))
        alerts.evaluate(metrics | {"tamiyo.gnn.feature_coverage": max(0.7, metrics["tamiyo.gnn.feature_coverage"])})
        assert metrics["tamiyo.bsds.hazard_critical_signal"] == metrics["tamiyo.bsds.hazard_high_signal"] == 0.0
    assert alerts.fired == []


@pytest.mark.parametrize(
    ("sheet", "name", "at"),
    [
        ({"hazard_band": "CRITICAL"}, "tamiyo_bsds_critical", 1),
        ({"hazard_band": "HIGH"}, "tamiyo_bsds_high", 3),
        ({"risk_score": 0.8}, "tamiyo_bsds_elevated_risk", 1),
        ({"risk_score": 0.95}, "tamiyo_bsds_elevated_risk", 1),
    ],
)
def test_hazards_and_risks_fire_after_their_count_of_packets(
    alerts: Any, bundle_path: Path, sheet: dict[str, Any], name: str, at: int  # noqa: F811
) -> None:  # fmt: skip
    host, fired = Host(bundle_path, **sheet), []
    for step in range(5):
        alerts.evaluate(host.told(state(step)))
        fired.append(alerts.fired.count(name))
    assert fired == [int(step + 1 >= at) for step in range(5)]
    other = {"tamiyo_bsds_critical", "tamiyo_bsds_high", "tamiyo_bsds_elevated_risk"} - {name}
    assert not other & set(alerts.fired)


def test_both_engines_agree_on_whatever_comes() -> None:
    """What is stated of the rules is what its own engine does, on long random telemetry."""
    import random

    chance, stated, real = random.Random(3), ALERTS["stated"](), ALERTS["real"]()
    for _ in range(3000):
        metrics = {name: chance.choice((0.0, 0.69, 0.7, 1.0)) for name, _, _ in stated.RULES.values() if chance.random() < 0.9}
        stated.evaluate(metrics)
        real.evaluate(metrics)
    assert stated.fired == real.fired and len(real.fired) > 100


def test_the_hub_says_no_more_than_the_decisions_did(alerts: Any, bundle_path: Path) -> None:  # noqa: F811
    """A packet of the hub holds the newest values: a hazard that was not told before does not come from it."""
    host, hub = Host(bundle_path, hazard_band="MEDIUM"), Hub()
    for step in range(4):
        host.policy.decide(state(step), host.snapshot)
        for told in host.policy.drain_telemetry():
            hub.observe(told)
        view = hub.packet()
        assert view is not None
        alerts.evaluate(metrics_of(view) | {"tamiyo.gnn.feature_coverage": 1.0})
    assert alerts.fired == []
