"""A coverage that is broken fails its check and reaches the webhook once; healed, that is told once too."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Problem
from lake.settings import Settings
from tamiyo.execution import Outcome
from tamiyo_assets.alerts.failed_checks import check_alert_failure_sensor, check_alert_success_sensor
from tamiyo_assets.instance import open_instance
from tests.exports import part_of
from tests.tamiyo_assets.pipelines import metadata, run, settings
from tests.webhook import Webhook

pytestmark = pytest.mark.pipeline


def _tick(found: Settings, outcome: Outcome) -> None:
    """What the daemon does after a run: the sensor of its status sees it."""
    with open_instance(found.dagster_home) as instance:
        record = instance.get_run_by_id(outcome.run_id)
        assert record is not None
        event = instance.all_logs(outcome.run_id, of_type=dg.DagsterEventType.RUN_SUCCESS)
        failed = instance.all_logs(outcome.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        sensor = check_alert_success_sensor if event else check_alert_failure_sensor
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_instance=instance,
            dagster_run=record,
            dagster_event=(event or failed)[0].dagster_event,
            resources={"alerts": AlertOutbox(found.home, found.alert_webhook)},
        )
        sensor(context)


def test_a_broken_coverage_reaches_the_webhook_once_and_passes_when_healed(
    tmp_path: Path, sample: Path, webhook: Webhook
) -> None:
    exports = part_of(sample, tmp_path / "exports", without="urabrask")
    found = settings(tmp_path, exports, webhook.address)
    broken = run(found)
    assert not broken.ok
    assert [c.check for c in broken.errors] == ["mandatory_coverage"]
    _tick(found, broken)
    _tick(found, broken)
    posted = [post for post in webhook.posts if post["check"] == "mandatory_coverage"]
    assert posted and {(post["state"], post["severity"], post["asset"]) for post in posted} == {
        ("open", "ERROR", "coverage/by_key")
    }
    assert all(post["text"] and post["run_id"] == broken.run_id for post in posted)
    assert not [post for post in webhook.posts if post["asset"] == "runs"], "a failed check is no failed run"
    assert len({post["alert_id"] for post in webhook.posts}) == len(webhook.posts)

    shutil.copytree(sample / "urabrask", exports / "urabrask")
    hours_ago = datetime.now(UTC) - timedelta(hours=2)
    AlertOutbox(found.home, None, clock=lambda: hours_ago).report("feeds/tolaria", "freshness", [Problem("silent")])
    healed = run(found)
    assert metadata(found, "operations/warehouse")["alerts_overdue"] == 1
    _tick(found, healed)
    assert healed.ok
    resolved = [post for post in webhook.posts if post["check"] == "mandatory_coverage"][len(posted) :]
    assert [(post["state"], post["alert_id"]) for post in resolved] == [("resolved", post["alert_id"]) for post in posted]
    with open_instance(found.dagster_home) as instance:
        key = dg.AssetCheckKey(dg.AssetKey(["coverage", "by_key"]), "mandatory_coverage")
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [execution.status.value for execution in history] == ["SUCCEEDED", "FAILED"]
