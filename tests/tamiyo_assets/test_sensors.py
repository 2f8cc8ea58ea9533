"""New exports ask for one rebuild of everything, once per change; training follows in due time."""

import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from gnn.registry.refresh import load
from lake.alert_outbox import AlertOutbox
from lake.exports.folders import Exports
from lake.exports.ledger import REBUILT, note_rebuilt
from lake.ingest.ingest import Ingest
from lake.retirement import Retirements
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.writes import EXPORTS, HOME, WRITES
from tamiyo_assets.instance import open_instance
from tamiyo_assets.sensors import (
    Cursor,
    kasmina_exports_sensor,
    training_sensor,
    urabrask_exports_sensor,
)
from tests.exports import part_of
from tests.tamiyo_assets.daemon import EXPORT_SENSORS, Daemon, daemon
from tests.tamiyo_assets.pipelines import settings

pytestmark = pytest.mark.pipeline

SEED = {"seed_id": "seed-new", "training_run_id": "run-new", "timestamp_ns": "1", "stage": "SEED_STAGE_DORMANT", "alpha": 0.5}


@pytest.fixture
def found(tmp_path: Path) -> Settings:
    """A pipeline whose exports are three seeds."""
    root = tmp_path / "exports"
    (root / "kasmina/seed_state").mkdir(parents=True)
    (root / "kasmina/seed_state/a.ndjson").write_text("".join(json.dumps(SEED | {"timestamp_ns": n}) + "\n" for n in "345"))
    return settings(tmp_path, root)


class Reading(Daemon):
    """A daemon whose runs only read the exports, which is all that sensors of exports look at afterwards."""

    def execute(self, request: dg.RunRequest, sensor: dg.SensorDefinition) -> Any:
        self.jobs.append(request.job_name or sensor.job_name)
        Ingest(self.settings.home, Exports(self.settings.exports), TableStore(self.settings.home)).refresh()
        note_rebuilt(self.settings.home, Retirements(self.settings.home).digest())
        return SimpleNamespace(success=True)


@pytest.fixture
def one(found: Settings) -> Iterator[Daemon]:
    with open_instance(found.dagster_home) as instance:
        yield Reading(found, instance)


def new_seeds(found: Settings, name: str = "late.ndjson", run: str = "run-new") -> Path:
    path = found.exports / "kasmina/seed_state" / name
    path.write_text(json.dumps(SEED | {"training_run_id": run}) + "\n")
    return path


def requested(one: Daemon, sensor: dg.SensorDefinition = kasmina_exports_sensor) -> list[dg.RunRequest]:
    return one.evaluate(sensor)[0]


def told(one: Daemon, sensor: dg.SensorDefinition = kasmina_exports_sensor) -> str:
    requests, why = one.evaluate(sensor)
    assert requests == [] and why is not None
    return why


def under_way(one: Daemon, status: dg.DagsterRunStatus, **tags: Any) -> dg.DagsterRun:
    """A run of somebody else's, in some state."""
    job = one.definitions.resolve_job_def("rebuild")
    return one.instance.create_run_for_job(job, status=status, tags={WRITES: "true", **tags})


def test_the_first_exports_of_a_home_build_everything_and_what_was_read_asks_for_nothing(one: Daemon, found: Settings) -> None:
    (request,) = requested(one)
    assert request.job_name == "everything"
    assert (request.tags[WRITES], request.tags[HOME], request.tags[EXPORTS]) == (
        "true",
        str(found.home),
        str(found.exports),
    )
    assert one.execute(request, kasmina_exports_sensor).success
    assert "Nothing new" in told(one)
    assert "Nothing new" in told(one, urabrask_exports_sensor)


def test_whichever_sensor_sees_a_change_first_asks_for_all_of_it_and_the_others_find_nothing(
    one: Daemon, found: Settings
) -> None:
    one = Daemon(found, one.instance)
    one.tick()
    new_seeds(found)
    sheet = {"blueprint_id": "kernel-scale", "risk_score": 0.5, "issued_at": "2026-01-01T00:00:00Z"}
    (found.exports / "urabrask/bsds").mkdir(parents=True)
    with gzip.open(found.exports / "urabrask/bsds/late.ndjson.gz", "wt") as file:
        file.write(json.dumps(sheet) + "\n")
    (found.exports / "simic/registry_snapshot").mkdir(parents=True)
    (found.exports / "simic/registry_snapshot/optimizer_family_registry.json").write_text('{"lion": 9}')
    assert one.tick(*EXPORT_SENSORS) == ["rebuild"]
    assert load(found.home / "registries")["optimizer_family"].entries["lion"] == 9
    assert one.tick(*EXPORT_SENSORS) == []


