"""Troubles of every kind over many ticks: each change is rebuilt, none twice, never two rebuilds at once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lake.accounting import accounting
from lake.exports.ledger import Ledger
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from tamiyo_assets.assets import telemetry
from tamiyo_assets.instance import open_instance
from tests.simulation.simulation import Simulation
from tests.tamiyo_assets.pipelines import settings
from tests.webhook import Webhook

pytestmark = pytest.mark.pipeline

TICKS = 100
SOAK_TICKS = int(os.environ.get("SOAK_TICKS", "1000"))
OUTAGE = 10  # ticks for which the webhook is down, then up, then down


@pytest.fixture
def simulation(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Simulation]:
    # the warehouse is built in a process of its own, a second each time; its own tests are elsewhere
    monkeypatch.setattr(telemetry, "publish_warehouse", lambda *_: None)
    found = settings(tmp_path, tmp_path / "exports", webhook.address)
    with open_instance(found.dagster_home) as instance:
        simulated = Simulation(found, instance, request.param)
        yield simulated
        simulated.close()


def simulate(simulation: Simulation, webhook: Webhook, ticks: int, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(ticks):
        webhook.status = 500 if number // OUTAGE % 2 else 200
        simulation.tick()
    webhook.status = 200
    simulation.settle()
    home, counts = simulation.settings.home, simulation.counts
    with capsys.disabled():
        print(f"\nsimulation {simulation.seed}: {dict(sorted(counts.items()))}; {dict(sorted(simulation.world.done.items()))}")
    assert not simulation.unread() and simulation.rebuilt() and not simulation.owed
    tables = TableStore(home)
    unbalanced = {name: found for name in TABLES if not (found := accounting(tables, name)).balanced}
    assert unbalanced == {}
    arrived = [entry for entry in Ledger(home).entries() if entry.event == "arrived"]
    assert counts["ticks"] == ticks and 0 < counts["requests"] <= len(arrived) + simulation.world.done["retire"]


@pytest.mark.parametrize("simulation", [0], indirect=True)
def test_100_ticks_of_troubles(simulation: Simulation, webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(simulation, webhook, TICKS, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("simulation", [1], indirect=True)
def test_1000_ticks_of_troubles(simulation: Simulation, webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(simulation, webhook, SOAK_TICKS, capsys)
