"""Materializations launched through the GraphQL of a really started webserver."""

import pytest

from tests.browser.webserver import Webserver

_NODES = """
query { assetNodes { assetKey { path } groupName description kinds owners { ... on TeamAssetOwner { team } } } }
"""
_ROWS = """
query { assetOrError(assetKey: {path: ["urza", "blueprint"]}) { ... on Asset { assetMaterializations(limit: 1) {
  metadataEntries { label ... on IntMetadataEntry { intValue } } tags { key value } } } } }
"""


def test_the_code_location_loads_with_groups_descriptions_kinds_and_owners(webserver: Webserver) -> None:
    nodes = webserver.query(_NODES)["assetNodes"]
    assert {node["groupName"] for node in nodes} == {
        "upstream", "registries", "normalization", "features", "graphs", "model", "bundle", "telemetry",
    }  # fmt: skip
    bare = [node["assetKey"]["path"] for node in nodes if not (node["description"] and node["kinds"] and node["owners"])]
    assert bare == []


def test_a_materialization_launched_through_graphql_ends_well(webserver: Webserver) -> None:
    assert webserver.materialize(job="rebuild") == "SUCCESS"
    assert webserver.materialize("urza/blueprint", "simic/registry_snapshot", job="everything") == "SUCCESS"
    (event,) = webserver.query(_ROWS)["assetOrError"]["assetMaterializations"]
    entries = {entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]}
    assert entries["dagster/row_count"] > 0
    assert any(tag["key"] == "dagster/data_version" and tag["value"] for tag in event["tags"])


def test_of_two_materializations_launched_at_once_the_second_starts_when_the_first_has_ended(webserver: Webserver) -> None:
    """What the UI launches for a selection of assets carries no tags; the run queue gives it those of a writer."""
    ids = [webserver.launch("operations/exports", job="__ASSET_JOB", checks=False) for _ in range(2)]
    webserver.start_daemon()
    first, second = sorted((webserver.finished(run_id) for run_id in ids), key=lambda run: run["startTime"])
    assert (first["status"], second["status"]) == ("SUCCESS", "SUCCESS")
    assert second["startTime"] >= first["endTime"]
    for run in (first, second):
        assert (run["tags"]["tamiyo/writes"], run["tags"]["dagster/retry_strategy"]) == ("true", "ALL_STEPS")
    assert first["tags"]["tamiyo/pid"] != second["tags"]["tamiyo/pid"]


@pytest.mark.parametrize("job", ["everything", "rebuild", "train", "maintain_tables"])
def test_every_job_is_there(webserver: Webserver, job: str) -> None:
    found = webserver.query(
        'query { repositoryOrError(repositorySelector: {repositoryLocationName: "tamiyo_assets", '
        'repositoryName: "__repository__"}) { ... on Repository { jobs { name } } } }'
    )
    assert job in {each["name"] for each in found["repositoryOrError"]["jobs"]}
