"""Feeds in Dagster: fresh while their system sends something new, stale once it is silent, unknown if it never sent."""

import asyncio
import importlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView, TemporalContext
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.test_utils import freeze_time
from dagster._time import get_current_datetime

from lake import quarantine
from lake.alert_outbox import AlertOutbox
from lake.exports.feeds import SYSTEMS
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger
from lake.settings import SAMPLE, Settings, note_origin
from tamiyo_assets.assets import feeds as feed_assets
from tamiyo_assets.assets.feeds import feed_key, report_feeds
from tamiyo_assets.assets.upstream import exports
from tamiyo_assets.definitions import defs
from tamiyo_assets.instance import open_instance
from tamiyo_assets.panel.gather import gather
from tamiyo_assets.resources.run import run_resources
from tamiyo_assets.standing import report_standing
from tests.tamiyo_assets.pipelines import settings

WINDOW = timedelta(hours=36)
SEED = {"seed_id": "s", "training_run_id": "r", "timestamp_ns": "1", "stage": "SEED_STAGE_DORMANT"}


@pytest.fixture
def found(tmp_path: Path) -> Settings:
    """A pipeline to which kasmina sent a seed."""
    seeds(tmp_path / "exports", "a")
    return settings(tmp_path, tmp_path / "exports")


@pytest.fixture
def instance(found: Settings) -> Iterator[dg.DagsterInstance]:
    with open_instance(found.dagster_home) as opened:
        yield opened


def seeds(root: Path, seed: str) -> Path:
    path = root / "kasmina/seed_state" / f"{seed}.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SEED | {"seed_id": seed}) + "\n")
    return path


def scanned(found: Settings, instance: dg.DagsterInstance) -> None:
    """Materialize the scan."""
    assert dg.materialize([exports], instance=instance, resources=run_resources(found)).success


def reports(instance: dg.DagsterInstance, system: str = "kasmina") -> int:
    """How often a feed was reported."""
    return len(instance.fetch_materializations(feed_key(system), limit=99).records)


def states(instance: dg.DagsterInstance) -> dict[str, str]:
    """What Dagster's own evaluator says of each feed."""
    graph = defs.resolve_asset_graph()
    view = AssetGraphView(
        temporal_context=TemporalContext(effective_dt=get_current_datetime(), last_event_id=None),
        instance=instance,
        asset_graph=graph,
    )
    evaluate = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness

    async def evaluated() -> dict[str, str]:
        return {system: (await evaluate(view, graph.get(feed_key(system)))).value for system in SYSTEMS}

    return asyncio.run(evaluated())


def test_a_feed_passes_then_fails_and_one_that_was_never_seen_is_unknown(found: Settings, instance: dg.DagsterInstance) -> None:
    scanned(found, instance)
    unknown = dict.fromkeys(set(SYSTEMS) - {"kasmina"}, "UNKNOWN")
    assert states(instance) == unknown | {"kasmina": "PASS"}
    with freeze_time(datetime.now(UTC) + WINDOW + timedelta(minutes=1)):
        assert states(instance) == unknown | {"kasmina": "FAIL"}


def test_only_new_bytes_are_reported(found: Settings, instance: dg.DagsterInstance) -> None:
    scanned(found, instance)
    assert reports(instance) == 1
    path = found.exports / "kasmina/seed_state/a.ndjson"
    data = path.read_bytes()
    path.with_name("copy.ndjson").write_bytes(data)
    scanned(found, instance)
    path.unlink()
    path.with_name("copy.ndjson").unlink()
    seeds(found.exports / "apart", "b").rename(path.with_name("b.ndjson"))
    scanned(found, instance)
    assert reports(instance) == 2
    path.write_bytes(data)  # what was there before returns: an arrival, but nothing new
    scanned(found, instance)
    scanned(found, instance)
    assert reports(instance) == 2
    assert sum(reports(instance, system) for system in SYSTEMS) == 2