def test_a_then_b_then_a_again_are_three_rebuilds(one: Daemon, found: Settings) -> None:
    one.tick()
    path = found.exports / "kasmina/seed_state/a.ndjson"
    first = path.read_bytes()
    for data in (json.dumps(SEED | {"alpha": 0.25}).encode() + b"\n", first, b'{"seed_id": "third"}\n'):
        path.write_bytes(data)
        assert one.tick(*EXPORT_SENSORS) == ["rebuild"]
    assert len({key for _, key in one.run_keys}) == 4


def test_the_same_bytes_under_another_name_and_deleted_and_half_written_files_start_nothing(
    one: Daemon, found: Settings
) -> None:
    new_seeds(found)
    one.tick()
    path = found.exports / "kasmina/seed_state/a.ndjson"
    path.rename(path.with_name("renamed.ndjson"))
    assert one.tick() == []
    path.with_name("copy.ndjson").write_bytes(path.with_name("renamed.ndjson").read_bytes())
    assert one.tick() == []
    path.with_name("renamed.ndjson").unlink()
    assert one.tick() == []
    new_seeds(found, "being-written.ndjson.tmp", "run-half")
    assert one.tick() == []
    before = Cursor.parse(one.cursors[kasmina_exports_sensor.name])
    (found.exports / "kasmina/seed_state/late.ndjson").unlink()
    assert one.tick() == []
    after = Cursor.parse(one.cursors[kasmina_exports_sensor.name])
    assert (after.digest != before.digest, after.sequence) == (True, before.sequence + 1)


def test_a_snapshot_of_another_registry_is_new_also_with_the_bytes_of_the_first(one: Daemon, found: Settings) -> None:
    folder = found.exports / "simic/registry_snapshot"
    folder.mkdir(parents=True)
    for name in ("seed", "schedule"):
        (folder / f"{name}_registry.json").write_text('{"unknown": 1}')
        assert one.tick(*EXPORT_SENSORS) == ["everything" if name == "seed" else "rebuild"]
    assert one.tick() == []


def test_a_retirement_asks_for_one_rebuild_and_a_second_thought_for_none(one: Daemon, found: Settings) -> None:
    one.tick()
    journal = Retirements(found.home)
    journal.retire(["run-new"], "a test", "op", 1)
    journal.restore(["run-new"], "", "op", 2)
    assert one.tick(*EXPORT_SENSORS) == []
    journal.retire(["run-new"], "a test", "op", 3)
    assert one.tick(*EXPORT_SENSORS) == ["rebuild"]
    assert one.tick(*EXPORT_SENSORS) == []
    one.cursors.clear()  # a daemon that starts
    assert one.tick(*EXPORT_SENSORS) == []
    run = under_way(one, dg.DagsterRunStatus.STARTED)
    journal.restore(["run-new"], "", "op", 4)
    assert run.run_id[:8] in told(one)
    one.instance.report_run_failed(run)
    assert one.tick(*EXPORT_SENSORS) == ["rebuild"]


def test_a_retirement_during_a_rebuild_asks_for_another_one(one: Daemon, found: Settings) -> None:
    one.tick()
    Retirements(found.home).retire(["run-new"], "a test", "op", 1)
    (request,) = requested(one)
    assert one.execute(request, kasmina_exports_sensor).success
    note_rebuilt(found.home, "")  # that run had read the journal before
    one.cursors.clear()
    assert len(requested(one)) == 1


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
)
def test_a_sensor_keeps_its_cursor_while_a_run_that_writes_is_under_way(
    one: Daemon, found: Settings, status: dg.DagsterRunStatus
) -> None:
    one.tick()
    run = under_way(one, status)
    new_seeds(found)
    before = dict(one.cursors)
    assert run.run_id[:8] in told(one)
    new_seeds(found, "later.ndjson", "run-later")
    assert run.run_id[:8] in told(one)
    assert one.cursors == before
    one.instance.report_run_failed(run)
    assert len(requested(one)) == 1


