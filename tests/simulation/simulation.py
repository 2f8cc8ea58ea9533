"""A daemon over a world of troubles: real sensors, evaluated tick by tick, over a real instance and a real store.

A run is executed in this process. Its first step reads the exports, and the world goes on meanwhile: files change before and
after the scan, and sensors are evaluated as the daemon would. A run may also wait in the queue, fail, be killed, or hang; a
record of a run stands for it then, with the tags of a process that is gone or that hangs.
"""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from lake.alert_outbox import AlertOutbox
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger, is_rebuilt, present
from lake.ingest.ingest import Ingest
from lake.ingest.report import IngestReport
from lake.retirement import Retirements
from lake.settings import Settings, is_empty
from lake.store.table_store import TableStore
from lake.writes import PID, STARTED, WRITES_TAGS, process_tags, run_tags, started
from schemas.contracts import FOLDERS
from schemas.errors import StorageError
from tamiyo_assets.alerts.delivery import alert_delivery_sensor
from tamiyo_assets.alerts.failed_checks import check_alert_failure_sensor, check_alert_success_sensor
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.telemetry import WAREHOUSE
from tamiyo_assets.assets.upstream import EXPORTS, RETIRED
from tamiyo_assets.definitions import build_definitions
from tamiyo_assets.run_sensors import fail_stuck_runs
from tests.simulation.world import World
from tests.tamiyo_assets.daemon import EXPORT_SENSORS, QUIET, Daemon, silent

FATES: Final = {"runs": 12, "waits": 3, "fails": 2, "killed": 2, "hangs": 1}
IMPATIENT: Final = timedelta(milliseconds=1)  # what is left of `max_silence` once the clock has jumped


class Watched(Ingest):
    """The ingest of a run, during which the world goes on."""

    simulation: "Simulation"

    def refresh(self, *args: Any, **named: Any) -> IngestReport:
        """Read what is new, with troubles before and after."""
        with self.simulation.reading():
            return super().refresh(*args, **named)


