"""`tamiyo serve` with a real bundle: decisions, hot swap, shutdown, and its landed exports through the pipeline's ingest."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gnn.bundle.read import read_bundle
from lake.durable.publish import switch_link
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tests.components import program
from tests.exports import part_of
from tests.gnn.online.conftest import packet as state
from tests.tamiyo.live.redis_server import RedisServer
from tests.tamiyo.live.stub import commands, get, get_json, messages, pending, send, wait_for


class Process:
    """`tamiyo serve` as people start it."""

    def __init__(self, oona: RedisServer, home: Path, exports: Path, **more: str) -> None:
        env = os.environ | {"ESPER_LEYLINE_SECRET": "secret", "TAMIYO_SERVING_SWAP_S": "0.1", "OMP_NUM_THREADS": "1"} | more
        command = [sys.executable, "-m", "tamiyo", "serve", "--redis", oona.url, "--home", str(home), "--exports", str(exports)]
        options = ["--port", "0", "--budget-ms", "60000"]
        self.process = subprocess.Popen([*command, *options], env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.partition(" on ")[2].partition(";")[0]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


@pytest.fixture
def serving(oona: RedisServer, served: Path, tmp_path: Path) -> Iterator[Process]:
    found = Process(oona, served, tmp_path / "exports")
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


def send_state(client: Any, step: int, **more: Any) -> pb.SystemStatePacket:
    found = state(step, **more)
    send(client, pb.BUS_MESSAGE_TYPE_SYSTEM_STATE, found.SerializeToString())
    return found


def test_a_home_is_served_from_its_first_bundle_to_shutdown(
    serving: Process, served: Path, client: Any, tmp_path: Path
) -> None:
    wait_for(lambda: any("current is missing" in reason for reason in get_json(f"{serving.url}/readyz")[1]["reasons"]))
    assert get_json(f"{serving.url}/readyz")[0] == 503
    first, second = sorted(path for path in (served / "bundles").iterdir() if len(path.name) == 64)
    switch_link(served / "current", f"bundles/{first.name}")
    wait_for(lambda: get_json(f"{serving.url}/readyz")[1]["build_id"] == first.name)
    wait_for(lambda: get_json(f"{serving.url}/readyz")[0] == 200)
    for step in range(3):
        send_state(client, step)
    measured = read_bundle(first).manifest.policy.measured
    told = wait_for(lambda: len(found := decisions(client)) >= 3 and pending(client) == 0 and found)
    assert {one.system_health.indicators["policy"] for one in told} == {"tamiyo_gnn_v1"}
    for command in commands(client):
        assert command.annotations["build_id"] == first.name
        if command.command_type == pb.COMMAND_SEED:
            assert command.seed_operation.blueprint_id in measured
    switch_link(served / "current", f"bundles/{second.name}")
    wait_for(lambda: get_json(f"{serving.url}/readyz")[1]["build_id"] == second.name)
    updates = wait_for(lambda: len(found := messages(client, bus.POLICY, pb.BUS_MESSAGE_TYPE_POLICY_UPDATE)) == 2 and found)
    assert [pb.PolicyUpdate.FromString(raw).policy_id for raw in updates] == [first.name, second.name]
    broken = served / "bundles" / ("0" * 64)
    broken.mkdir()
    switch_link(served / "current", f"bundles/{broken.name}")
    wait_for(lambda: get_json(f"{serving.url}/readyz")[1]["refused"])
    assert get_json(f"{serving.url}/readyz")[0] == 200  # the old one goes on
    send_state(client, 3)
    wait_for(lambda: len(decisions(client)) >= 4 and pending(client) == 0)
    assert serving.stop() == 0
    assert (served / "serving" / "run_states.json").exists()
    exports = tmp_path / "exports"
    assert not list(exports.rglob("*.tmp"))
    report = Ingest(tmp_path / "lake", Exports(exports), TableStore(tmp_path / "lake")).refresh()
    assert report.wrote
    tables = TableStore(tmp_path / "lake")
    assert sorted(tables.read("tolaria.system_state").column("packet_id").to_pylist()) == [f"p-{step}" for step in range(4)]
    assert tables.read("telemetry.event").num_rows > 0
    rejected = {name: tables.count(name) for name in tables.names() if name.startswith("rejects.")}
    assert {name for name, rows in rejected.items() if rows} == {"rejects.oona_envelope"}  # PolicyUpdates have no table


def test_a_trial_leaves_nothing_running(
    served: Path, sample: Path, tmp_path: Path, repository: Path
) -> None:  # fmt: skip
    program("redis-server", purpose="the Oona service")
    place = tmp_path / "trial"
    shutil.copytree(served, place, symlinks=True)
    first = next(path for path in (place / "bundles").iterdir() if len(path.name) == 64)
    switch_link(place / "current", f"bundles/{first.name}")
    exports = part_of(sample, tmp_path / "recorded", batches=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    env = os.environ | {"PORT": port, "RATE": "50", "OMP_NUM_THREADS": "1", "TAMIYO_SERVING_BUDGET_MS": "60000"}
    command = [sys.executable, "-m", "tamiyo.live.trial", str(place), str(exports)]
    trial = subprocess.Popen(command, cwd=repository, env=env, stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(url) and b'tamiyo_answers_total{reason="' in get(f"{url}/metrics")[1])
        children = psutil.Process(trial.pid).children(recursive=True)
        assert len(children) >= 3
    finally:
        trial.send_signal(signal.SIGINT)
        output, _ = trial.communicate()
    assert trial.returncode == 130
    assert "nothing is left running" in output
    assert not any(child.is_running() for child in children)
    assert list((place / "exports" / "tolaria" / "system_state").glob("*.wal"))
    assert not list((place / "exports").rglob("*.tmp"))


def answers(url: str) -> bool:
    try:
        return get(f"{url}/healthz")[0] == 200
    except OSError:
        return False


def decisions(client: Any) -> list[pb.TelemetryPacket]:
    """Telemetry of answered packets."""
    kind = pb.BUS_MESSAGE_TYPE_TELEMETRY
    raws = [raw for stream in (bus.TELEMETRY, bus.EMERGENCY) for raw in messages(client, stream, kind)]
    found = [pb.TelemetryPacket.FromString(raw) for raw in raws]
    return [one for one in found if "reason" in one.system_health.indicators]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--redis", "nonsense"], "expected a URL like redis://"),
        (["--exports", "recorder/sample"], "found the committed sample"),
    ],
)
def test_what_can_not_serve_is_refused(repository: Path, tmp_path: Path, arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "tamiyo", "serve", "--home", str(tmp_path / "home"), "--port", "0", *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