def test_what_an_interrupted_run_read_is_rebuilt(one: Daemon, found: Settings) -> None:
    one.tick()
    path = new_seeds(found)
    (request,) = requested(one)
    assert one.execute(request, kasmina_exports_sensor).success
    (found.home / REBUILT).write_text('{"seq": 1}')  # as if the run had ended after its ingest
    path.rename(path.with_name("renamed.ndjson"))
    assert "Nothing new" in told(one)
    one.cursors.clear()  # a daemon that starts
    assert len(requested(one)) == 1


def test_a_rebuild_in_which_a_step_fails_is_not_asked_for_again_and_again(one: Daemon, found: Settings) -> None:
    one.tick()
    new_seeds(found)
    assert len(requested(one)) == 1  # and what came of it, the sensor does not know
    assert "Nothing new" in told(one)


@pytest.mark.parametrize(("status", "asked"), [(dg.DagsterRunStatus.SUCCESS, 1), (dg.DagsterRunStatus.FAILURE, 0)])
def test_what_was_away_while_a_rebuild_scanned_is_rebuilt_once_it_is_back(
    one: Daemon, found: Settings, status: dg.DagsterRunStatus, asked: int
) -> None:
    one.tick()
    path = new_seeds(found)
    (request,) = requested(one)
    away = path.rename(found.home / "away")
    assert one.execute(request, kasmina_exports_sensor).success
    under_way(one, status)  # the run of that request
    away.rename(path)
    assert len(requested(one)) == asked
    assert "Nothing new" in told(one)


def test_the_committed_sample_is_not_watched(one: Daemon, found: Settings) -> None:
    one.settings = found.model_copy(update={"exports_are_sample": True})
    assert "committed sample" in told(one)


def test_an_exports_root_that_vanished_is_an_alert_until_it_is_back(one: Daemon, found: Settings) -> None:
    one.tick()
    (found.exports / "kasmina/seed_state/a.ndjson").rename(found.home / "away")
    for sensor in (*EXPORT_SENSORS, *EXPORT_SENSORS):
        assert "found none" in told(one, sensor)
    alerts = AlertOutbox(found.home, None)
    (alert,) = alerts.read().alerts.values()
    assert (alert.check, alert.severity, alert.state) == ("exports_root", "ERROR", "open")
    (found.home / "away").rename(found.exports / "kasmina/seed_state/a.ndjson")
    assert "Nothing new" in told(one)
    assert [message.state for message in alerts.read().messages.values()] == ["open", "resolved"]


def test_an_exports_root_that_was_always_empty_is_no_alert(one: Daemon, found: Settings) -> None:
    (found.exports / "kasmina/seed_state/a.ndjson").unlink()
    assert "found none" in told(one)
    assert AlertOutbox(found.home, None).read().alerts == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Settings:
    root = tmp_path_factory.mktemp("trained")
    found = settings(root, part_of(sample, root / "exports"))
    with daemon(found) as one:
        assert one.tick() == ["everything"]
    return found


def test_training_is_coalesced_and_what_failed_is_not_asked_for_again(trained: Settings) -> None:
    with daemon(trained) as one:
        assert "was made of what is there now" in told(one, training_sensor)
        new_seeds(trained)
        assert one.tick(*EXPORT_SENSORS) == ["rebuild"]
        assert "the next training is due in 0:" in told(one, training_sensor)
        one.settings = trained.model_copy(update={"retrain_after": timedelta(0)})
        run = under_way(one, dg.DagsterRunStatus.STARTED)
        assert run.run_id[:8] in told(one, training_sensor)
        one.instance.report_run_failed(run)
        (request,) = requested(one, training_sensor)
        assert request.tags[HOME] == str(trained.home)
        assert "has not ended well" in told(one, training_sensor)
        assert one.execute(request, training_sensor).success
        assert "was made of what is there now" in told(one, training_sensor)


def test_nothing_to_train_on_is_no_reason_for_a_training(one: Daemon) -> None:
    assert "to train on yet" in told(one, training_sensor)
