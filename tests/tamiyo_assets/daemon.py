"""A daemon without processes: the real sensors are evaluated in turn, and the runs that they ask for are executed at once.

As a script it executes one job, to be killed: settings and tags come on standard input.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView, TemporalContext
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._time import get_current_datetime

from lake.settings import Settings
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.instance import open_instance
from tamiyo_assets.resources.run import run_resources
from tamiyo_assets.sensors import exports_sensor, kasmina_exports_sensor, training_sensor, urabrask_exports_sensor

QUIET = {"loggers": {"silent": {}}}
EXPORT_SENSORS = (kasmina_exports_sensor, urabrask_exports_sensor, exports_sensor)


@dg.logger
def silent(_: dg.InitLoggerContext) -> logging.Logger:
    """A logger of nothing."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


class Daemon:
    """Sensors with their cursors, over one instance."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings = settings
        self.instance = instance
        # without Dagster's console: a rebuild has hundreds of events, which pytest would keep and print
        self.definitions = build_definitions(settings, loggers={"silent": silent})
        self.cursors: dict[str, str | None] = {}
        self.run_keys: set[tuple[str, str]] = set()
        self.jobs: list[str] = []

    def evaluate(self, sensor: dg.SensorDefinition) -> tuple[list[dg.RunRequest], str | None]:
        """New run requests of one tick, and why there is none; the cursor moves as Dagster moves it."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources=run_resources(self.settings),
            sensor_name=sensor.name,
        ) as context:
            result = sensor.evaluate_tick(context)
        self.cursors[sensor.name] = result.cursor
        requests = [r for r in result.run_requests or [] if (sensor.name, r.run_key or "") not in self.run_keys]
        self.run_keys |= {(sensor.name, request.run_key or "") for request in requests}
        return requests, result.skip_message

    def execute(self, request: dg.RunRequest, sensor: dg.SensorDefinition) -> dg.ExecuteInProcessResult:
        """What the run queue does with a request."""
        name = request.job_name or sensor.job_name
        self.jobs.append(name)
        job = self.definitions.resolve_job_def(name)
        return job.execute_in_process(instance=self.instance, tags=request.tags, run_config=QUIET, raise_on_error=False)

    def tick(self, *sensors: dg.SensorDefinition) -> list[str]:
        """Evaluate sensors in turn and execute what each asks for; the names of the jobs, all of which must succeed."""
        before = len(self.jobs)
        for sensor in sensors or (*EXPORT_SENSORS, training_sensor):
            for request in self.evaluate(sensor)[0]:
                result = self.execute(request, sensor)
                assert result.success, [event.message for event in result.get_step_failure_events()]
        return self.jobs[before:]

    def not_up_to_date(self) -> dict[str, str]:
        """Assets that Dagster shows as missing or stale, with the reasons."""
        graph = self.definitions.resolve_asset_graph()
        view = AssetGraphView(
            temporal_context=TemporalContext(effective_dt=get_current_datetime(), last_event_id=None),
            instance=self.instance,
            asset_graph=graph,
        )
        resolver = CachingStaleStatusResolver(instance=self.instance, asset_graph=graph, loading_context=view)
        statuses = {key: resolver.get_status(key) for key in graph.executable_asset_keys}
        return {
            key.to_user_string(): f"{status.value} {[cause.reason for cause in resolver.get_stale_causes(key)]}"
            for key, status in statuses.items()
            if status is not StaleStatus.FRESH
        }


@contextmanager
def daemon(settings: Settings) -> Iterator[Daemon]:
    """A daemon of the home's own instance."""
    with open_instance(settings.dagster_home) as instance:
        yield Daemon(settings, instance)


def killed(settings: Settings, request: dg.RunRequest, sensor: dg.SensorDefinition, after: float) -> bool:
    """Execute a request in a process of its own and kill it some seconds after its begin; whether it still ran."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.tamiyo_assets.daemon", request.job_name or sensor.job_name]
    order = json.dumps({"settings": settings.model_dump(mode="json"), "tags": dict(request.tags)})
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(order)
        child.stdin.close()
        assert child.stdout.readline() == "begins\n"
        try:
            assert child.wait(after) == 0
        except subprocess.TimeoutExpired:
            child.kill()
            return True
    return False


if __name__ == "__main__":
    order = json.load(sys.stdin)
    found = Settings.model_validate(order["settings"])
    with daemon(found) as one:
        print("begins", flush=True)
        job = one.definitions.resolve_job_def(sys.argv[1])
        sys.exit(
            0
            if job.execute_in_process(instance=one.instance, tags=order["tags"], run_config=QUIET, raise_on_error=False).success
            else 1
        )