@dataclass
class Occupant:
    """A run that is under way for some ticks: the record of it, what becomes of it, and the process that hangs."""

    run: dg.DagsterRun
    tags: dict[str, str]
    fate: str
    left: int
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Simulation:
    """One home, its world and its daemon. `counts`: what happened."""

    settings: Settings
    instance: dg.DagsterInstance
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    owed: bool = False  # the newest rebuild did not end well, and nothing asks for it until something changes
    _occupant: Occupant | None = None
    _running: int = 0
    _fails: bool = False
    _calm: bool = False

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.world = World(self.settings.exports, self.settings.home, self.chance)
        self.daemon = Daemon(self.settings, self.instance)
        self.daemon.definitions = build_definitions(
            self.settings,
            resources={"ingest": dg.ResourceDefinition(self._ingest, required_resource_keys={"exports", "tables", "turn"})},
            loggers={"silent": silent},
        )
        # what reads the exports and what notes that a rebuild is done; the steps between have tests of their own
        own = dg.AssetSelection.checks_for_assets(RETIRED)  # the step makes both
        selection = dg.AssetSelection.assets(EXPORTS, RETIRED, DATASET, WAREHOUSE).without_checks() | own
        job = dg.define_asset_job("rebuild", selection, tags=dict(WRITES_TAGS))
        self.job = dg.Definitions(
            assets=self.daemon.definitions.assets,
            jobs=[job],
            resources=self.daemon.definitions.resources,
            loggers={"silent": silent},
            executor=dg.in_process_executor,
        ).resolve_job_def("rebuild")

    def _ingest(self, context: dg.InitResourceContext) -> Watched:
        have = context.resources
        found = Watched(self.settings.home, have.exports, have.tables)
        object.__setattr__(found, "simulation", self)
        return found

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the world go on while a run reads, and hold that no other run does; then fail, if that is the run's fate."""
        assert self._running == 0, "two rebuilds at once"
        self._running += 1
        try:
            self._meanwhile()
            with self.world.newest_aside() if not self._calm and self.chance.random() < 0.2 else nullcontext():
                yield
            self._meanwhile()
        finally:
            self._running -= 1
        if self._fails:
            raise StorageError("a trouble")

    def _meanwhile(self) -> None:
        if not self._calm and self.chance.random() < 0.3:
            self.world.act()
            self.counts["changes during a run"] += 1
        self._evaluate(nothing_expected="while a run reads")

    def _evaluate(self, *, nothing_expected: str = "") -> dg.RunRequest | None:
        """Evaluate the sensors of exports in any order, then that of alerts; the only request, if there is one."""
        asked: dg.RunRequest | None = None
        for sensor in self.chance.sample(EXPORT_SENSORS, len(EXPORT_SENSORS)):
            for request in self.daemon.evaluate(sensor)[0]:
                assert not nothing_expected, f"{sensor.name} asked for a run {nothing_expected}"
                assert asked is None, f"{sensor.name} asked for a second run"
                asked = request
                self._occupy(request)
        self.daemon.evaluate(alert_delivery_sensor)
        return asked

    def _occupy(self, request: dg.RunRequest) -> None:
        """Queue the run of a request, and draw what becomes of it."""
        fate = self.chance.choices([*FATES], [*FATES.values()])[0]
        left = 0 if fate in ("runs", "fails") else self.chance.randint(1, 3)
        self._occupant = Occupant(self._record(dg.DagsterRunStatus.NOT_STARTED, request.tags), dict(request.tags), fate, left)
        self.counts[f"run {fate}"] += 1

    def _record(self, status: dg.DagsterRunStatus, tags: Mapping[str, str]) -> dg.DagsterRun:
        """A run of which there is nothing but the record."""
        return self.instance.create_run_for_job(self.job, status=status, tags=dict(tags))

    def tick(self) -> None:
        """One trouble, then the sensors, then the queue."""
        self.counts["ticks"] += 1
        self.world.act()
        if self._occupant is not None:
            self._evaluate(nothing_expected="while one is under way")
            self._go_on(self._occupant)
            return
        self._judge(self._evaluate())
        if self._occupant is not None:
            self._begin(self._occupant)

    def settle(self) -> None:
        """Bring the exports back, end what is under way, and rebuild as the schedule does at night."""
        if self.world.away.exists():
            self.world.act()
        while self._occupant is not None:
            self._evaluate(nothing_expected="while one is under way")
            self._go_on(self._occupant)
        self._calm = True
        self._execute(run_tags(self.settings.home, self.settings.exports))
        self._evaluate(nothing_expected="after the nightly rebuild")

    def _judge(self, request: dg.RunRequest | None) -> None:
        """Hold a tick of the sensors against what is there, was read, and was rebuilt."""
        if is_empty(self.settings.exports):
            assert request is None, "a run was asked for without exports"
            return
        new, done = self.unread(), self.rebuilt()
        if request is not None:
            assert new or not done, "a run was asked for though nothing had changed"
            self.counts["requests"] += 1
            return
        assert not new or self.owed, f"nobody asked to rebuild {sorted(new)[:3]}"
        assert done or self.owed, "nobody asked to rebuild what was read, or what runs were retired"

    def unread(self) -> frozenset[tuple[str, str]]:
        """Contents that are there and that no scan has seen."""
        return self.world.contents() - present(Ledger(self.settings.home).entries(), FOLDERS).keys()

    def rebuilt(self) -> bool:
        """Whether all that was read, and the retirements as they are, went through a whole rebuild."""
        home = self.settings.home
        return is_rebuilt(home, Ledger(home).entries(), Retirements(home).digest())

    def _begin(self, occupant: Occupant) -> None:
        match occupant.fate:
            case "runs" | "fails":
                self._execute_next(occupant)
            case "killed":
                if self.chance.random() < 0.5:  # the kill came after the scan
                    Ingest(self.settings.home, Exports(self.settings.exports), TableStore(self.settings.home)).refresh()
                with subprocess.Popen(["sleep", "0.01"]) as dead:
                    self._start(occupant, dead.pid)
            case "hangs":
                occupant.process = subprocess.Popen(["sleep", "600"])
                self._start(occupant, occupant.process.pid)

    def _start(self, occupant: Occupant, pid: int) -> None:
        """Put the record of a run that the process `pid` executes in place of that of the queued one."""
        self.instance.delete_run(occupant.run.run_id)
        occupant.run = self._record(dg.DagsterRunStatus.STARTED, occupant.tags)
        tags = process_tags(occupant.run.run_id) | {PID: str(pid), STARTED: started(pid)}
        self.instance.add_run_tags(occupant.run.run_id, tags)

    def _go_on(self, occupant: Occupant) -> None:
        """What becomes of a run that is under way, as time goes on; the queue starts one that was killed again."""
        occupant.left -= 1
        if occupant.fate == "killed":
            (said,) = fail_stuck_runs(self.instance, self.settings.max_silence)
            assert "is gone" in said
        elif occupant.process is not None:
            assert [*fail_stuck_runs(self.instance, self.settings.max_silence)] == []
            if occupant.left > 0:
                return
            (said,) = fail_stuck_runs(self.instance, IMPATIENT)
            assert "written nothing" in said
            occupant.process.wait(10)
        elif occupant.left > 0:
            return
        self._execute_next(occupant)

    def _execute_next(self, occupant: Occupant) -> None:
        """Execute the run that is under way; if it still waits, in place of its record."""
        run = self.instance.get_run_by_id(occupant.run.run_id)
        if run is not None and not run.is_finished:
            self.instance.delete_run(run.run_id)
        self._fails = occupant.fate == "fails"
        self._execute(occupant.tags)
        self._fails, self._occupant = False, None

    def _execute(self, tags: Mapping[str, str]) -> None:
        """Execute a rebuild in this process."""
        done = self.job.execute_in_process(instance=self.instance, tags=dict(tags), run_config=QUIET, raise_on_error=False)
        self.owed = not done.success
        self.counts["rebuilds" if done.success else "failed rebuilds"] += 1
        self._tell_the_end(done)

    def _tell_the_end(self, done: dg.ExecuteInProcessResult) -> None:
        """What Dagster does when a run has ended: the sensor of its status tells the alerts too."""
        run = self.instance.get_run_by_id(done.run_id)
        kind = dg.DagsterEventType.RUN_SUCCESS if done.success else dg.DagsterEventType.RUN_FAILURE
        sensor = check_alert_success_sensor if done.success else check_alert_failure_sensor
        (ended,) = self.instance.all_logs(done.run_id, of_type=kind)
        assert run is not None
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_instance=self.instance,
            dagster_run=run,
            dagster_event=ended.get_dagster_event(),
            resources={"alerts": AlertOutbox(self.settings.home, self.settings.alert_webhook)},
        )
        sensor(context)

    def close(self) -> None:
        """End a process that still hangs."""
        if self._occupant is not None and self._occupant.process is not None:
            self._occupant.process.kill()
            self._occupant.process.wait()
