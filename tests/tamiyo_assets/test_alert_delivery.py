"""`alert_delivery_sensor` on a real instance and a real webhook: what fails is told while its run goes on, and once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData, TickData, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._time import get_current_timestamp
from dagster_shared.error import SerializableErrorInfo

from lake.alert_outbox import AlertOutbox
from lake.writes import HOME
from tamiyo_assets.alerts import event_log
from tamiyo_assets.alerts.delivery import alert_delivery_sensor
from tamiyo_assets.alerts.failed_checks import check_alert_failure_sensor, check_alert_success_sensor
from tamiyo_assets.instance import open_instance
from tamiyo_assets.run_sensors import fail_stuck_runs
from tests.tamiyo_assets.daemon import QUIET, silent
from tests.tamiyo_assets.pipelines import settings
from tests.webhook import Webhook

STATE: dict[str, Any] = {}  # what the checks of the next run find


@dg.asset(key=["coverage", "by_key"])
def by_key() -> None:
    """An asset whose check finds what a test says."""


@dg.asset_check(asset=by_key)
def mandatory() -> dg.AssetCheckResult:
    problems = STATE.get("problems", [])
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(problems)} under 1.00",
        metadata={"problems": problems, "runs": STATE.get("runs", [])},
    )


@dg.asset_check(asset=by_key)
def unnamed() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=not STATE.get("unnamed"), severity=dg.AssetCheckSeverity.WARN, description="too few")


@dg.asset(deps=[by_key])
def trained() -> None:
    """What takes long after the checks."""
    if "during" in STATE:
        STATE["during"]()
    if "error" in STATE:
        raise STATE["error"]


@dg.asset_check(asset=trained, blocking=True)
def blocks() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=not STATE.get("blocked"))


DEFINITIONS = dg.Definitions(
    assets=[by_key, trained],
    asset_checks=[mandatory, unnamed, blocks],
    jobs=[dg.define_asset_job("rebuild", selection="*")],
    executor=dg.in_process_executor,
    loggers={"silent": silent},
)


class Pipeline:
    """A job of checks, the sensors of alerts, an instance and a webhook."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, webhook: Webhook) -> None:
        self.root = root
        self.instance = instance
        self.webhook = webhook
        self.settings = settings(root, root / "exports")
        self.alerts = AlertOutbox(self.home("home"), webhook.address)
        self.cursor: str | None = None

    def home(self, name: str) -> Path:
        (self.root / name).mkdir(exist_ok=True)
        return self.root / name

    def run(self, *problems: str, home: str = "home", **state: Any) -> str:
        """Execute the job in a state of the world; its run id."""
        STATE.clear()
        STATE.update(state, problems=list(problems))
        tags = {HOME: str(self.home(home))}
        job = DEFINITIONS.resolve_job_def("rebuild")
        result = job.execute_in_process(instance=self.instance, tags=tags, run_config=QUIET, raise_on_error=False)
        return result.run_id

    def tick(self) -> str:
        """Evaluate the sensor; what it says."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"alerts": self.alerts, "settings": self.settings},
            sensor_name=alert_delivery_sensor.name,
        ) as context:
            result = alert_delivery_sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result.skip_message or ""

    def end(self, run_id: str) -> None:
        """What Dagster does at the end of a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        failed = run.status is dg.DagsterRunStatus.FAILURE
        sensor = check_alert_failure_sensor if failed else check_alert_success_sensor
        kind = dg.DagsterEventType.RUN_FAILURE if failed else dg.DagsterEventType.RUN_SUCCESS
        (event,) = self.instance.all_logs(run_id, of_type=kind)
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_instance=self.instance,
            dagster_run=run,
            dagster_event=event.get_dagster_event(),
            resources={"alerts": self.alerts},
        )
        sensor(context)

    def told(self) -> list[tuple[str, str]]:
        return [(post["state"], post["problem"]) for post in self.webhook.posts]


@pytest.fixture
def pipeline(tmp_path: Path, webhook: Webhook) -> Iterator[Pipeline]:
    with open_instance(tmp_path / "dagster") as instance:
        found = Pipeline(tmp_path, instance, webhook)
        found.tick()
        yield found


