"""Exports as live traffic: every message once, in order of time, and the service lands what the exports held."""

from pathlib import Path
from typing import Any

import pytest

from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.errors import ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.traffic import Traffic
from tests.exports import part_of
from tests.tamiyo.live.redis_server import RedisServer
from tests.tamiyo.live.stub import SECRET, messages


@pytest.fixture(scope="module")
def hosts(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return part_of(sample, tmp_path_factory.mktemp("traffic") / "exports", batches=1)


def rows(root: Path, folder: str, table: str) -> int:
    found = 0
    for path in (root / folder).iterdir():
        file = path.relative_to(root).as_posix()
        found += sum(
            d.tables[table].num_rows for d in decode_file(path, FOLDERS[folder], file=file, digest="") if table in d.tables
        )
    return found


def test_a_recording_is_sent_whole_and_in_order(hosts: Path, oona: RedisServer, client: Any) -> None:
    traffic = Traffic.of(hosts)
    times = [message.at_ns for message in traffic.messages]
    assert times == sorted(times)
    without = ("kasmina/seed_state", "simic/registry_snapshot", "urza/blueprint")
    assert set(traffic.left_out) == {f"{folder}: no message of Oona's" for folder in without}
    assert traffic.send(oona.url, SECRET, 0.0) == len(times)
    states = messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE)
    assert len(states) == rows(hosts, "tolaria/system_state", "tolaria.system_state")
    assert len(messages(client, bus.NORMAL, pb.BUS_MESSAGE_TYPE_BSDS_ISSUED)) == rows(hosts, "urabrask/bsds", "urabrask.bsds")
    assert all(pb.SystemStatePacket.FromString(raw).training_run_id for raw in states)
    assert all(bus.is_signed(SECRET, f[b"payload"], f[b"signature"]) for _, f in client.xrange(bus.TELEMETRY))


def test_a_rate_is_kept(hosts: Path, oona: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tamiyo.live.traffic.time.sleep", slept.append)
    traffic = Traffic(Traffic.of(hosts).messages[:5], {})
    traffic.send(oona.url, None, 2.0, clock=lambda: 0.0)
    assert slept == [0.5, 1.0, 1.5, 2.0]


def test_nothing_to_send_and_nowhere_to_send_it_are_told(hosts: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="expected exports with messages"):
        Traffic.of(tmp_path)
    with pytest.raises(ServingError, match="expected a Redis that takes messages"):
        Traffic(Traffic.of(hosts).messages[:1], {}).send("redis://127.0.0.1:1", None, 0.0)
