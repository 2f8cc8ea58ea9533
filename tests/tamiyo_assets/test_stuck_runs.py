"""Runs whose process is gone or silent are failed and their processes ended; live ones and those that ended are left alone."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._daemon.auto_run_reexecution.event_log_consumer import _create_cursor_key

from lake.writes import PROCESS_OF, STARTED, WRITES_TAGS, hold_writes, writer_of
from tamiyo_assets.instance import open_instance
from tamiyo_assets.run_sensors import RETRY_CURSOR, fail_stuck_runs, recall_retries, stuck_run_sensor, unfinished
from tests.tamiyo_assets.pipelines import settings

STARTED_RUN, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
PATIENCE, NO_PATIENCE = timedelta(minutes=20), timedelta(milliseconds=1)
# takes the lock of a home, starts a child of its own, prints its tags and the pid of the child, hangs
HANG = """
import json, subprocess, sys, time
from pathlib import Path
from lake.writes import hold_writes, process_tags
with hold_writes(Path(sys.argv[1]), "hung", print):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(json.dumps([process_tags("?"), child.pid]), flush=True)
    time.sleep(600)
"""


@dg.job
def nothing() -> None:
    """A job for runs that are never executed."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path / "dagster") as found:
        yield found


class Hung:
    """A process that holds the lock of a home and hangs, with a child that hangs too."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-c", HANG, str(home)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.tags, child = json.loads(self.process.stdout.readline())
        self.child = psutil.Process(child)

    def alive(self) -> tuple[bool, bool]:
        return self.process.poll() is None, self.child.is_running() and self.child.status() != psutil.STATUS_ZOMBIE

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.child.is_running():
            self.child.kill()


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Hung]:
    found = Hung(tmp_path / "home")
    yield found
    found.close()


def under_way(
    instance: dg.DagsterInstance, tags: Mapping[str, str], status: dg.DagsterRunStatus = STARTED_RUN, **changed: str
) -> dg.DagsterRun:
    """A run that a process with these tags executes; `changed` replaces some of them."""
    run = instance.create_run_for_job(nothing, status=status, tags=dict(WRITES_TAGS))
    instance.add_run_tags(run.run_id, {**tags, PROCESS_OF: run.run_id, **{f"tamiyo/{k}": v for k, v in changed.items()}})
    return run


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def failed(instance: dg.DagsterInstance, max_silence: timedelta = PATIENCE) -> list[str]:
    return [*fail_stuck_runs(instance, max_silence)]


def last_message(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    (entry,) = instance.event_log_storage.get_logs_for_run(run.run_id, limit=1, ascending=False)
    return entry.dagster_event.message or "" if entry.dagster_event else entry.user_message


def test_a_live_run_is_left_alone(instance: dg.DagsterInstance, hung: Hung) -> None:
    run = under_way(instance, hung.tags)
    assert failed(instance) == []
    assert (status_of(instance, run), hung.alive()) == (STARTED_RUN, (True, True))
    assert unfinished(instance) == run.run_id


@pytest.mark.parametrize("status", [STARTED_RUN, dg.DagsterRunStatus.CANCELING])
def test_a_run_whose_process_was_killed_is_failed(
    instance: dg.DagsterInstance, hung: Hung, status: dg.DagsterRunStatus
) -> None:
    run = under_way(instance, hung.tags, status)
    hung.process.kill()
    gone = psutil.Process(hung.process.pid)
    while gone.status() != psutil.STATUS_ZOMBIE:  # not waited for by its parent, and gone all the same
        time.sleep(0.01)
    (said,) = failed(instance)
    assert f"its process {hung.process.pid}" in said and "is gone" in said and run.run_id[:8] in said
    assert status_of(instance, run) is FAILURE
    assert "is gone. It was failed, and its lock is free" in last_message(instance, run)
    assert unfinished(instance) is None
    assert failed(instance) == [], "told once"


def test_a_run_of_an_earlier_boot_is_failed(instance: dg.DagsterInstance, hung: Hung) -> None:
    run = under_way(instance, hung.tags, boot_id="an earlier one")
    assert len(failed(instance)) == 1
    assert (status_of(instance, run), hung.alive()) == (FAILURE, (True, True)), "what has its pid now is another process"


def test_a_run_whose_pid_is_another_process_by_now_is_failed_and_that_process_goes_on(
    instance: dg.DagsterInstance, hung: Hung
) -> None:
    run = under_way(instance, hung.tags, process_started=str(int(hung.tags[STARTED]) - 1))
    assert len(failed(instance, NO_PATIENCE)) == 1
    assert (status_of(instance, run), hung.alive()) == (FAILURE, (True, True))


def test_a_silent_run_is_failed_its_process_ended_with_its_children_and_the_lock_is_free(
    instance: dg.DagsterInstance, hung: Hung, tmp_path: Path
) -> None:
    run = under_way(instance, hung.tags)
    assert writer_of(tmp_path / "home") is not None
    (said,) = failed(instance, NO_PATIENCE)
    assert "it has written nothing for 0:00:0" in said
    assert status_of(instance, run) is FAILURE
    hung.process.wait(5)
    assert hung.alive() == (False, False)
    assert writer_of(tmp_path / "home") is None
    with hold_writes(tmp_path / "home", "next", pytest.fail):
        pass


def test_silence_counts_from_the_newest_event(instance: dg.DagsterInstance, hung: Hung) -> None:
    silent, speaking = (under_way(instance, hung.tags, host="elsewhere") for _ in range(2))
    instance.report_engine_event("begins", silent)
    time.sleep(2.0)
    instance.report_engine_event("goes on", speaking)
    (said,) = failed(instance, timedelta(seconds=1.5))
    assert silent.run_id[:8] in said
    assert (status_of(instance, silent), status_of(instance, speaking)) == (FAILURE, STARTED_RUN)


def test_a_run_of_another_host_is_failed_by_silence_alone(instance: dg.DagsterInstance, hung: Hung) -> None:
    run = under_way(instance, hung.tags, host="elsewhere", pid="1", boot_id="theirs")
    assert failed(instance) == []
    assert len(failed(instance, NO_PATIENCE)) == 1
    assert status_of(instance, run) is FAILURE
    assert "may go on" in last_message(instance, run), "nobody knows whether the lock of a home over there is free"


def test_a_process_here_that_has_the_pid_of_one_on_another_host_goes_on(instance: dg.DagsterInstance, hung: Hung) -> None:
    under_way(instance, hung.tags, host="elsewhere")
    assert len(failed(instance, NO_PATIENCE)) == 1
    assert hung.alive() == (True, True)


def test_a_re_execution_is_not_taken_for_the_dead_run_whose_tags_it_has(instance: dg.DagsterInstance, hung: Hung) -> None:
    dead = under_way(instance, hung.tags)
    hung.close()
    assert len(failed(instance)) == 1
    retried = under_way(instance, hung.tags, process_of=dead.run_id)
    assert failed(instance) == []
    assert status_of(instance, retried) is STARTED_RUN


def test_a_run_that_has_not_named_its_process_is_failed_by_silence_alone(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(nothing, status=STARTED_RUN)
    assert failed(instance) == []
    assert len(failed(instance, NO_PATIENCE)) == 1
    assert status_of(instance, run) is FAILURE


def test_a_run_that_was_created_and_never_started_is_failed_by_silence_and_holds_up_nobody(
    instance: dg.DagsterInstance,
) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.NOT_STARTED, tags=dict(WRITES_TAGS))
    assert failed(instance) == []
    assert unfinished(instance) == run.run_id
    (said,) = failed(instance, NO_PATIENCE)
    assert "never started" in said
    assert (status_of(instance, run), unfinished(instance)) == (FAILURE, None)


def test_a_run_that_ends_meanwhile_is_left_alone_and_so_is_its_process(instance: dg.DagsterInstance, hung: Hung) -> None:
    silent = under_way(instance, hung.tags)
    under_way(instance, hung.tags, boot_id="an earlier one")  # the newer one is looked at first
    found = fail_stuck_runs(instance, NO_PATIENCE)
    assert "is gone" in next(found)
    instance.report_run_canceled(silent)
    assert [*found] == []
    assert (status_of(instance, silent), hung.alive()) == (dg.DagsterRunStatus.CANCELED, (True, True))


def test_a_process_of_another_user_is_told_of_and_stops_nothing(
    instance: dg.DagsterInstance, hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    silent = under_way(instance, hung.tags)
    monkeypatch.setattr("os.kill", refuse)
    assert len(failed(instance, NO_PATIENCE)) == 1
    monkeypatch.undo()
    assert status_of(instance, silent) is FAILURE
    assert "may go on" in last_message(instance, silent)


def test_the_sensor_says_what_it_did(instance: dg.DagsterInstance, hung: Hung, tmp_path: Path) -> None:
    under_way(instance, hung.tags, boot_id="an earlier one")
    found = settings(tmp_path, tmp_path)
    for expected in ("was failed: its process", "No run is stuck."):
        with dg.build_sensor_context(instance=instance, resources={"settings": found}) as context:
            result = stuck_run_sensor.evaluate_tick(context)
        assert result.skip_message is not None and expected in result.skip_message


def test_a_failure_that_dagster_saw_too_early_is_tried_again(instance: dg.DagsterInstance) -> None:
    """Its daemon takes a run whose failure is in the event log before its status is written for one that goes on."""
    run = under_way(instance, {})
    instance.report_run_failed(run, "its process is gone")
    numbers = instance.event_log_storage.get_logs_for_all_runs_by_log_id(
        after_cursor=-1, dagster_event_type={dg.DagsterEventType.RUN_FAILURE}
    )
    (number,) = numbers
    instance.daemon_cursor_storage.set_cursor_values({RETRY_CURSOR: str(number)})  # has read it, and does nothing
    at = datetime.now(UTC)
    assert [*recall_retries(instance, at)] == [], "it may just be about to"
    assert [*recall_retries(instance, at + timedelta(hours=1))] == [], "it refused"
    (said,) = recall_retries(instance, at + timedelta(minutes=1))
    assert run.run_id[:8] in said
    cursor = int(instance.daemon_cursor_storage.get_cursor_values({RETRY_CURSOR})[RETRY_CURSOR])
    assert [event.run_id for event in _after(instance, cursor)] == [run.run_id], "the daemon reads it once more"
    instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "another"})
    assert [*recall_retries(instance, at + timedelta(minutes=1))] == []


def test_the_place_that_is_wound_back_is_the_one_of_dagsters_daemon() -> None:
    assert _create_cursor_key(dg.DagsterEventType.RUN_FAILURE) == RETRY_CURSOR


def _after(instance: dg.DagsterInstance, cursor: int) -> list[dg.EventLogEntry]:
    kinds = {dg.DagsterEventType.RUN_FAILURE}
    found = instance.event_log_storage.get_logs_for_all_runs_by_log_id(after_cursor=cursor, dagster_event_type=kinds)
    return [*found.values()]
