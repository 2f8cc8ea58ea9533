"""The code location: names, groups and what blocks."""

from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from lake.exports.feeds import SYSTEMS
from lake.settings import Settings
from schemas.contracts import FOLDERS, TABLES
from schemas.derived.tables import DECLARED
from tamiyo_assets.assets.reports import key_of, table_of
from tamiyo_assets.definitions import build_definitions, defs
from tamiyo_assets.jobs import JOBS
from tamiyo_assets.sensors import OTHERS
from tests.tamiyo_assets.pipelines import settings
from tests.tamiyo_assets.snapshot import SNAPSHOT, text


@pytest.fixture
def definitions(tmp_path: Path) -> dg.Definitions:
    return build_definitions(settings(tmp_path, tmp_path))


def test_sensors_and_schedules_have_their_names_and_run_by_default() -> None:
    repository = defs.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "kasmina_exports_sensor",
        "urabrask_exports_sensor",
        "exports_sensor",
        "training_sensor",
        "stuck_run_sensor",
        "check_alert_success_sensor",
        "check_alert_failure_sensor",
        "alert_delivery_sensor",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "registry_refresh_schedule",
        "maintenance_schedule",
    }
    assert all(sensor.default_status is dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs)


def test_every_definition_loads_as_the_webserver_loads_it() -> None:
    repository = defs.get_repository_def()
    repository.load_all_definitions()  # raises what the webserver would show
    assert {job.name for job in JOBS} <= {job.name for job in repository.get_all_jobs()}


def test_only_preflight_blocks(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {"preflight"}


def test_every_asset_has_a_column_schema_or_is_no_table(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    no_tables = {"operations/exports", "operations/warehouse", "operations/panel", "graphs/dataset"}
    no_tables |= {"bundle/tamiyo_gnn_v1", "bundle/current"}
    no_tables |= {f"feeds/{system}" for system in SYSTEMS}
    tables = [node for node in graph.asset_nodes if node.key.to_user_string() not in no_tables]
    assert [node.key.to_user_string() for node in tables if "dagster/column_schema" not in node.metadata] == []


def test_every_asset_has_a_group_owners_kinds_a_description_and_the_system_that_answers_for_it(
    definitions: dg.Definitions,
) -> None:
    for node in definitions.resolve_asset_graph().asset_nodes:
        key = node.key.to_user_string()
        assert node.group_name != "default" and node.owners and node.kinds and node.description, key
        table = TABLES.get(table_of(node.key))
        system = key.removeprefix("feeds/") if key.startswith("feeds/") else "tamiyo"
        assert node.tags["tamiyo/system"] == (table.system if table else system), key
        assert f"team:{node.tags['tamiyo/system']}" in node.owners, key


def test_no_column_of_any_asset_is_without_a_description(definitions: dg.Definitions) -> None:
    schemas = {
        node.key.to_user_string(): node.metadata["dagster/column_schema"]
        for node in definitions.resolve_asset_graph().asset_nodes
        if "dagster/column_schema" in node.metadata
    }
    assert [f"{key} {c.name}" for key, schema in schemas.items() for c in schema.columns if not c.description] == []


def test_the_columns_of_every_derived_asset_are_those_declared(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name, table in DECLARED.items():
        shown = graph.get(key_of(name)).metadata["dagster/column_schema"].columns
        assert [(c.name, c.type, c.constraints.nullable) for c in shown] == [
            (c.name, str(c.type), c.nullable) for c in table.columns
        ], name


def test_a_node_of_the_graph_shows_the_schema_beside_the_name(definitions: dg.Definitions) -> None:
    """The UI names a node by the last part of its key; the kinds are shown with it."""
    nodes = definitions.resolve_asset_graph().asset_nodes
    assert [node.key.to_user_string() for node in nodes if node.key.path[0] not in node.kinds] == []
    shown = Counter((node.key.path[-1], *sorted(node.kinds)) for node in nodes)
    assert [node for node, count in shown.items() if count > 1] == []
    in_groups = Counter((node.group_name, node.key.path[-1]) for node in nodes)
    assert [node for node, count in in_groups.items() if count > 1] == []


def test_the_definitions_are_those_of_the_snapshot() -> None:
    """`python -m tests.tamiyo_assets.snapshot` writes it anew."""
    assert text(defs) == SNAPSHOT.read_text(encoding="utf-8")


def test_tests_can_replace_a_resource(tmp_path: Path) -> None:
    other = Settings(home=tmp_path / "other", exports=tmp_path, dagster_home=tmp_path)
    found = build_definitions(settings(tmp_path, tmp_path), resources={"settings": other})
    assert found.resources is not None and found.resources["settings"] is other


def test_the_sensors_watch_every_folder_of_the_contracts() -> None:
    watched = {system for sensor in (["kasmina"], ["urabrask"], OTHERS) for system in sensor}
    assert watched == {folder.system for folder in FOLDERS.values()}


def test_a_rebuild_is_everything_but_what_is_trained(definitions: dg.Definitions) -> None:
    every = {key.to_user_string() for key in definitions.resolve_asset_graph().executable_asset_keys}
    rebuilt, trained = (
        {key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.selected_asset_keys}
        for job in ("rebuild", "train")
    )
    assert every - rebuilt == {
        "training/predictions",
        "training/evaluation",
        "training/calibration",
        "bundle/tamiyo_gnn_v1",
        "bundle/current",
    }
    assert trained == every - rebuilt | {"operations/warehouse", "operations/panel"}


def test_dg_finds_the_code_location(repository: Path) -> None:
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert project["code_location_target_module"] == "tamiyo_assets.definitions"
