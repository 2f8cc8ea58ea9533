"""The instance of a home: what `dagster.yaml` says is what Dagster reads, an older one is brought up to date."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from lake.settings import SAMPLE, Settings
from lake.writes import run_tags
from schemas.errors import StorageError
from tamiyo_assets.coordinator import OneWriterCoordinator
from tamiyo_assets.instance import CONFIGURATION, forget_sample, open_instance, update_configuration

OURS = CONFIGURATION.read_bytes()
# as an earlier version of this project, and an operator after it, left it: no mark
THEIRS = b"""# ours of long ago
telemetry:
  enabled: true  # replaced
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
schedules:
  use_threads: true
  num_workers: 3
run_queue:
  max_concurrent_runs: 5
concurrency:
  runs:
    max_concurrent_runs: 7
    tag_concurrency_limits: [{key: theirs, limit: 1}]
"""


@dg.job
def nothing() -> None:
    """A job for runs that are never executed."""


def test_every_kind_of_tick_is_deleted_some_day(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        for kind in (InstigatorType.SENSOR, InstigatorType.SCHEDULE):
            days = instance.get_tick_retention_settings(kind)
            assert set(days) == set(TickStatus) and all(0 < kept <= 90 for kept in days.values())
            assert days[TickStatus.SKIPPED] <= days[TickStatus.SUCCESS] <= days[TickStatus.FAILURE]
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1


def test_a_fresh_home_gets_our_configuration(tmp_path: Path) -> None:
    with open_instance(tmp_path / "made") as instance:
        assert isinstance(instance.run_coordinator, OneWriterCoordinator)
        assert not instance.telemetry_enabled and not instance.nux_enabled
    assert (tmp_path / "made" / "dagster.yaml").read_bytes() == OURS
    assert not (tmp_path / "made" / "dagster.yaml.old").exists()


def test_ours_replaces_what_it_makes_and_keeps_the_other_settings_of_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(THEIRS)
    update_configuration(tmp_path)
    assert path.read_bytes().startswith(OURS), "comments included"
    kept = {"schedules": {"use_threads": True, "num_workers": 3}, "concurrency": {"runs": {"max_concurrent_runs": 7}}}
    assert yaml.safe_load(path.read_bytes()) == yaml.safe_load(OURS) | kept
    assert (tmp_path / "dagster.yaml.old").read_bytes() == THEIRS


def test_an_instance_of_an_older_file_opens_with_one_writer_at_a_time(tmp_path: Path) -> None:
    """Dagster refuses `run_queue` beside a run coordinator, and limits of tags in two places."""
    (tmp_path / "dagster.yaml").write_bytes(THEIRS)
    with open_instance(tmp_path) as instance:
        assert isinstance(instance.run_coordinator, OneWriterCoordinator)
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None and queue.tag_concurrency_limits == [{"key": "tamiyo/writes", "limit": 1}]
        assert queue.max_concurrent_runs == 7
        assert instance.get_settings("schedules")["num_workers"] == 3
        assert not instance.telemetry_enabled


def test_an_update_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(THEIRS)
    update_configuration(tmp_path)
    first = {file.name: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in tmp_path.iterdir()}
    update_configuration(tmp_path)
    assert {f.name: (f.read_bytes(), f.stat().st_mtime_ns, f.stat().st_ino) for f in tmp_path.iterdir()} == first


@pytest.mark.parametrize("mark", [b"# tamiyo-assets instance 2\n", b"# tamiyo-assets instance 99\n"])
def test_a_file_of_this_version_or_a_later_one_is_left_alone(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(mark + b"nux: {enabled: true}\n")
    update_configuration(tmp_path)
    assert path.read_bytes() == mark + b"nux: {enabled: true}\n"
    assert not path.with_name("dagster.yaml.old").exists()


def test_a_file_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(b"# tamiyo-assets instance 1\nnux: {enabled: true}\n")
    update_configuration(tmp_path)
    assert path.read_bytes() == OURS


@pytest.mark.parametrize("content", [b"", b"# nothing but a comment\n"])
def test_an_empty_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dagster.yaml").write_bytes(content)
    update_configuration(tmp_path)
    assert (tmp_path / "dagster.yaml").read_bytes() == OURS
    assert (tmp_path / "dagster.yaml.old").read_bytes() == content


@pytest.mark.parametrize("content", [b"a: [1, 2\n", b"\xff\xfe\x00", b"just words\n", b"- a\n- list\n"])
def test_what_is_not_configuration_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"dagster\.yaml: expected YAML with a mapping, found: .+; mend it, or"):
        update_configuration(tmp_path)
    assert path.read_bytes() == content
    assert not path.with_name("dagster.yaml.old").exists()


def test_several_processes_open_a_fresh_home_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tamiyo_assets.instance", str(tmp_path / "fresh")]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(child.communicate()[1], child.returncode) for child in children] == [("", 0)] * 3


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with events of one asset."""
    with open_instance(tmp_path) as found:
        found.report_runless_asset_event(dg.AssetMaterialization("rows"))
        yield found


def own(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "own", exports=tmp_path / "exports", dagster_home=tmp_path)


def ran(instance: dg.DagsterInstance, home: Path, exports: Path) -> None:
    instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.SUCCESS, tags=run_tags(home, exports))


def test_events_of_the_sample_go_before_the_first_run_on_own_exports(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    ran(instance, tmp_path / "sample", SAMPLE)
    assert forget_sample(instance, own(tmp_path))
    assert instance.get_latest_materialization_event(dg.AssetKey("rows")) is None
    ran(instance, tmp_path / "own", tmp_path / "exports")
    instance.report_runless_asset_event(dg.AssetMaterialization("rows"))
    assert not forget_sample(instance, own(tmp_path)), "the first run only"
    assert instance.get_latest_materialization_event(dg.AssetKey("rows")) is not None


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="no run"),
        pytest.param([("sample", "other")], id="own exports in another home"),
        pytest.param([("own", "sample")], id="the sample, named, in this home"),
        pytest.param([("sample", "sample"), ("own", "exports")], id="the sample, then own exports"),
    ],
)
def test_events_of_anything_else_are_kept(instance: dg.DagsterInstance, tmp_path: Path, before: list[tuple[str, str]]) -> None:
    for home, exports in before:
        ran(instance, tmp_path / home, SAMPLE if exports == "sample" else tmp_path / exports)
    assert not forget_sample(instance, own(tmp_path))
    assert instance.get_latest_materialization_event(dg.AssetKey("rows")) is not None


def test_a_run_that_did_not_write_says_nothing_of_the_sample(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    ran(instance, tmp_path / "sample", SAMPLE)
    instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.SUCCESS)
    assert forget_sample(instance, own(tmp_path))