def test_the_same_problem_in_several_runs_is_one_alert_and_one_resolution(pipeline: Pipeline) -> None:
    for _ in range(4):
        pipeline.end(pipeline.run("layer.loss"))
        pipeline.tick()
    assert pipeline.told() == [("open", "layer.loss")]
    (alert,) = pipeline.alerts.read().alerts.values()
    assert (alert.run_count, alert.system) == (4, "tolaria")
    pipeline.run()
    pipeline.tick()
    pipeline.tick()
    assert pipeline.told() == [("open", "layer.loss"), ("resolved", "layer.loss")]


def test_two_problems_of_a_check_are_two_alerts_and_one_without_names_is_the_check(pipeline: Pipeline) -> None:
    pipeline.run("layer.loss", "seed.alpha", unnamed=True, runs={"layer.loss": ["host-1", "host-2"]})
    pipeline.tick()
    assert sorted(pipeline.told()) == [("open", "layer.loss"), ("open", "seed.alpha"), ("open", "unnamed")]
    post = next(post for post in pipeline.webhook.posts if post["problem"] == "layer.loss")
    assert (post["runs"], post["runs_are"], post["asset"]) == (["host-1", "host-2"], "training", "coverage/by_key")
    assert post["url"] == "http://localhost:3000/assets/coverage/by_key?view=checks&checkDetail=mandatory"
    pipeline.run("seed.alpha")
    pipeline.tick()
    assert sorted(pipeline.told()[3:]) == [("resolved", "layer.loss"), ("resolved", "unnamed")]


def test_what_fails_is_told_while_its_run_goes_on(pipeline: Pipeline) -> None:
    meanwhile: list[list[tuple[str, str]]] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: (pipeline.tick(), meanwhile.append(pipeline.told())))
        thread.start()
        thread.join()

    run_id = pipeline.run("layer.loss", during=look)
    assert meanwhile == [[("open", "layer.loss")]]
    pipeline.end(run_id)
    pipeline.tick()
    assert pipeline.told() == meanwhile[0]


def test_a_run_whose_step_raises_is_told_and_resolved_by_the_next_success(pipeline: Pipeline) -> None:
    for _ in range(2):
        pipeline.end(pipeline.run("layer.loss", error=ValueError("no space")))
        pipeline.tick()
    expected = [("open", "layer.loss"), ("open", "rebuild, step trained: ValueError")]
    assert sorted(pipeline.told()) == expected, "though another check failed"
    post = next(post for post in pipeline.webhook.posts if post["asset"] == "runs")
    assert "no space" in post["text"] and post["url"].startswith("http://localhost:3000/runs/") and post["check"] == "rebuild"
    pipeline.run("layer.loss")
    pipeline.tick()
    assert pipeline.told()[2:] == [("resolved", "rebuild, step trained: ValueError")]


def test_a_run_that_a_failed_check_fails_is_told_by_the_check_alone(pipeline: Pipeline) -> None:
    pipeline.end(pipeline.run(blocked=True))
    pipeline.tick()
    assert pipeline.told() == [("open", "blocks")]


