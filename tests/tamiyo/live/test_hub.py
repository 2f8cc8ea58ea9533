"""The hub: one taxonomy, the newest value of each thing, feeds with their rate, lag and gaps; nothing feeds on itself."""

from typing import Any

import pytest
from google.protobuf.message import Message

from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus, hub, service
from tamiyo.live.hub import Hub, named
from tamiyo.live.service import Place
from tests.tamiyo.live.stub import CONFIG, StubPolicy, holder_with, messages, running, send_packet, wait_for

SECOND = 10**9


def state(step: int, run: str = "r", **metrics: float) -> pb.SystemStatePacket:
    found = pb.SystemStatePacket(
        packet_id=f"p-{step}", training_run_id=run, timestamp_ns=step * SECOND, global_step=step, training_metrics=metrics
    )
    found.seed_states.add(seed_id="s", stage=pb.SEED_STAGE_BLENDING, alpha=0.25)
    return found


def told(of: Hub) -> dict[str, Any]:
    packet = of.packet()
    assert packet is not None
    assert packet.source_subsystem == "hub"
    return {f"{m.name} {m.attributes.get('training_run_id', m.attributes.get('feed', ''))}".strip(): m for m in packet.metrics}


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("weatherlight", "weatherlight.tasks.running", "weatherlight.tasks.running"),
        ("weatherlight", "slo.latency.breaches_total", "weatherlight.slo.latency.breaches_total"),
        ("weatherlight", "weatherlight.cpu_util_percent", "weatherlight.state.cpu_util_percent"),
        ("tolaria", "loss", "tolaria.state.loss"),
        ("tolaria", "tamiyo.gnn.feature_coverage", "tolaria.tamiyo.gnn.feature_coverage"),
    ],
)
def test_every_name_has_a_system_an_area_and_a_metric(source: str, name: str, expected: str) -> None:
    assert named(source, name) == expected
    assert len(expected.split(".")) >= 3


def test_states_are_read_by_run_and_step_and_the_newest_counts() -> None:
    found = Hub(lambda: 0.0, lambda: 10 * SECOND)
    for packet in (state(3, loss=0.3), state(2, loss=0.9), state(5, run="q", loss=0.5)):
        found.observe(packet)
    metrics = told(found)
    loss = metrics["tolaria.training.loss r"]
    assert (loss.value, loss.unit) == (pytest.approx(0.3), "nats")
    assert dict(loss.attributes) == {"training_run_id": "r", "step_index": "3", "level": "INFO"}
    assert metrics["tolaria.training.loss q"].value == 0.5
    alpha = metrics["kasmina.seed.alpha r"]
    assert (alpha.value, alpha.attributes["seed_id"]) == (0.25, "s")
    assert metrics["hub.feed.lag_s tolaria"].value == 5.0
    assert metrics["hub.feed.messages_total kasmina"].value == 3.0
    assert found.packet() is None


@pytest.mark.parametrize(
    ("message", "name", "level"),
    [
        (pb.BSDSIssued(bsds=pb.BSDS(blueprint_id="b", hazard_band=4, risk_score=0.9)), "urabrask.sheet.risk_score", "CRITICAL"),
        (pb.BSDSFailed(blueprint_id="b", reason="no"), "urabrask.sheet.failed", "WARNING"),
        (pb.KernelCatalogUpdate(blueprint_id="b", compile_ms=3.0, status=3), "tezzeret.kernel.compile_ms", "WARNING"),
        (pb.FieldReport(training_run_id="r", outcome=3), "tamiyo.field_report.outcome", "WARNING"),
        (pb.AdaptationCommand(target_seed_id="s", command_type=5), "tamiyo.command.type", "INFO"),
        (
            pb.TelemetryPacket(source_subsystem="tamiyo", level=3, metrics=[pb.MetricPoint(name="tamiyo.gnn.bsds_missing")]),
            "tamiyo.gnn.bsds_missing",
            "ERROR",
        ),
    ],
)
def test_each_system_is_there(message: Message, name: str, level: str) -> None:
    found = Hub()
    found.observe(message)
    (metric,) = [m for key, m in told(found).items() if key.startswith(name)]
    assert metric.attributes["level"] == level


def test_a_silent_feed_has_a_gap() -> None:
    now = [0.0]
    found = Hub(lambda: now[0], lambda: 0)
    for second in (0.0, 1.0, 2.0, 30.0, 31.0):
        now[0] = second
        found.observe(state(1, loss=1.0))
    now[0] = 33.0
    metrics = told(found)
    assert metrics["hub.feed.gaps_total tolaria"].value == 1.0
    assert metrics["hub.feed.last_seen_s tolaria"].value == 2.0
    assert metrics["hub.feed.rate tolaria"].value == pytest.approx(5 / 33)


def test_a_packet_is_bounded_and_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST", 3)
    found = Hub()
    found.observe(state(1, **{f"m{number}": 1.0 for number in range(5)}))
    assert told(found)["hub.cycle.dropped_total"].value == 4.0


def test_the_hub_does_not_feed_on_itself(place: Place, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Holder", holder_with(StubPolicy()))

    def packets() -> list[pb.TelemetryPacket]:
        raws = messages(client, bus.TELEMETRY, pb.BUS_MESSAGE_TYPE_TELEMETRY)
        return [packet for raw in raws if (packet := pb.TelemetryPacket.FromString(raw)).source_subsystem == "hub"]

    with running(place, CONFIG.model_copy(update={"hub_s": 0.05})):
        send_packet(client, 1)
        wait_for(lambda: any("tolaria.training.loss" in {m.name for m in packet.metrics} for packet in packets()))
        wait_for(lambda: list((place.exports / "oona" / "envelope").glob("*.wal")))
    names = {m.name.partition(".")[0] for packet in packets() for m in packet.metrics}
    assert names == {"tolaria", "tamiyo", "hub"}
    assert all(not m.name.startswith("hub.hub") for packet in packets() for m in packet.metrics)
