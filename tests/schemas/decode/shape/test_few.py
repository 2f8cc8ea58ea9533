"""A few rows are shaped as Python lists, many as whole columns: both give the same rows, counts and errors."""

import math
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.contracts import FOLDERS
from schemas.decode import decode_packets
from schemas.decode.message.leyline import decode_messages
from schemas.decode.shape.collector import Collector, Origin
from schemas.decode.shape.map_entries import FEW
from schemas.errors import ContractError
from schemas.leyline import leyline_pb2 as pb

MANY = FEW + 16
NUMBERS = (0.0, 1.0, 0.5, -2.0, 1e30, math.nan, math.inf)
METRICS = ("loss", "größe", "", "alpha", "alpha_steps", "alpha_total_steps", "risk_tolerance", "blend_allowed")


def metrics(random: Random) -> dict[str, float]:
    return {name: random.choice(NUMBERS) for name in METRICS if random.random() < 0.3}


def seed(random: Random, number: int) -> pb.SeedState:
    found = pb.SeedState(
        seed_id=f"s{number}",
        stage=random.choice((0, 1, 2, 77)),  # type: ignore[arg-type]  # 77 is no stage
        layer_depth=random.choice((0, 3)),
        gradient_norm=random.choice(NUMBERS),
        metrics=metrics(random),
        monitored_layers=["l0", ""][: random.randrange(3)],
        policy_version=random.choice(("", "p")),
    )
    if random.random() < 0.5:
        found.alpha, found.global_step, found.quarantine_only = random.choice(NUMBERS), random.choice((0, 9)), False
    if random.random() < 0.5:
        found.alpha_schedule.method, found.alpha_schedule.total_steps = random.choice(("", "cosine")), random.choice((0, 9))
    if random.random() < 0.5:
        found.capabilities.allowed_blending_methods.extend(["linear"][: random.randrange(2)])
    return found


def layer(random: Random, number: int) -> pb.LayerTelemetry:
    found = pb.LayerTelemetry(layer_id=f"l{number}")
    for name in ("loss", "gradient_norm", "hook_latency_ms"):
        if random.random() < 0.6:
            setattr(found, name, random.choice(NUMBERS))
    return found


def packet(random: Random, number: int) -> bytes:
    """A sound packet in which anything optional may be missing."""
    found = pb.SystemStatePacket(
        training_run_id="r",
        packet_id=f"p{number}",
        timestamp_ns=random.choice((7, 2**62)),
        version=random.choice((0, 1)),
        global_step=random.choice((0, 2**63 - 1)),
        training_loss=random.choice(NUMBERS),
        experiment_name=random.choice(("", "digits/mlp")),
        training_metrics=metrics(random),
        layers=[layer(random, place) for place in range(random.randrange(4))],
        seed_states=[seed(random, place) for place in range(random.randrange(3))],
    )
    if random.random() < 0.5:
        found.hardware_context.device_type = random.choice(("", "cpu"))
    data: bytes = found.SerializeToString(deterministic=True)
    return data


def joined(parts: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    return {name: pa.concat_tables([part[name] for part in parts if name in part]) for part in parts for name in part}


@pytest.mark.parametrize("start", range(6))
def test_packets_one_by_one_give_the_rows_of_all_together(start: int) -> None:
    random = Random(start)
    packets = [packet(random, number) for number in range(MANY)]
    together, alone = decode_packets(packets), joined([decode_packets([one]) for one in packets])
    assert together.keys() == alone.keys()
    for name, rows in together.items():
        rows.validate(full=True)
        alone[name].validate(full=True)
        assert rows.schema == alone[name].schema
        assert rows.to_pylist() == alone[name].to_pylist(), name


def unknown(packets: list[bytes]) -> dict[str, int]:
    collector = Collector(FOLDERS["tolaria/system_state"], "f", "d")
    assert not decode_messages(collector, "SystemStatePacket", packets, Origin(np.arange(len(packets)), packets))
    return collector.finish().unknown_fields


def test_unknown_enum_numbers_are_counted_alike() -> None:
    random = Random(1)
    packets = [packet(random, number) for number in range(MANY)]
    alone = [unknown([one]) for one in packets]
    assert unknown(packets) == {"SeedLifecycleStage=77": sum(one.get("SeedLifecycleStage=77", 0) for one in alone)}
    assert any(alone)


BAD: dict[str, dict[str, Any]] = {
    "a time beyond 64 bits": {"timestamp_ns": 2**63},
    "a step beyond 64 bits": {"global_step": 2**64 - 1},
    "no time": {"timestamp_ns": 0},
    "no run": {"training_run_id": ""},
    "an element without an id": {"layers": [pb.LayerTelemetry()]},
    "a share above 1": {"layers": [pb.LayerTelemetry(layer_id="l", update_frequency=1.5)]},
    "a string beyond the limit": {"experiment_name": "x" * (1024 * 1024 + 1)},
    "a map beyond the limit": {"training_metrics": {str(number): 1.0 for number in range(200_001)}},
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_packet_alone_and_among_others_raises_the_same(what: str) -> None:
    sent: dict[str, Any] = {"training_run_id": "r", "packet_id": "p", "timestamp_ns": 7} | BAD[what]
    bad = pb.SystemStatePacket(**sent)
    data, others = bad.SerializeToString(), [packet(Random(2), number) for number in range(MANY)]
    with pytest.raises(ContractError) as alone:
        decode_packets([data])
    with pytest.raises(ContractError) as among:
        decode_packets([*others, data])
    assert str(among.value) == str(alone.value).replace("packet 0:", f"packet {MANY}:")