def test_a_run_that_is_killed_is_told(pipeline: Pipeline) -> None:
    """Killed for real: the process of the run ends with SIGKILL in its last step, and the stuck-run sensor finds it gone."""
    code = """
import os, signal, sys
from pathlib import Path
from lake.writes import HOME, process_tags
from tamiyo_assets.instance import open_instance
from tests.tamiyo_assets import test_alert_delivery as ours
def die():
    run = instance.get_runs(limit=1)[0]
    instance.add_run_tags(run.run_id, process_tags(run.run_id))
    os.kill(os.getpid(), signal.SIGKILL)
with open_instance(Path(sys.argv[1])) as instance:
    ours.Pipeline(Path(sys.argv[2]), instance, ours.Webhook()).run("layer.loss", during=die)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(pipeline.root / "dagster"), str(pipeline.root)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pipeline.tick()
    assert pipeline.told() == [("open", "layer.loss")], "what its checks found is not lost"
    assert len([*fail_stuck_runs(pipeline.instance, timedelta(minutes=20))]) == 1
    pipeline.tick()
    assert pipeline.told()[1:] == [("open", "rebuild: stuck")]
    assert "is gone" in pipeline.webhook.posts[-1]["text"]
    pipeline.end(pipeline.run("layer.loss"))
    assert pipeline.told()[2:] == [("resolved", "rebuild: stuck")]


def test_alerts_belong_to_the_home_of_their_run(pipeline: Pipeline) -> None:
    pipeline.run("layer.loss")
    pipeline.run("layer.loss", home="other")
    gone = pipeline.run("layer.loss", home="gone")
    (pipeline.root / "gone").rmdir()
    pipeline.webhook.status = 503
    pipeline.tick()
    pipeline.end(gone)
    assert not (pipeline.root / "gone").exists()
    pipeline.webhook.status = 200
    pipeline.alerts = replace(pipeline.alerts, webhook=pipeline.webhook.address.replace("127.0.0.1", "localhost"))
    pipeline.tick()
    assert [post["home"] for post in pipeline.webhook.posts] == [str(pipeline.root / "home"), str(pipeline.root / "other")]
    assert len({*pipeline.webhook.keys}) == 2
    pipeline.run(home="other")
    pipeline.tick()
    assert [post["state"] for post in pipeline.webhook.posts] == ["open", "open", "resolved"]


def test_a_home_without_runs_is_followed_for_a_week_and_until_all_is_told(pipeline: Pipeline) -> None:
    pipeline.run("layer.loss", home="other")
    pipeline.tick()
    now = pipeline.alerts.clock()
    told = []
    for days in (2, 3, 8, 9, 10):
        pipeline.webhook.status = 503 if days in (3, 8) else 200
        pipeline.alerts = replace(pipeline.alerts, clock=partial(now.__add__, timedelta(days=days)))
        pipeline.tick()
        told.append(len(pipeline.webhook.posts))
    assert told == [2, 2, 2, 3, 3]
    assert json.loads(pipeline.cursor or "")["homes"] == {}


def test_the_first_tick_on_an_older_instance_tells_what_is_open_and_not_the_past(pipeline: Pipeline) -> None:
    for problems in ((), ("layer.loss",), (), ("seed.alpha",), ("seed.alpha", "layer.loss")):
        pipeline.run(*problems)
    pipeline.run(error=ValueError("x"))
    pipeline.run()
    pipeline.run("layer.loss", error=KeyError("y"))
    pipeline.cursor = None
    pipeline.tick()
    assert sorted(pipeline.told()) == [("open", "layer.loss"), ("open", "rebuild, step trained: KeyError")]


def test_an_event_log_that_was_wiped_is_read_from_its_begin(pipeline: Pipeline) -> None:
    pipeline.run("layer.loss")
    pipeline.tick()
    pipeline.instance.event_log_storage.wipe()
    pipeline.tick()
    pipeline.run()
    pipeline.tick()
    assert pipeline.told() == [("open", "layer.loss"), ("resolved", "layer.loss")]


def test_a_tick_reads_nothing_of_what_was_seen(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        pipeline.run("layer.loss")
    pipeline.tick()
    read: list[int] = []
    storage = pipeline.instance.event_log_storage
    pages = storage.get_logs_for_all_runs_by_log_id

    def counted(*arguments: Any) -> Any:
        page = pages(*arguments)
        read.append(len(page))
        return page

    monkeypatch.setattr(storage, "get_logs_for_all_runs_by_log_id", counted)
    monkeypatch.setattr(event_log, "_PAGE", 2)
    size = pipeline.alerts.path.stat().st_size
    pipeline.tick()
    assert sum(read) == 0
    assert pipeline.alerts.path.stat().st_size == size
    pipeline.run("layer.loss")
    pipeline.tick()
    assert sum(read) == 4, "three checks and an end, in pages of two"


def test_a_tick_that_dies_before_its_cursor_is_stored_repeats_nothing(pipeline: Pipeline) -> None:
    for problems in (("layer.loss",), (), ("layer.loss",)):
        pipeline.run(*problems)
    before = pipeline.cursor
    pipeline.tick()
    pipeline.cursor = before
    pipeline.tick()
    assert [state for state, _ in pipeline.told()] == ["open", "resolved", "open"]
    assert len({*pipeline.webhook.keys}) == len(pipeline.webhook.keys) == 3


def test_what_waits_for_long_is_said_by_the_tick(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.webhook.status = 503
    pipeline.run("layer.loss")
    assert "1 messages wait, 0 for more than an hour: status 503" in pipeline.tick()
    now = pipeline.alerts.clock()
    pipeline.alerts = replace(pipeline.alerts, clock=lambda: now + timedelta(hours=2))
    assert "1 for more than an hour" in pipeline.tick()
    pipeline.alerts = replace(pipeline.alerts, webhook=None)
    assert "set TAMIYO_ALERT_WEBHOOK" in pipeline.tick()


def instigator(name: str, kind: InstigatorType) -> RemoteInstigatorOrigin:
    target = LoadableTargetOrigin(module_name="tamiyo_assets.definitions")
    location = InProcessCodeLocationOrigin(target, location_name="tamiyo_assets")
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)


@pytest.mark.parametrize("kind", [InstigatorType.SENSOR, InstigatorType.SCHEDULE])
def test_a_failing_sensor_or_schedule_is_told_until_a_later_tick_succeeds(pipeline: Pipeline, kind: InstigatorType) -> None:
    origin = instigator("registry_refresh", kind)
    daily = ScheduleInstigatorData("0 3 * * *") if kind is InstigatorType.SCHEDULE else None
    state = InstigatorState(origin, kind, InstigatorStatus.RUNNING, daily)
    pipeline.instance.add_instigator_state(state)
    error = SerializableErrorInfo("the exports are away", [], "OSError")
    began = get_current_timestamp()
    statuses = [TickStatus.FAILURE, TickStatus.FAILURE, TickStatus.STARTED, TickStatus.SKIPPED, TickStatus.STARTED]
    for seconds, status in enumerate(statuses):
        pipeline.instance.create_tick(
            TickData(
                origin.get_id(),
                "registry_refresh",
                kind,
                status,
                began + seconds,
                error=error if status is TickStatus.FAILURE else None,
                selector_id=state.selector_id,
            )
        )
        pipeline.tick()
    assert pipeline.told() == [("open", "OSError"), ("resolved", "OSError")]
    kinds = f"{kind.value.lower()}s"
    (post, _) = pipeline.webhook.posts
    assert (post["asset"], post["check"]) == (kinds, "registry_refresh")
    assert post["url"] == f"http://localhost:3000/locations/tamiyo_assets/{kinds}/registry_refresh"
    assert "the exports are away" in post["text"]


def test_the_cursor_is_small(pipeline: Pipeline) -> None:
    pipeline.run("layer.loss")
    pipeline.tick()
    assert json.loads(pipeline.cursor or "") == {
        "event": pipeline.instance.event_log_storage.get_maximum_record_id(),
        "homes": {},
    }


def evaluated(description: str, **said: Any) -> dict[str, Any]:
    """What an evaluation with this metadata says of its problems: name -> (text, system, runs, more)."""
    check = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(said.pop("asset", "graphs/dataset").split("/")),
        check_name="check",
        passed=False,
        metadata=said,
        description=description,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(check)
        ((found,),) = event_log.between(instance, None, event_log.newest_event(instance), Path()).values()
    return {one.name: (one.text, one.system, one.runs, one.more_runs) for one in found.problems}


def test_a_problem_has_its_part_of_what_its_check_says() -> None:
    text = "layer.loss 0.500 in a; seed.alpha.x 0.1; seed.alpha 0.3 since monday; and 9 more"
    assert evaluated(text, problems=["layer.loss", "seed.alpha", "other", "layer.loss"], system="oona", runs="a, b") == {
        "layer.loss": ("layer.loss 0.500 in a", "tolaria", (), 0),
        "seed.alpha": ("seed.alpha 0.3 since monday", "kasmina", (), 0),
        "other": ("other: one of 3 problems that this check found", "oona", (), 0),
    }
    assert evaluated("bad", problems=["x"], runs="a, b, c and 9 more") == {"x": ("bad", "", ("a", "b", "c"), 9)}
    assert evaluated("bad", runs=["a and b"], asset="urza/blueprint") == {"check": ("bad", "urza", ("a and b",), 0)}
    assert evaluated("bad", problems=3, runs=7) == {"check": ("bad", "", (), 0)}
