"""New exports request a rebuild of what depends on them, once per change; nothing new requests nothing."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tamiyo_assets.definitions import build_definitions, build_resources
from tamiyo_assets.jobs import kasmina_job, urabrask_job
from tamiyo_assets.partitions import RANGE_END, RANGE_START, TRAINING_RUNS, range_tags
from tamiyo_assets.sensors import kasmina_exports_sensor, urabrask_exports_sensor
from tamiyo_assets.settings import Settings
from tests.exports import part_of
from tests.tamiyo_assets.pipelines import settings

SEED = {"seed_id": "seed-new", "training_run_id": "run-new", "timestamp_ns": "1", "stage": "SEED_STAGE_DORMANT", "alpha": 0.5}


@pytest.fixture
def found(tmp_path: Path, sample: Path) -> Settings:
    """A pipeline whose exports are a copy of a part of the sample."""
    return settings(tmp_path, part_of(sample, tmp_path / "exports"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def ingest(found: Settings, instance: dg.DagsterInstance) -> None:
    job = build_definitions(found).resolve_job_def("ingest_exports")
    assert job.execute_in_process(instance=instance).success


def tick(
    found: Settings, instance: dg.DagsterInstance, cursor: str | None, sensor: dg.SensorDefinition = kasmina_exports_sensor
) -> tuple[list[dg.RunRequest], str | None, list[str]]:
    """Run requests, the next cursor and new partitions of one evaluation."""
    resources = build_resources(found)
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
    result = sensor(context)
    if isinstance(result, dg.SkipReason):
        return [], cursor, []
    added = [key for request in result.dynamic_partitions_requests or [] for key in request.partition_keys]
    return list(result.run_requests or []), result.cursor, added


def new_seeds(found: Settings, name: str = "late.ndjson", run: str = "run-new") -> Path:
    path = found.exports / "kasmina/seed_state" / name
    path.write_text(json.dumps(SEED | {"training_run_id": run}) + "\n")
    return path


def test_what_was_read_already_requests_nothing(found: Settings, instance: dg.DagsterInstance) -> None:
    ingest(found, instance)
    requests, cursor, _ = tick(found, instance, None)
    assert requests == [] and cursor is not None
    assert tick(found, instance, cursor) == ([], cursor, [])


def test_new_seed_states_request_one_rebuild_with_their_run_as_a_partition(
    found: Settings, instance: dg.DagsterInstance
) -> None:
    ingest(found, instance)
    known = list(instance.get_dynamic_partitions(TRAINING_RUNS))
    _, cursor, _ = tick(found, instance, None)
    new_seeds(found)
    (request,), after, added = tick(found, instance, cursor)
    assert added == ["run-new"]
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (known[0], "run-new")
    assert tick(found, instance, after) == ([], after, [])


def test_the_first_exports_of_a_fresh_home_request_a_rebuild(found: Settings, instance: dg.DagsterInstance) -> None:
    requests, _, added = tick(found, instance, None)
    assert len(requests) == 1 and len(added) > 0


def test_a_then_b_then_a_again_are_three_run_keys(found: Settings, instance: dg.DagsterInstance) -> None:
    ingest(found, instance)
    keys, cursor = [], None
    _, cursor, _ = tick(found, instance, cursor)
    path = new_seeds(found)
    (request,), cursor, _ = tick(found, instance, cursor)
    keys.append(request.run_key)
    path.unlink()
    (request,), cursor, _ = tick(found, instance, cursor)
    keys.append(request.run_key)
    new_seeds(found)
    (request,), cursor, _ = tick(found, instance, cursor)
    keys.append(request.run_key)
    assert len(set(keys)) == 3
    assert keys[0].split(":")[0] == keys[2].split(":")[0]


def test_the_same_bytes_under_another_name_are_nothing_new(found: Settings, instance: dg.DagsterInstance) -> None:
    ingest(found, instance)
    _, cursor, _ = tick(found, instance, None)
    path = sorted((found.exports / "kasmina/seed_state").iterdir())[0]
    path.rename(path.with_name("renamed" + "".join(path.suffixes)))
    assert tick(found, instance, cursor)[0] == []


def test_urabrask_has_a_sensor_of_its_own(found: Settings, instance: dg.DagsterInstance) -> None:
    ingest(found, instance)
    _, cursor, _ = tick(found, instance, None, urabrask_exports_sensor)
    new_seeds(found)
    assert tick(found, instance, cursor, urabrask_exports_sensor)[0] == []
    sheet = {
        "blueprint_id": "kernel-scale",
        "risk_score": 0.5,
        "hazard_band": "HAZARD_BAND_LOW",
        "issued_at": "2026-01-01T00:00:00Z",
    }
    with gzip.open(found.exports / "urabrask/bsds/late.ndjson.gz", "wt") as file:
        file.write(json.dumps(sheet) + "\n")
    assert len(tick(found, instance, cursor, urabrask_exports_sensor)[0]) == 1


def test_the_jobs_hold_what_depends_on_the_exports(found: Settings) -> None:
    graph = build_definitions(found).resolve_asset_graph()
    for job, own, other in (
        (kasmina_job, "kasmina/seed_state", "urza/blueprint"),
        (urabrask_job, "urabrask/bsds", "urza/blueprint"),
    ):
        keys = {key.to_user_string() for key in job.selection.resolve(graph)}
        assert {
            own,
            "features/seed",
            "coverage/by_key",
            "graphs/dataset",
            "bundle/tamiyo_gnn_v1",
            "telemetry/feature_coverage",
        } <= keys
        assert other not in keys


def test_a_range_runs_from_the_first_to_the_last_touched_partition_in_order_of_insertion() -> None:
    assert range_tags(["b", "a", "c", "d"], {"c", "a"}) == {RANGE_START: "a", RANGE_END: "c"}
    assert range_tags(["b"], set()) == {}