def test_a_report_that_a_kill_prevented_is_made_by_the_next_scan_unless_it_is_late(
    found: Settings, instance: dg.DagsterInstance
) -> None:
    entries = Ledger(found.home).record(Exports(found.exports).scan())
    report_feeds(instance, entries, WINDOW, datetime.now(UTC) + WINDOW * 2)
    assert reports(instance) == 0
    report_feeds(instance, entries, WINDOW)
    report_feeds(instance, entries, WINDOW)
    assert reports(instance) == 1


def test_the_sample_is_no_feed(found: Settings, instance: dg.DagsterInstance) -> None:
    sample = found.model_copy(update={"exports": SAMPLE, "exports_are_sample": True})
    scanned(sample, instance)
    assert sum(reports(instance, system) for system in SYSTEMS) == 0
    note_origin(sample)
    assert report_standing(sample, AlertOutbox(sample.home, None), datetime.now(UTC) + WINDOW * 9) == 0


def test_silent_feeds_and_a_vanished_root_are_told_and_end(found: Settings, instance: dg.DagsterInstance) -> None:
    alerts = AlertOutbox(found.home, None)
    assert report_standing(found, alerts) == 0
    scanned(found, instance)
    assert report_standing(found, alerts) == 0
    later = datetime.now(UTC) + WINDOW * 2
    assert report_standing(found, alerts, later) == 1
    assert report_standing(found, alerts, later + WINDOW) == 0
    (silent,) = alerts.read().failing()
    assert (silent.asset, silent.check, silent.problem, silent.severity) == ("feeds/kasmina", "freshness", "silent", "WARN")
    assert silent.system == "kasmina" and "ask kasmina" in silent.what
    path = found.exports / "kasmina/seed_state/a.ndjson"
    path.rename(found.home / "away")
    assert report_standing(found, alerts, later + 2 * WINDOW) == 1
    vanished = [a for a in alerts.read().failing() if a.check == "exports_root"]
    assert [(a.asset, a.severity) for a in vanished] == [("operations/exports", "ERROR")]
    (found.home / "away").rename(path)
    path.write_bytes(path.read_bytes() * 2)
    scanned(found, instance)
    assert report_standing(found, alerts, later + 3 * WINDOW) == 1  # the root is back; by that time the feed is silent again
    assert [a.check for a in alerts.read().failing()] == ["freshness"]


def test_messages_in_quarantine_are_told_by_the_clock_shown_and_end(found: Settings) -> None:
    alerts, now = AlertOutbox(found.home, None), datetime.now(UTC)
    refused = {"stream": "oona.normal", "entry": "1-0", "reason": "bad_signature", "found": "no signature"}
    for home in (found, found.model_copy(update={"exports": SAMPLE, "exports_are_sample": True})):
        assert report_standing(home, alerts, now) == 0
    quarantine.keep(found.home, [refused, refused], now)
    assert report_standing(found, alerts, now + timedelta(seconds=10)) == 1
    assert report_standing(found, alerts, now + timedelta(seconds=20)) == 0
    (shown,) = [alert for alert in gather(found, now).alerts if alert.asset == "oona"]
    assert (shown.check, shown.problem, shown.severity) == ("quarantine", "bad_signature", "ERROR")
    assert "2 messages so far" in shown.text
    assert report_standing(found, alerts, now + quarantine.QUIET_FOR) == 1
    assert alerts.read().failing() == []
    assert [message.state for message in alerts.read().undelivered()] == ["open", "resolved"]


def test_the_window_is_read_when_the_code_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def windows() -> set[timedelta]:
        specs = importlib.reload(feed_assets).FEEDS
        return {spec.freshness_policy.fail_window.to_timedelta() for spec in specs}

    assert windows() == {WINDOW}
    monkeypatch.setenv("TAMIYO_FRESHNESS_HOURS", "1.5")
    assert windows() == {timedelta(minutes=90)}
    monkeypatch.delenv("TAMIYO_FRESHNESS_HOURS")
    assert windows() == {WINDOW}


def test_feeds_are_no_part_of_a_job(found: Settings) -> None:
    for name in ("everything", "rebuild", "train"):
        selected = defs.resolve_job_def(name).asset_layer.selected_asset_keys
        assert not any(key.path[0] == "feeds" for key in selected)
