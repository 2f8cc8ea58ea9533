"""Troubles of every kind over many ticks: each change is rebuilt, none twice, never two rebuilds at once; each is told once.

The webhook is down for some ticks, then up, then down; sensors of alerts and of the ends of runs both tell of the same runs.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lake.accounting import accounting
from lake.alert_outbox import HISTORY, AlertOutbox
from lake.alerts import posting
from lake.durable.journal import Journal
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
    # ticks follow each other at once, so that nothing waits to be posted again
    monkeypatch.setattr(posting, "_FIRST_PAUSE", timedelta(0))
    found = settings(tmp_path, tmp_path / "exports", webhook.address)
    with open_instance(found.dagster_home) as instance:
        simulated = Simulation(found, instance, request.param)
        yield simulated
        simulated.close()


def simulate(simulation: Simulation, webhook: Webhook, ticks: int, capsys: pytest.CaptureFixture[str], storm: int = 0) -> None:
    """Let `ticks` pass, with `storm` more files at once after a third of them."""
    for number in range(ticks):
        if storm and number == ticks // 3:
            simulation.world.storm(storm)
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
    told = told_of(webhook, AlertOutbox(home, webhook.address))
    with capsys.disabled():
        print(f"alerts: {told}; {len(webhook.keys)} posts for {len(webhook.posts)} messages")
    repeated = len(webhook.keys) > len(webhook.posts)
    assert repeated or ticks <= 2 * OUTAGE, "the webhook was never down when there was something to tell"
    assert told.get("exports_root", 0) <= simulation.world.done["vanish"]
    assert told.get("rebuild: stuck", 0) <= counts["run killed"] + counts["run hangs"]
    assert sum(count for problem, count in told.items() if problem.startswith("rebuild, step")) <= counts["failed rebuilds"]


def told_of(webhook: Webhook, outbox: AlertOutbox) -> dict[str, int]:
    """How often each problem was opened. Each opening is one message, then one resolution, in that order; none comes twice."""
    journals = (Journal(outbox.path), Journal(outbox.home / HISTORY))
    written = [record["message"]["message_id"] for journal in journals for record in journal.readable() if "message" in record]
    taken = [post["message_id"] for post in webhook.posts]
    assert len(taken) == len(set(taken)), [one for one, count in Counter(taken).items() if count > 1]
    assert set(taken) == set(written) == set(webhook.keys), "what was written and not taken, or taken and not written"
    states: dict[str, list[str]] = defaultdict(list)
    for post in webhook.posts:
        states[post["problem"]].append(post["state"])
    assert states and not outbox.read().failing()
    opened = {problem: found.count("open") for problem, found in sorted(states.items())}
    assert states == {problem: ["open", "resolved"] * count for problem, count in opened.items()}
    return opened


@pytest.mark.parametrize("simulation", [0], indirect=True)
def test_100_ticks_of_troubles(simulation: Simulation, webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(simulation, webhook, TICKS, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("simulation", [1], indirect=True)
def test_1000_ticks_of_troubles(simulation: Simulation, webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(simulation, webhook, SOAK_TICKS, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("simulation", [2], indirect=True)
def test_a_storm_of_10000_files_among_troubles(
    simulation: Simulation, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(simulation, webhook, 45, capsys, storm=10_000)
    assert len(Ledger(simulation.settings.home).entries()) > 10_000
